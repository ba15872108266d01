"""Who is told that the swarm moves: members that want the blob and hold no lease of it, and only while it does move."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from peer.downloader.limits import Limits as PeerLimits
from peer.store.disk import DiskStore
from proto.pieces import KIB, PieceLayout
from proto.wire.messages import (
    NodeKnown,
    OriginStatus,
    PieceHashes,
    Stored,
    SwarmOpened,
    TorrentOpened,
    TorrentPeers,
)
from supernode.control.notifier import MOVED_LATELY_S
from supernode.control.peer_session import PeerLease
from supernode.session.session import Limits
from tests.support.torrents import RecordedEvents, torrent_swarms
from tests.unit.supernode.control.bench import Bench
from tests.unit.supernode.harness import running_supernode
from tests.unit.supernode.torrent.test_tracker import FLAGS, TorrentPeer

if TYPE_CHECKING:
    from pathlib import Path

    from supernode.app import Supernode
    from supernode.control.open_swarm import OpenSwarm
    from tests.support.fake_origin import FakeOrigin

CONTENT = random.Random(1).randbytes(700 * KIB)
# What is repeated with each ping is repeated that much sooner.
OFTEN = Limits(ping_interval_s=0.1)


class Waiting(Bench):
    """One node waits in one swarm that moved a moment ago."""

    def __init__(self) -> None:
        super().__init__()
        self.session = self.join()
        self.swarm = self.moving(b"blob", wanted=True)

    def moving(self, content: bytes, *, wanted: bool) -> OpenSwarm:
        swarm = self.open(content)
        swarm.got_on(self.now_s)
        self.enter(self.session, swarm, wanted=wanted)
        return swarm

    def statuses(self) -> list[OriginStatus]:
        """What the next refresh says."""
        self.heard(self.session).heard.clear()
        self.handler.refresh(self.session)
        return self.heard(self.session).of(OriginStatus)


def test_who_waits_is_told_as_long_as_the_swarm_moved_lately() -> None:
    bench = Waiting()
    sharing = [OriginStatus(bench.swarm.number, "sharing", False)]
    assert bench.statuses() == sharing
    bench.now_s += MOVED_LATELY_S
    assert bench.statuses() == sharing
    bench.now_s += 0.1
    assert bench.statuses() == []
    bench.swarm.moved_s = bench.now_s
    assert bench.statuses() == sharing


def test_who_does_not_want_the_blob_is_told_nothing() -> None:
    bench = Waiting()
    bench.moving(b"other", wanted=False)
    assert [status.swarm for status in bench.statuses()] == [bench.swarm.number]


def test_who_has_a_lease_of_it_needs_no_word() -> None:
    bench = Waiting()
    bench.session.leases[5] = PeerLease(1, bench.swarm.number, 0, 2)
    assert bench.statuses() == []
    bench.session.leases[5] = PeerLease(1, bench.swarm.number + 1, 0, 2)
    assert [status.state for status in bench.statuses()] == ["sharing"]


def test_who_gets_nothing_because_its_transfers_fail_is_not_held_back() -> None:
    bench = Waiting()
    bench.swarm.members[bench.session.node].failing = True
    assert bench.statuses() == []


@pytest.mark.parametrize("state", ["fetching", "unreachable", "open"])
def test_what_the_origin_does_goes_first(state: str) -> None:
    bench = Waiting()
    bench.swarm.origin_state = state
    assert [status.state for status in bench.statuses()] == [state]


def test_a_swarm_in_which_nothing_ever_moved_is_not_waited_for() -> None:
    bench = Waiting()
    bench.swarm.moved_s = bench.open(b"new").moved_s
    assert bench.statuses() == []


def test_lately_is_shorter_than_a_peer_waits_without_a_word() -> None:
    assert PeerLimits().stall_s > MOVED_LATELY_S


# --- what counts as moving ------------------------------------------------------------------------------------------


class WaitingPeer(TorrentPeer):
    """One that wants the blob and gets nothing of it."""

    def forget(self) -> None:
        """What was said so far was not said."""
        self.seen.clear()
        while not self._queue.empty():
            self._queue.get_nowait()

    async def heard_sharing(self) -> None:
        while (await self.expect(OriginStatus)).state != "sharing":
            pass


async def let_it_rest(supernode: Supernode, peer: WaitingPeer) -> None:
    """As if nothing had moved for long; what was said before is forgotten."""
    for swarm in supernode._control.swarms:
        swarm.moved_s = float("-inf")
    await peer.heard()
    peer.forget()


@pytest.mark.asyncio
async def test_pieces_that_members_store_are_news_once(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    async with (
        running_supernode(tmp_path, origin, *FLAGS, limits=OFTEN) as supernode,
        WaitingPeer.connected(supernode) as waits,
        TorrentPeer.connected(supernode) as stores,
    ):
        await waits.announce(origin, digest)
        # The torrent was made, which is the last news of its beginning.
        await waits.expect(TorrentOpened)
        await stores.announce(origin, digest)
        swarm = (await stores.expect(SwarmOpened)).swarm
        await let_it_rest(supernode, waits)
        await stores.send(Stored(0, swarm, 0, 1))
        await waits.heard_sharing()
        await stores.heard()
        await let_it_rest(supernode, waits)
        await stores.send(Stored(0, swarm, 0, 1))
        await stores.heard()
        # Each frame that leaves brings what is repeated, the next but one surely.
        pings = waits.pings
        await asyncio.to_thread(wait_until, lambda: waits.pings >= pings + 2)
        assert waits.of(OriginStatus) == []


@pytest.mark.asyncio
async def test_payload_that_the_seed_sends_is_news(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = origin.add(CONTENT)
    store = DiskStore(tmp_path / "p", size_limit_bytes=1 << 30, free_floor_bytes=0)
    swarms = torrent_swarms(store, RecordedEvents(), download_rate_bytes_s=32 * KIB)
    async with (
        running_supernode(tmp_path / "s", origin, *FLAGS, limits=OFTEN) as supernode,
        WaitingPeer.connected(supernode) as waits,
    ):
        await waits.announce(origin, digest)
        opened = await waits.expect(SwarmOpened)
        layout = PieceLayout(opened.size_bytes, opened.piece_size_bytes)
        await waits.expect(TorrentPeers)
        (torrent,) = waits.of(TorrentOpened)
        (seed,) = waits.of(NodeKnown)
        handle = store.open(digest, layout)
        for told in waits.of(PieceHashes):
            handle.trust_hashes(told.first, told.hashes)
        await let_it_rest(supernode, waits)
        assert swarms.offer(digest, layout, torrent.metainfo)
        swarms.blob_opened(digest)
        swarms.connect(digest, [seed.delivery_address])
        await waits.heard_sharing()
        handle.close()
    await asyncio.to_thread(swarms.close)
    store.close()
