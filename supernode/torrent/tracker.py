"""Pieces by BitTorrent: the supernode makes each blob's torrent, seeds it first, and tells peers of it and each other.

A tracker over the sessions that are there anyway. A torrent is made when the blob is whole in our store and its digest
has passed: before that its tree of hashes is not known. Lives on the event loop; hashing is done in a thread. What is
public, and who is a member, is decided elsewhere, before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from peer.torrent.metainfo import BLOCK_BYTES, fits_torrent, make_metainfo, piece_root, secret_of
from proto.errors import ConfigError, LocalError
from proto.wire.messages import SEED_NODE, TorrentOpened, TorrentPeers
from supernode.torrent.neighbours import SEED_NEIGHBOURS, Neighbours

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.store.base import BlobStore
    from peer.torrent.swarms import TorrentSwarms
    from proto.ids import Digest
    from proto.pieces import PieceLayout
    from proto.wire.tickets import Identity
    from supernode.config import SupernodeConfig
    from supernode.control.driver import Driver
    from supernode.control.swarm_registry import Member, Swarm
    from supernode.session.session import Link

logger = logging.getLogger(__name__)

# Over all blobs; each has a few neighbours. Idle connections give way.
SEED_CONNECTIONS_MAX: Final = 1000
# Pieces that the others get meanwhile. Counted, not timed: a piece takes a second or a minute.
_BEHIND: Final = 4
# Nobody got anything of the swarm, and the seed sent nothing; well before a client goes to the origin (30 s).
_STILL_S: Final = 8.0
# A core each while they hash.
_MAKERS: Final = 2


@dataclass(slots=True)
class _Tracked:
    """What was made and told of one swarm."""

    metainfo: bytes = b""
    making: bool = False
    told: set[int] = field(default_factory=set)
    # Whom to name to whom decides nothing that must be the same twice.
    neighbours: Neighbours = field(default_factory=lambda: Neighbours(random.Random()))
    # How many neighbours of the seed were given a share of the pieces to fetch first.
    shares_given: int = 0
    # Pieces that a node held when it last got one or was helped, all members together then, and when that was.
    gained: dict[int, tuple[int, int, float]] = field(default_factory=dict)

    def is_behind(self, node: int, swarm: Swarm, now: float) -> bool:
        """Since it got a piece, or since this was so last, the others got some each, or nobody gets anything."""
        held, everybody = swarm.members[node].held.bit_count(), swarm.pieces_held
        before = self.gained.get(node)
        behind = False
        if before is not None and before[0] == held:
            ahead = everybody - before[1] >= _BEHIND * len(swarm.members)
            behind = ahead or now - max(before[2], swarm.moved_s) >= _STILL_S
        if before is None or before[0] != held or behind:
            self.gained[node] = (held, everybody, now)
        return behind


class Tracker:
    """Made on the loop. close() in a thread."""

    def __init__(self, driver: Driver, swarms: TorrentSwarms, store: BlobStore, identity: Identity) -> None:
        self._driver = driver
        self._seeding = swarms
        self._store = store
        self._identity = identity
        self._loop = asyncio.get_running_loop()
        self._tracked: dict[int, _Tracked] = {}
        self._makers = ThreadPoolExecutor(_MAKERS, thread_name_prefix="metainfo")
        store.on_evicted(self._evicted)

    def close(self) -> None:
        """Join the threads. The swarms are closed by who made them."""
        self._makers.shutdown(wait=True, cancel_futures=True)

    def look(self, swarm: Swarm) -> None:
        """Make the torrent, if the blob is whole and somebody wants it."""
        tracked = self._of(swarm)
        if tracked.making or tracked.metainfo or not swarm.wanted_by or swarm.inline:
            return
        if not (swarm.seed_checked and swarm.seed_complete and fits_torrent(swarm.layout)):
            return
        tracked.making = True
        self._makers.submit(self._make, swarm.number, swarm.digest, swarm.layout)

    def entered(self, link: Link, swarm: Swarm, member: Member) -> None:
        """A peer announced the blob."""
        tracked = self._of(swarm)
        if not tracked.metainfo:
            self.look(swarm)
        elif member.wanted:
            self._tell(link, swarm, tracked)

    def moved(self, digest: Digest) -> None:
        """From any thread: payload of it went over the wire."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._moved, digest)

    def _moved(self, digest: Digest) -> None:
        swarm = self._driver.swarms.of(digest)
        if swarm is not None:
            swarm.moved_s = self._driver.clock()

    def _of(self, swarm: Swarm) -> _Tracked:
        found = self._tracked.get(swarm.number)
        if found is None:
            for number in [each for each in self._tracked if self._driver.swarms.numbered(each) is None]:
                del self._tracked[number]
            found = self._tracked[swarm.number] = _Tracked()
        return found

    def _evicted(self, digest: Digest) -> None:
        """From any thread. The swarm goes on without us."""
        self._seeding.leave(digest)

    # --- making ------------------------------------------------------------------------------------------------

    def _make(self, number: int, digest: Digest, layout: PieceLayout) -> None:
        """In a maker's thread."""
        metainfo = b""
        started_s = time.monotonic()
        try:
            metainfo = self._hash(digest, layout)
            if metainfo and self._seeding.offer(digest, layout, metainfo):
                self._seeding.join(digest, whole=False)
                logger.info(
                    "torrent_made digest=%s bytes=%d elapsed_s=%.3f",
                    digest.short, len(metainfo), time.monotonic() - started_s,
                )  # fmt: skip
        except (LocalError, OSError) as error:
            logger.error("torrent_not_made digest=%s error=%s", digest.short, error)
        except Exception:
            logger.exception("torrent_not_made digest=%s", digest.short)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._made, number, metainfo)

    def _hash(self, digest: Digest, layout: PieceLayout) -> bytes:
        handle = self._store.get(digest)
        if handle is None:
            return b""
        try:
            buffer = memoryview(bytearray(BLOCK_BYTES))
            roots = [piece_root(handle.fileno(), layout, piece, buffer) for piece in range(layout.count)]
        finally:
            handle.close()
        return make_metainfo(digest, layout, roots, secret_of(self._identity, digest))

    def _made(self, number: int, metainfo: bytes) -> None:
        swarm = self._driver.swarms.numbered(number)
        if swarm is None:
            return
        tracked = self._of(swarm)
        tracked.making = False
        tracked.metainfo = metainfo
        if metainfo:
            # The first pieces are to come from now on.
            swarm.moved_s = self._driver.clock()
        for node, member in list(swarm.members.items()):
            link = self._driver.nodes.link(node)
            if metainfo and link is not None and member.wanted:
                self._tell(link, swarm, tracked)

    # --- telling -----------------------------------------------------------------------------------------------

    def _tell(self, link: Link, swarm: Swarm, tracked: _Tracked) -> None:
        """All that a peer needs to begin, once a session; whoever is told again is given what neighbours it lacks."""
        self._open(link, swarm, tracked)
        serving = self._keep(link, swarm, tracked)
        count = tracked.neighbours.lacks(link.node)
        self._name(link, swarm, tracked, tracked.neighbours.choose(link.node, serving, count))

    def ticked(self, link: Link) -> None:
        """Every few seconds: who lost neighbours is given others, and so is who gets nothing while others do."""
        for number in link.wanting:
            swarm, tracked = self._driver.swarms.numbered(number), self._tracked.get(number)
            member = swarm.members.get(link.node) if swarm is not None else None
            if swarm is None or member is None or tracked is None or not tracked.metainfo:
                continue
            if member.held == swarm.layout.full_mask:
                continue
            self._tell(link, swarm, tracked)
            if tracked.is_behind(link.node, swarm, self._driver.clock()):
                # The seed first: it has everything.
                serving = self._keep(link, swarm, tracked)
                others = serving if SEED_NODE in tracked.neighbours.of(link.node) else [SEED_NODE]
                self._name(link, swarm, tracked, tracked.neighbours.choose(link.node, others, 1))

    def _keep(self, link: Link, swarm: Swarm, tracked: _Tracked) -> list[int]:
        """Forget who left; those who can be named."""
        serving = [SEED_NODE, *(node for node in swarm.members if self._serves(node))]
        full = swarm.layout.full_mask
        complete = [SEED_NODE, *(node for node, member in swarm.members.items() if member.held == full)]
        tracked.neighbours.keep([link.node, *serving], complete)
        return serving

    def _name(self, link: Link, swarm: Swarm, tracked: _Tracked, named: list[int]) -> None:
        """Those that it is to meet are told of the torrent, too."""
        if not named:
            return
        for node in named:
            other = self._driver.nodes.link(node)
            if other is not None:
                self._open(other, swarm, tracked)
            self._driver.telling.introduce(link, node)
        share = shares = 0
        if SEED_NODE in named:
            share, shares = tracked.shares_given % SEED_NEIGHBOURS, SEED_NEIGHBOURS
            tracked.shares_given += 1
        link.send(TorrentPeers(swarm.number, tuple(named), share, shares))

    def _serves(self, node: int) -> bool:
        link = self._driver.nodes.link(node)
        return (
            link is not None
            and bool(link.info.torrent_address)
            and not self._driver.nodes.is_quarantined(link.info.peer)
        )

    def _open(self, link: Link, swarm: Swarm, tracked: _Tracked) -> None:
        """Once a session: the hashes that each piece must match, then the torrent."""
        if link.node in tracked.told:
            return
        tracked.told.add(link.node)
        self._driver.telling.send_hashes(link, swarm, swarm.members[link.node])
        link.send(TorrentOpened(swarm.number, tracked.metainfo))


def begin_seeding(store: BlobStore, config: SupernodeConfig, on_moved: Callable[[Digest], None]) -> TorrentSwarms:
    """The supernode's own torrents: a seed that fetches nothing. `on_moved` as Tracker.moved(). Raises ConfigError."""
    try:
        # Loaded here alone: a cluster that uses leases needs no libtorrent.
        from peer.torrent.swarms import TorrentSwarms
    except ImportError as error:
        raise ConfigError(f"--transport torrent: {error}; install the package libtorrent here") from None
    try:
        return TorrentSwarms(
            store,
            config.torrent_listen,
            slots=config.upload_slots,
            connections_max=SEED_CONNECTIONS_MAX,
            upload_rate_bytes_s=config.upload_rate_bytes_s,
            download_rate_bytes_s=0,
            on_piece=lambda digest, piece, size_bytes: None,
            on_trouble=lambda digest, message: None,
            on_moved=lambda digest, received_bytes, sent_bytes: on_moved(digest),
        )
    except ConfigError as error:
        raise ConfigError(f"--torrent-listen {config.torrent_listen}: {error}") from None
