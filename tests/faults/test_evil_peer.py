"""A peer that proves its identity, claims to hold a blob whole, and serves wrong bytes under its name."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.services import Cluster
from proto.ids import Digest, short_peer
from proto.pieces import PieceLayout, mask_to_bytes
from proto.wire.messages import Announce, Source, SwarmOpened
from tests.support.counts import assert_received, assert_received_from_the_swarm
from tests.support.evil_uploads import EvilUploads
from tests.support.pullers import REPOSITORY, pull
from tests.unit.supernode.harness import At, BarePeer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.cluster.counting_proxy import CountingProxy
    from benchmarks.cluster.services import Peer

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20
SIZE_BYTES = 16 * MIB
LAYOUT = PieceLayout.of(SIZE_BYTES)


# So that no two of them bring a blob before the third was asked.
SLOWLY = ["--upload-rate", "64mbit"]


@pytest.fixture
def cluster(origin: CountingProxy, tmp_path: Path) -> Iterator[Cluster]:
    """Its honest nodes send slowly."""
    with Cluster(tmp_path, origin.address, supernode_flags=SLOWLY, peer_flags=SLOWLY) as running:
        yield running


def claim(upstream: str, digest: str, layout: PieceLayout = LAYOUT) -> Announce:
    """It holds every piece and wants none."""
    held = mask_to_bytes(layout.full_mask, layout.count)
    sources = (Source(upstream, REPOSITORY),)
    return Announce(digest, sources, False, layout.size_bytes, layout.piece_size_bytes, held)


def stored_sha256(peer: Peer, digest: str) -> str:
    named = Digest.parse(digest)
    path = peer.data_dir / "store" / "blobs" / named.algorithm / named.hex[:2] / named.hex
    # A client has the last piece as soon as the digest has passed; the file gets its name when the disk has it.
    wait_until(path.exists, "the blob under its final name")
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.mark.asyncio
async def test_corrupt_pieces_are_found_out_and_their_sender_is_asked_no_more(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest, next_digest = push(SIZE_BYTES), push(SIZE_BYTES)
    supernode, evil = cluster.supernode, BarePeer()
    victims = cluster.add_peers([None, None])
    cluster.wait_for_sessions(2)
    with EvilUploads(LAYOUT) as uploads:
        evil.upload_address = uploads.address
        async with evil.link(At(supernode.ready["api"], supernode.join_file())):
            # the blob's hashes must be known: a claim to pieces that nobody can check counts for nothing
            assert (await asyncio.to_thread(pull, victims[0].proxy, digest)).sha256 == digest
            await evil.send(claim(origin.address, digest))
            await evil.expect(SwarmOpened)

            answer = await asyncio.to_thread(pull, victims[1].proxy, digest)
            assert answer.complete
            assert answer.sha256 == digest
            assert uploads.served, "the evil peer was not asked: the test tested nothing"
            # In threads, as the pulls: the evil peer goes on answering pings, without which it would be gone in 6 s.
            quarantined = f"peer_quarantined peer={short_peer(evil.identity.peer)}"
            await asyncio.to_thread(supernode.process.wait_for_line, quarantined)
            assert await asyncio.to_thread(stored_sha256, victims[1], digest) == digest
            await asyncio.to_thread(assert_received_from_the_swarm, victims[1], SIZE_BYTES)

            served = list(uploads.served)
            await evil.send(claim(origin.address, next_digest))
            # By now the supernode knows what links carry, and may cut otherwise.
            opened = await evil.expect(SwarmOpened)
            await evil.send(claim(origin.address, next_digest, PieceLayout(SIZE_BYTES, opened.piece_size_bytes)))
            for victim in victims:
                answer = await asyncio.to_thread(pull, victim.proxy, next_digest)
                assert answer.sha256 == next_digest
            assert uploads.served == served
    assert [origin.ledger().gets(each) for each in (digest, next_digest)] == [1, 1]
    assert_received(cluster, origin=0, passthrough=0)
