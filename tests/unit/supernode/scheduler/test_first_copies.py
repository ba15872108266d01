"""What the seed sends while an origin slower than all links delivers: each piece once, and the peers do the rest."""

from __future__ import annotations

from collections import Counter

from supernode.scheduler.machine import Scheduler
from tests.unit.supernode.scheduler.model import Cluster

MIB = 1 << 20


def two_nodes(*, origin_rate_bytes_s: float | None) -> Cluster:
    cluster = Cluster(
        Scheduler(seed=1, epoch=1),
        nodes=2,
        pieces=60,
        piece_bytes=MIB // 4,
        rate_bytes_s=200 * MIB,
        origin_rate_bytes_s=origin_rate_bytes_s,
        control_delay_s=0.0005,
    )
    cluster.run()
    return cluster


def test_two_nodes_swap_what_a_slow_origin_sends() -> None:
    cluster = two_nodes(origin_rate_bytes_s=2.5 * MIB)
    assert Counter(cluster.seed_sent) == dict.fromkeys(range(60), 1)
    assert min(cluster.sent[1], cluster.sent[2]) >= 0.4 * 60


def test_waiting_for_a_first_copy_costs_next_to_no_time() -> None:
    cluster = two_nodes(origin_rate_bytes_s=2.5 * MIB)
    assert max(cluster.done_at.values()) < 1.01 * max(cluster.arrived.values())


def test_two_nodes_share_what_the_seed_has() -> None:
    cluster = two_nodes(origin_rate_bytes_s=None)
    assert Counter(cluster.seed_sent).most_common(1)[0][1] == 1
