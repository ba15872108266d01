"""Samples of a run, from counters of interfaces."""

from __future__ import annotations

from benchmarks.fanout.site import Traffic
from benchmarks.fanout.watch import Reading, samples


def traffic(*, direct: int, seed: int, peer: int, supernode: int = 0) -> Traffic:
    return Traffic(direct + supernode, supernode, seed, direct + seed + peer, peer, 0, 0)


def test_samples_follow_the_counters_and_end_at_the_nodes_own_figures() -> None:
    readings = [
        Reading(1.0, traffic(direct=0, seed=100, peer=0, supernode=300)),
        Reading(2.0, traffic(direct=0, seed=200, peer=440, supernode=300)),
    ]
    found = samples(readings, {"seed": 190, "peer": 400}, [1.5, 1.9])
    assert [one.received_bytes["seed"] for one in found] == [95, 190]
    assert [one.received_bytes["peer"] for one in found] == [0, 400]
    assert [one.received_bytes["origin"] for one in found] == [0, 0]
    assert [one.nodes_done for one in found] == [0, 2]
