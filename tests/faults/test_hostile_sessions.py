"""Members gone bad and strangers say anything at all: honest pulls end well, no session is lost, memory is bounded.

LAYERCAST_HOSTILE_MESSAGES sets how many messages they say in all. How much slower pulls are meanwhile is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import memory_peak_bytes
from benchmarks.cluster.services import Cluster
from proto.wire.handshake import Refused
from proto.wire.tickets import Identity
from supernode.api.sessions import CONNECTIONS_PER_MEMBER_MAX
from tests.support.hostile import Attack
from tests.support.pullers import pull
from tests.unit.supernode.harness import At, BarePeer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.cluster.counting_proxy import CountingProxy
    from benchmarks.cluster.services import Peer

pytestmark = [pytest.mark.client("docker-registry"), pytest.mark.asyncio]

MIB = 1 << 20
SIZE_BYTES = 8 * MIB
MESSAGES = int(os.environ.get("LAYERCAST_HOSTILE_MESSAGES", "4000"))
PULLS_MIN = 3
MEMORY_MAX_BYTES = 200 * MIB


class Scene:
    """A cluster with two honest nodes that pull new blobs, one after the other."""

    def __init__(self, cluster: Cluster, push: Callable[[int], str]) -> None:
        self.cluster = cluster
        self.victims: list[Peer] = cluster.add_peers([None, None])
        self._push = push

    async def pull_one(self) -> float:
        """On both at once; how long the slower one took, s."""
        digest = await asyncio.to_thread(self._push, SIZE_BYTES)
        answers = await asyncio.gather(*(asyncio.to_thread(pull, victim.proxy, digest) for victim in self.victims))
        assert [(answer.complete, answer.sha256) for answer in answers] == [(True, digest)] * len(self.victims)
        return max(answer.elapsed_s for answer in answers)

    async def attacked_by(self, attack: Attack) -> None:
        alone = [await self.pull_one() for _ in range(PULLS_MIN)]
        attacking = asyncio.create_task(asyncio.to_thread(attack.carry_out))
        beside: list[float] = []
        while not attacking.done() or len(beside) < PULLS_MIN:
            beside.append(await self.pull_one())
        took = await attacking
        usual = statistics.median(alone)
        memory_bytes = memory_peak_bytes(self.cluster.supernode.process.pid)
        print(
            f"{MESSAGES} messages in {took} sessions or connections. {len(beside)} pulls beside them took "
            f"{statistics.median(beside) / usual:.2f} times as long as alone ({usual:.3f} s), the slowest "
            f"{max(beside) / usual:.2f}; {memory_bytes >> 20} MiB"
        )
        assert took >= attack.bad_ones
        self._nobody_else_was_hurt(memory_bytes)

    def _nobody_else_was_hurt(self, memory_bytes: int) -> None:
        supernode = self.cluster.supernode
        assert memory_bytes <= MEMORY_MAX_BYTES
        assert supernode.healthz()[0] == 200
        assert not any("supernode_failed" in line for line in supernode.process.log())
        for victim in self.victims:
            assert not any("supernode_lost" in line for line in victim.process.log())


@pytest.mark.parametrize(
    ("flags", "strangers"),
    [((), False), (("--open",), False), ((), True)],
    ids=["members by certificate", "members of an open cluster", "strangers"],
)
async def test_whatever_they_say_honest_pulls_end_well_and_memory_stays_bounded(
    origin: CountingProxy, tmp_path: Path, push: Callable[[int], str], flags: tuple[str, ...], strangers: bool
) -> None:
    digests = [push(SIZE_BYTES) for _ in range(4)]
    with Cluster(tmp_path, origin.address, supernode_flags=flags) as cluster:
        supernode = cluster.supernode
        token = "" if flags else str(supernode.join_file())
        attack = Attack(supernode.ready["api"], token, origin.address, digests, SIZE_BYTES, strangers, MESSAGES)
        await Scene(cluster, push).attacked_by(attack)


async def test_one_member_holds_few_connections(cluster: Cluster) -> None:
    supernode, identity = cluster.supernode, Identity.generate()
    at = At(supernode.ready["api"], supernode.join_file())
    async with contextlib.AsyncExitStack() as stack:
        # Those that say no Hello end after a while, on a slow machine before there are too many.
        for _ in range(10 * CONNECTIONS_PER_MEMBER_MAX):
            peer = BarePeer(identity)
            try:
                await stack.enter_async_context(peer.link(at, greet=False))
            except AssertionError:
                break
        assert [refused.code for refused in peer.of(Refused)] == ["limit"]
        async with BarePeer.connected(at):
            pass
