"""How a blob goes through the supernode: asked of the origin once, vouched for, given to every peer."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.store.base import SignedHashes
from proto.config.rates import Rate
from proto.ids import Digest
from proto.pieces import MIB, PieceLayout
from proto.wire.messages import (
    SEED_NODE,
    BlobRefused,
    Failed,
    FetchReason,
    Grant,
    Holders,
    InlineBlob,
    NodeKnown,
    PieceHashes,
    Stored,
    SwarmOpened,
    Voided,
    Vouched,
)
from supernode.control import admission
from tests.support.fake_origin import Fault, fake_origin
from tests.unit.supernode.harness import BarePeer, real_peer, running_supernode

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_origin import FakeOrigin

pytestmark = pytest.mark.asyncio


def content_of(size_bytes: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def bytes_asked(origin: FakeOrigin, size_bytes: int) -> int:
    """Bytes that GETs asked for, by their Range."""
    total = 0
    for asked in origin.blob_requests():
        first, _, last = (asked.range or "bytes=0-").removeprefix("bytes=").partition("-")
        total += (int(last) + 1 if last else size_bytes) - int(first)
    return total


async def test_three_peers_get_the_blob_and_the_origin_sends_it_once(tmp_path: Path, origin: FakeOrigin) -> None:
    size_bytes = 5 * MIB + 17
    digest = origin.add(content_of(size_bytes))
    async with running_supernode(tmp_path / "s", origin) as supernode, AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(real_peer(supernode, tmp_path / f"p{n}")) for n in range(3)]
        for peer in peers:
            await peer.announce(origin, digest)
        for peer in peers:
            await peer.completed(digest)
            if not peer.of(Vouched):
                await peer.expect(Vouched)
        assert [peer.failed for peer in peers] == [[], [], []]
    assert len(origin.blob_requests("HEAD")) == 1
    assert bytes_asked(origin, size_bytes) == size_bytes


async def test_hashes_travel_with_pieces_and_not_in_messages(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(content_of(8 * MIB))
    # Nothing is known of the blob when they join.
    origin.faults = [Fault(), Fault(stall_after_bytes=100_000)]
    async with running_supernode(tmp_path / "s", origin) as supernode, AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(real_peer(supernode, tmp_path / f"p{n}")) for n in range(3)]
        for peer in peers:
            await peer.announce(origin, digest)
            await peer.expect(SwarmOpened)
        origin.released.set()
        for peer in peers:
            await peer.completed(digest)
        for peer in peers:
            # A message has the hashes of a run of pieces, too.
            runs = [SignedHashes(each.first, each.hashes, each.signature) for each in peer.of(PieceHashes)]
            assert peer.told.union(*(range(run.first, run.first + run.count) for run in runs)) == set(range(32))
        # These peers complete what was cancelled, too: that they then know the hash is not known here.
        assert sum(len(peer.of(PieceHashes)) for peer in peers) <= 32
        # From the seed, and from each other.
        assert {source == SEED_NODE for peer in peers for source in peer.sources} == {True, False}


async def test_a_hash_that_the_source_could_not_tell_is_sent(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(content_of(2 * MIB))
    origin.faults = [Fault(), Fault(stall_after_bytes=MIB)]
    async with running_supernode(tmp_path / "s", origin) as supernode:
        async with BarePeer.connected(supernode) as peer:
            await peer.announce(origin, digest)
            grant = await peer.expect(Grant)
            await peer.send(Failed(grant.lease, FetchReason.UNHASHED))
            hashes = await peer.expect(PieceHashes)
            assert (hashes.swarm, hashes.first, len(hashes.hashes)) == (grant.swarm, grant.piece, 32)
            # And the piece is granted anew.
            while (await peer.expect(Grant)).piece != grant.piece:
                pass
        origin.released.set()


async def test_pieces_are_granted_while_the_rest_still_arrives(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(content_of(2 * MIB))
    origin.faults = [Fault(), Fault(stall_after_bytes=MIB)]
    async with running_supernode(tmp_path / "s", origin) as supernode:
        async with BarePeer.connected(supernode) as peer:
            await peer.announce(origin, digest)
            assert (await peer.expect(SwarmOpened)).size_bytes == 2 * MIB
            grant = await peer.expect(Grant)
            assert grant.piece < 4
            # The seed tells the hash with the piece.
            assert peer.of(PieceHashes) == []
            assert not peer.of(Vouched)
        origin.released.set()


async def test_a_tiny_blob_travels_in_the_message(tmp_path: Path, origin: FakeOrigin) -> None:
    content = content_of(500)
    digest = origin.add(content)
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        await peer.announce(origin, digest)
        assert (await peer.expect(InlineBlob)).content == content


async def test_the_hash_of_a_blob_that_came_in_a_message_is_told_after_it(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(content_of(500))
    async with (
        running_supernode(tmp_path / "s", origin, "--ping-interval", "100ms") as supernode,
        BarePeer.connected(supernode) as peer,
    ):
        await peer.announce(origin, digest)
        inline = await peer.expect(InlineBlob)
        assert peer.of(PieceHashes) == []
        await peer.send(Stored(inline.lease, inline.swarm, 0, 1))
        hashes = await peer.expect(PieceHashes)
        assert (hashes.swarm, hashes.first, len(hashes.hashes)) == (inline.swarm, 0, 32)


async def test_a_tiny_blob_over_a_thin_uplink_is_an_ordinary_swarm(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(content_of(60_000))
    async with (
        running_supernode(tmp_path / "s", origin, "--upload-rate", "1Mbit") as supernode,
        BarePeer.connected(supernode) as peer,
    ):
        await peer.announce(origin, digest)
        assert (await peer.expect(Grant)).piece == 0


async def test_an_empty_blob_is_a_blob(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(b"")
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        await peer.announce(origin, digest)
        opened = await peer.expect(SwarmOpened)
        assert opened.size_bytes == 0
        assert (await peer.expect(Vouched)).swarm == opened.swarm
    assert origin.blob_requests() == []


async def test_a_peer_hears_of_the_others(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(content_of(300_000))
    async with (
        running_supernode(tmp_path / "s", origin, "--ping-interval", "100ms") as supernode,
        BarePeer.connected(supernode) as first,
        BarePeer.connected(supernode) as second,
    ):
        await first.announce(origin, digest)
        await first.expect(SwarmOpened)
        await second.announce(origin, digest)
        assert len((await second.expect(Holders)).nodes) == 1
        while not (await first.expect(Holders)).nodes:
            pass


async def test_who_gets_a_tiny_blob_in_a_message_is_not_told_of_others(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(content_of(500))
    async with (
        running_supernode(tmp_path / "s", origin, "--ping-interval", "10s") as supernode,
        BarePeer.connected(supernode) as first,
        BarePeer.connected(supernode) as second,
    ):
        for peer in (first, second):
            await peer.announce(origin, digest)
            await peer.expect(InlineBlob)
            assert (peer.of(NodeKnown), peer.of(Holders)) == ([], [])


async def test_who_waits_for_a_tiny_blob_is_told_of_others_with_the_ping(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(content_of(500))
    origin.faults = [Fault(), Fault(stall_after_bytes=100)]
    async with running_supernode(tmp_path / "s", origin, "--ping-interval", "100ms") as supernode:
        async with BarePeer.connected(supernode) as first, BarePeer.connected(supernode) as second:
            for peer in (first, second):
                await peer.announce(origin, digest)
            while not (await second.expect(Holders)).nodes:
                pass
        origin.released.set()


async def test_a_blob_that_wants_a_credential_is_refused_as_private(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(content_of(1000))
    origin.always = {"HEAD": Fault(status=403), "GET": Fault(status=403)}
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        await peer.announce(origin, digest)
        assert (await peer.expect(BlobRefused)).reason == "private"


async def test_a_blob_that_the_origin_does_not_know_is_refused(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        await peer.announce(origin, Digest.of(b"nowhere"))
        assert (await peer.expect(BlobRefused)).reason == "unknown"


async def test_retry_after_of_the_check_holds_for_everybody(tmp_path: Path, origin: FakeOrigin) -> None:
    digest, other = origin.add(content_of(1000)), origin.add(content_of(1000, seed=2))
    origin.faults = [Fault(status=429, headers={"Retry-After": "600"})]
    async with (
        running_supernode(tmp_path / "s", origin) as supernode,
        BarePeer.connected(supernode) as first,
        BarePeer.connected(supernode) as second,
    ):
        for peer in (first, second):
            await peer.announce(origin, digest)
            refused = await peer.expect(BlobRefused)
            assert refused.reason == "rate_limited"
            assert refused.retry_after_s == pytest.approx(600, abs=60)
        await second.announce(origin, other)
        await second.expect(SwarmOpened)
    assert sum(str(digest) in asked.target for asked in origin.asked) == 1


async def test_a_blob_that_a_get_limits_is_begun_anew_with_the_origins_word(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(content_of(1000))
    origin.always = {"GET": Fault(status=429, headers={"Retry-After": "600"})}
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        await peer.announce(origin, digest)
        await peer.expect(SwarmOpened)
        await peer.expect(Voided)
        await peer.announce(origin, digest)
        assert (await peer.expect(BlobRefused)).retry_after_s == pytest.approx(600, abs=60)
    assert len(origin.blob_requests("GET")) == 1


async def test_a_fetch_that_nobody_wants_any_more_ends(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supernode.seed.UNWANTED_S", 0.1)
    digest = origin.add(content_of(1000))
    origin.always = {"GET": Fault(delay_s=WAIT_S)}
    async with running_supernode(tmp_path / "s", origin) as supernode:
        async with BarePeer.connected(supernode) as peer:
            await peer.announce(origin, digest)
            await peer.expect(SwarmOpened)
            await asyncio.to_thread(wait_until, lambda: bool(origin.blob_requests("GET")), "the request")
        await asyncio.to_thread(wait_until, lambda: not supernode._seed._fetches, "the end of the fetch")


async def test_an_anonymous_token_is_fetched_where_one_is_asked_for(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(content_of(1000))
    origin.token = "for-anyone"
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        await peer.announce(origin, digest)
        await peer.expect(SwarmOpened)
        await peer.expect(Vouched)


async def test_an_origin_that_is_not_allowed_is_never_asked(tmp_path: Path, origin: FakeOrigin) -> None:
    with fake_origin() as stranger:
        digest = stranger.add(content_of(1000))
        async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
            await peer.announce(stranger, digest)
            assert (await peer.expect(BlobRefused)).reason == "limit"
        assert stranger.asked == []


async def test_wrong_content_is_voided_and_after_two_tries_refused(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = Digest.of(content_of(300_000))
    origin.blobs[str(digest)] = content_of(300_000, seed=2)
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        for _ in range(2):
            await peer.announce(origin, digest)
            await peer.expect(SwarmOpened)
            await peer.expect(Voided)
        await peer.announce(origin, digest)
        assert (await peer.expect(BlobRefused)).reason == "unavailable"
        assert peer.of(Vouched) == []


async def test_wrong_content_once_is_forgiven(tmp_path: Path, origin: FakeOrigin) -> None:
    content = content_of(300_000)
    digest = Digest.of(content)
    origin.blobs[str(digest)] = content_of(300_000, seed=2)
    async with running_supernode(tmp_path / "s", origin) as supernode, real_peer(supernode, tmp_path / "p") as peer:
        await peer.announce(origin, digest)
        await peer.expect(Voided)
        for handle, _ in peer.swarms.values():
            handle.void()
        origin.blobs[str(digest)] = content
        await peer.announce(origin, digest)
        await peer.expect(Vouched)
        await peer.completed(digest)


async def test_a_body_cut_short_is_resumed_at_the_byte_reached(tmp_path: Path, origin: FakeOrigin) -> None:
    size_bytes = 2 * MIB
    digest = origin.add(content_of(size_bytes))
    origin.faults = [Fault(), Fault(cut_after_bytes=700_000)]
    async with running_supernode(tmp_path / "s", origin) as supernode, real_peer(supernode, tmp_path / "p") as peer:
        await peer.announce(origin, digest)
        await peer.completed(digest)
    again = origin.blob_requests()[1]
    assert again.range is not None
    assert again.range.startswith("bytes=700000-")


async def test_answers_to_announcements_of_one_digest_keep_their_order(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(content_of(1000))
    with fake_origin() as stranger:
        async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
            await peer.announce(origin, digest)
            await peer.announce(stranger, digest)
            await peer.announce(origin, digest)
            await peer.expect(SwarmOpened)
            await peer.expect(BlobRefused)
            await peer.expect(SwarmOpened)


async def test_the_switch_refuses_and_a_reload_turns_it_on(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(content_of(1000))
    async with (
        running_supernode(tmp_path / "s", origin, "--p2p", "false") as supernode,
        BarePeer.connected(supernode) as peer,
    ):
        await peer.announce(origin, digest)
        assert (await peer.expect(BlobRefused)).reason == "limit"
        await supernode.reload(dataclasses.replace(supernode.config, p2p=True))
        await peer.announce(origin, digest)
        await peer.expect(SwarmOpened)


async def test_a_preheats_rate_reaches_the_scheduler_and_a_reload_lifts_it(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path / "s", origin, "--preheat-rate", "00:00-12:00=1MiB,12:00-00:00=1MiB") as one:
        scheduler = one._machine.inspect()
        await asyncio.to_thread(wait_until, lambda: scheduler.preheat_rate == 1 << 20, "the rate")
        await one.reload(dataclasses.replace(one.config, preheat_rate=Rate()))
        await asyncio.to_thread(wait_until, lambda: scheduler.preheat_rate == 0, "no rate")


async def test_a_pull_under_way_ends_well_when_sharing_is_switched_off(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(content_of(1_000_000))
    origin.bytes_per_s = 1_000_000
    async with (
        running_supernode(tmp_path / "s", origin) as supernode,
        real_peer(supernode, tmp_path / "p") as peer,
        BarePeer.connected(supernode) as late,
    ):
        await peer.announce(origin, digest)
        await peer.expect(SwarmOpened)
        await supernode.reload(dataclasses.replace(supernode.config, p2p=False))
        await late.announce(origin, digest)
        assert (await late.expect(BlobRefused)).reason == "limit"
        await peer.completed(digest)
    assert len(origin.blob_requests()) == 1


async def test_twenty_announcements_at_once_make_one_check_and_one_get(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(content_of(500))
    async with running_supernode(tmp_path / "s", origin) as supernode, AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(BarePeer.connected(supernode)) for _ in range(20)]
        await asyncio.gather(*(peer.announce(origin, digest) for peer in peers))
        await asyncio.gather(*(peer.expect(InlineBlob) for peer in peers))
    assert (len(origin.blob_requests("HEAD")), len(origin.blob_requests("GET"))) == (1, 1)


async def test_who_wants_a_blob_of_several_pieces_is_told_at_once_where_the_seed_is(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    large, small = origin.add(content_of(2 * MIB)), origin.add(content_of(500, seed=2))
    async with running_supernode(tmp_path, origin) as supernode:
        async with BarePeer.connected(supernode) as peer:
            await peer.announce(origin, large)
            await peer.expect(SwarmOpened)
            assert [type(message) for message in peer.seen if isinstance(message, (NodeKnown, SwarmOpened))] == [
                NodeKnown,
                SwarmOpened,
            ]
            assert peer.of(NodeKnown)[0].node == SEED_NODE
        async with BarePeer.connected(supernode) as peer:
            await peer.announce(origin, small)
            await peer.expect(SwarmOpened)
            assert peer.of(NodeKnown) == []


async def test_a_blob_that_is_still_used_in_another_cut_is_fetched_when_that_is_over(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    content = content_of(2 * MIB)
    digest = origin.add(content)
    async with running_supernode(tmp_path / "s", origin) as supernode, BarePeer.connected(supernode) as peer:
        used = supernode._store.open(digest, PieceLayout.of(len(content) + 5))
        await peer.announce(origin, digest)
        await peer.expect(SwarmOpened)
        used.close()
        await peer.expect(Grant)


async def test_who_wants_many_blobs_keeps_nobody_elses_waiting(tmp_path: Path, origin: FakeOrigin) -> None:
    many = [origin.add(content_of(MIB, seed)) for seed in range(60)]
    own = origin.add(content_of(MIB, 100))
    # The first 16 are asked for at once, all others wait until everybody has said what it wants.
    origin.always["GET"] = Fault(delay_s=WAIT_S)
    async with (
        running_supernode(tmp_path / "s", origin) as supernode,
        BarePeer.connected(supernode) as greedy,
        BarePeer.connected(supernode) as modest,
    ):
        for digest in many:
            await greedy.announce(origin, digest)
        for _ in many:
            await greedy.expect(SwarmOpened)
        # One that nobody else wants, and one for which the other has lined up at the very end.
        for digest in (own, many[-1]):
            await modest.announce(origin, digest)
            await modest.expect(SwarmOpened)
        origin.released.set()
        await asyncio.to_thread(wait_until, lambda: asked_at(origin, own, many[-1]) is not None)
    assert (asked_at(origin, own, many[-1]) or 0) < 50


def asked_at(origin: FakeOrigin, *digests: Digest) -> int | None:
    """How many GETs began before all of these had; None while one has not."""
    targets = [asked.target.rpartition("/")[2] for asked in origin.blob_requests("GET")]
    found = [targets.index(str(digest)) for digest in digests if str(digest) in targets]
    return max(found) if len(found) == len(digests) else None


async def test_who_named_another_origin_waits_while_the_whole_blob_will_be_here_in_time(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may be silent for a moment.
    monkeypatch.setattr(admission, "SILENT_S", 5.0)
    content = content_of(MIB)
    digest = origin.add(content)
    # Longer than anybody waits for one of which nothing is known.
    origin.bytes_per_s = len(content) / 7.0
    with fake_origin() as other:
        other.add(content)
        flags = ("--insecure-upstream", other.authority)
        async with (
            running_supernode(tmp_path / "s", origin, *flags) as supernode,
            BarePeer.connected(supernode) as first,
            BarePeer.connected(supernode) as second,
        ):
            await first.announce(origin, digest)
            await first.expect(SwarmOpened)
            await second.announce(other, digest)
            await second.expect(SwarmOpened)
        assert not second.of(BlobRefused)
        assert not other.blob_requests("GET")
