"""Members gone bad that say anything at all: the supernode lives, honest pulls end well, memory stays bounded.

LAYERCAST_HOSTILE_MESSAGES sets how many messages they say in all.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest

from benchmarks.cluster.services import Cluster
from proto.ids import Digest
from proto.pieces import PieceLayout, mask_to_bytes
from proto.wire import messages
from proto.wire.messages import FetchReason, Message, Source
from proto.wire.tickets import Identity
from tests.support.pullers import REPOSITORY, pull
from tests.unit.supernode.harness import At, BarePeer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.cluster.counting_proxy import CountingProxy

pytestmark = [pytest.mark.client("docker-registry"), pytest.mark.asyncio]

MIB = 1 << 20
SIZE_BYTES = 4 * MIB
LAYOUT = PieceLayout.of(SIZE_BYTES)
MEMBERS = 8
MESSAGES = int(os.environ.get("LAYERCAST_HOSTILE_MESSAGES", "4000"))
IN_A_FRAME = 50
# Of one member: it may be refused for as long as it likes to try.
SESSIONS_MAX = 100
MEMORY_MAX_BYTES = 200 * MIB


@pytest.fixture
def cluster(origin: CountingProxy, tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, origin.address, supernode_flags=["--open"]) as running:
        yield running


def something(rng: random.Random, upstream: str, digests: list[str]) -> Message:
    """A message that a peer may send, with fields that may make sense."""
    digest = rng.choice([*digests, str(Digest.of(rng.randbytes(4)))])
    number, piece = rng.randrange(6), rng.randrange(-1, LAYOUT.count + 1)
    kind = rng.randrange(8)
    if kind < 3:
        source = Source(rng.choice([upstream, upstream, "registry.invalid"]), rng.choice([REPOSITORY, "no/such"]))
        held = mask_to_bytes(rng.getrandbits(LAYOUT.count), LAYOUT.count)
        whole = rng.random() < 0.2
        return messages.Announce(
            digest,
            (source,),
            rng.random() < 0.5,
            rng.choice([SIZE_BYTES, SIZE_BYTES, 0, 1]),
            LAYOUT.piece_size_bytes,
            mask_to_bytes(LAYOUT.full_mask, LAYOUT.count) if whole else held,
            rng.randbytes(32 * LAYOUT.count) if whole else b"",
        )
    if kind == 3:
        return messages.Withdraw(digest)
    if kind == 4:
        return messages.Stored(rng.randrange(50), number, piece, rng.randrange(1000))
    if kind == 5:
        return messages.Failed(rng.randrange(50), rng.choice([FetchReason.CORRUPT, FetchReason.BUSY, "nonsense"]))
    if kind == 6:
        return messages.ReaderMoved(number, piece)
    if rng.random() < 0.5:
        return messages.BlobChecked(number, False)
    return messages.OriginTried(number, rng.choice(["", "denied"]))


async def misbehave(rng: random.Random, supernode: At, upstream: str, digests: list[str], count: int) -> int:
    """Say so many things, in as many sessions as that takes; how many sessions."""
    identity, said, sessions = Identity.generate(), 0, 0
    while said < count and sessions < SESSIONS_MAX:
        sessions += 1
        try:
            async with BarePeer.connected(supernode, identity) as peer:
                while said < count:
                    said += IN_A_FRAME
                    await peer.send(*(something(rng, upstream, digests) for _ in range(IN_A_FRAME)))
                    await asyncio.sleep(0)
        except (aiohttp.ClientError, AssertionError, ConnectionError, TimeoutError):
            # Ended for a frame that breaks the protocol, or not let in while the one before is not over.
            continue
    assert said >= count, f"said {said} of {count} things in {sessions} sessions"
    return sessions


def resident_bytes(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_whatever_members_say_honest_pulls_end_well_and_memory_stays_bounded(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digests = [push(SIZE_BYTES) for _ in range(4)]
    victims = cluster.add_peers([None, None])
    supernode = At(cluster.supernode.ready["api"])
    bad = [
        asyncio.create_task(misbehave(random.Random(seed), supernode, origin.address, digests, MESSAGES // MEMBERS))
        for seed in range(MEMBERS)
    ]
    for digest in digests:
        answers = await asyncio.gather(*(asyncio.to_thread(pull, victim.proxy, digest) for victim in victims))
        assert [(answer.complete, answer.sha256) for answer in answers] == [(True, digest)] * len(victims)
    sessions = await asyncio.gather(*bad)
    assert sum(sessions) >= MEMBERS
    resident = resident_bytes(cluster.supernode.process.pid)
    print(f"{MESSAGES} messages in {sum(sessions)} sessions, {resident >> 20} MiB resident")
    assert resident <= MEMORY_MAX_BYTES
    assert cluster.supernode.healthz()[0] == 200
    assert not any("supernode_failed" in line for line in cluster.supernode.process.log())
