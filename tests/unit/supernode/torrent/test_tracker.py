"""The supernode as tracker: when it makes a torrent, whom it tells of it, and whom to connect to."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from proto.errors import ConfigError
from proto.ids import Digest
from proto.pieces import KIB
from proto.wire.handshake import TORRENT, Hello
from proto.wire.messages import (
    SEED_NODE,
    BlobRefused,
    Grant,
    InlineBlob,
    NodeKnown,
    PieceHashes,
    SwarmOpened,
    TorrentOpened,
    TorrentPeers,
)
from supernode import config
from supernode.torrent.neighbours import CHOSEN, SEED_NEIGHBOURS
from tests.unit.supernode.harness import BarePeer, running_supernode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from supernode.app import Supernode
    from tests.support.fake_origin import FakeOrigin

FLAGS = ("--transport", "torrent", "--torrent-listen", "127.0.0.1:0")
CONTENT = random.Random(1).randbytes(700 * KIB)


class TorrentPeer(BarePeer):
    """One that has torrents."""

    def hello(self) -> Hello:
        return replace(super().hello(), delivery_port=7000)


@contextlib.asynccontextmanager
async def tracker(folder: Path, origin: FakeOrigin, *flags: str) -> AsyncIterator[Supernode]:
    async with running_supernode(folder, origin, *FLAGS, *flags) as supernode:
        yield supernode


@pytest.mark.asyncio
async def test_peers_are_told_how_pieces_travel_before_they_say_hello(tmp_path: Path, origin: FakeOrigin) -> None:
    async with tracker(tmp_path, origin) as supernode, TorrentPeer.connected(supernode) as peer:
        assert peer.challenge.transport == TORRENT


@pytest.mark.asyncio
async def test_a_torrent_follows_the_hashes_once_the_blob_is_whole(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    async with tracker(tmp_path, origin) as supernode, TorrentPeer.connected(supernode) as peer:
        await peer.announce(origin, digest)
        named = await peer.expect(TorrentPeers)
        assert named.nodes == (SEED_NODE,)
        kinds = [type(message) for message in peer.seen]
        assert kinds.index(SwarmOpened) < kinds.index(PieceHashes) < kinds.index(TorrentOpened)
        assert digest.hex.encode() in peer.of(TorrentOpened)[0].metainfo
        assert sum(len(message.hashes) for message in peer.of(PieceHashes)) >= 3 * 32
        assert peer.of(Grant) == []
        (seed,) = peer.of(NodeKnown)
        assert seed.delivery_address.startswith("127.0.0.1:")
        assert seed.delivery_address != seed.address
    assert len(origin.blob_requests("GET")) == 1


@pytest.mark.asyncio
async def test_who_comes_later_is_told_of_those_before(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    async with (
        tracker(tmp_path, origin) as supernode,
        TorrentPeer.connected(supernode) as first,
        TorrentPeer.connected(supernode) as second,
    ):
        await first.announce(origin, digest)
        await first.expect(TorrentPeers)
        await second.announce(origin, digest)
        named = await second.expect(TorrentPeers)
        assert len(named.nodes) == 2
        known = {message.node: message.delivery_address for message in second.of(NodeKnown)}
        assert known[named.nodes[1]] == "127.0.0.1:7000"
        assert len(first.of(TorrentOpened)) == 1


@pytest.mark.asyncio
async def test_who_gets_nothing_while_nobody_does_is_named_the_seed(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supernode.torrent.tracker._STILL_S", 0.5)
    digest = origin.add(CONTENT)
    async with contextlib.AsyncExitStack() as stack:
        supernode = await stack.enter_async_context(tracker(tmp_path, origin, "--ping-interval", "0.2"))
        for _ in range(SEED_NEIGHBOURS + CHOSEN):
            peer = await stack.enter_async_context(TorrentPeer.connected(supernode))
            await peer.announce(origin, digest)
            await peer.expect(TorrentPeers)
        last = await stack.enter_async_context(TorrentPeer.connected(supernode))
        await last.announce(origin, digest)
        assert SEED_NODE not in (await last.expect(TorrentPeers)).nodes
        assert (await last.expect(TorrentPeers)).nodes == (SEED_NODE,)


@pytest.mark.asyncio
async def test_who_lost_its_neighbours_is_given_others(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    async with contextlib.AsyncExitStack() as stack:
        supernode = await stack.enter_async_context(tracker(tmp_path, origin, "--ping-interval", "0.2"))
        sessions = [contextlib.AsyncExitStack() for _ in range(SEED_NEIGHBOURS + CHOSEN)]
        peers = []
        for session in sessions:
            await stack.enter_async_context(session)
            peer = await session.enter_async_context(TorrentPeer.connected(supernode))
            await peer.announce(origin, digest)
            await peer.expect(TorrentPeers)
            peers.append(peer)
        # The seed has enough neighbours by now: whoever comes last has other peers alone.
        last = await stack.enter_async_context(TorrentPeer.connected(supernode))
        await last.announce(origin, digest)
        named = (await last.expect(TorrentPeers)).nodes
        assert len(named) == CHOSEN
        assert SEED_NODE not in named
        for session in sessions[: len(sessions) - 1]:
            await session.aclose()
        again = (await last.expect(TorrentPeers)).nodes
        assert again
        assert not set(again) & set(named)


@pytest.mark.asyncio
async def test_a_holder_is_told_of_the_torrent_when_somebody_wants_the_blob(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    async with (
        tracker(tmp_path, origin) as supernode,
        TorrentPeer.connected(supernode) as holder,
        TorrentPeer.connected(supernode) as other,
    ):
        await holder.announce(origin, digest, wanted=False)
        await holder.expect(SwarmOpened)
        assert origin.blob_requests("GET") == []
        await other.announce(origin, digest)
        await other.expect(TorrentPeers)
        await holder.expect(TorrentOpened)
        assert holder.of(TorrentPeers) == []


@pytest.mark.asyncio
async def test_a_tiny_blob_travels_in_a_message_as_ever(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(b"tiny")
    async with tracker(tmp_path, origin) as supernode, TorrentPeer.connected(supernode) as peer:
        await peer.announce(origin, digest)
        assert (await peer.expect(InlineBlob)).content == b"tiny"
        assert peer.of(TorrentOpened) == []


@pytest.mark.asyncio
async def test_a_peer_without_torrents_is_sent_to_the_origin(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    async with tracker(tmp_path, origin) as supernode, BarePeer.connected(supernode) as peer:
        await peer.announce(origin, digest)
        refused = await peer.expect(BlobRefused)
        assert refused.reason == "limit"
        assert "BitTorrent" in refused.message
    assert origin.asked == []


@pytest.mark.asyncio
async def test_a_private_blob_gets_no_torrent(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    origin.challenge, origin.token = 'Basic realm="members"', "a password"
    async with tracker(tmp_path, origin) as supernode, TorrentPeer.connected(supernode) as peer:
        await peer.announce(origin, digest)
        assert (await peer.expect(BlobRefused)).reason == "private"
        assert peer.of(TorrentOpened) == []


@pytest.mark.asyncio
async def test_content_that_is_not_the_blob_gets_no_torrent(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = Digest.of(CONTENT)
    origin.blobs[str(digest)] = CONTENT[:-1] + b"x"
    async with tracker(tmp_path, origin) as supernode, TorrentPeer.connected(supernode) as peer:
        await peer.announce(origin, digest)
        while not any(type(message).__name__ == "Voided" for message in peer.seen):
            await peer.expect(object)
        assert peer.of(TorrentOpened) == []


@pytest.mark.asyncio
async def test_the_torrent_is_the_same_after_a_restart(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    made = []
    for _ in range(2):
        async with tracker(tmp_path, origin) as supernode, TorrentPeer.connected(supernode) as peer:
            await peer.announce(origin, digest)
            made.append((await peer.expect(TorrentOpened)).metainfo)
    assert made[0] == made[1]
    assert len(origin.blob_requests("GET")) == 1


def test_a_transport_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="--transport: 'pigeon': expected scheduled or torrent"):
        config.load(["--transport", "pigeon"], {})
