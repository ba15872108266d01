"""Pieces by BitTorrent: the supernode makes each blob's torrent, seeds it first, and tells peers of it and each other.

A tracker over the sessions that are there anyway. A torrent is made when the blob is whole in our store and its digest
has passed: before that its tree of hashes is not known. Lives on the event loop; hashing is done in threads.
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
from peer.torrent.session import SessionLimits
from peer.torrent.swarms import SwarmEvents, TorrentSwarms
from proto.errors import ConfigError, LocalError
from proto.wire.messages import SEED_NODE, TorrentOpened, TorrentPeers
from supernode.control.delivery import PieceDelivery
from supernode.torrent.neighbours import Neighbours

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.store.base import BlobStore
    from proto.ids import Digest
    from proto.pieces import PieceLayout
    from proto.wire.tickets import Identity
    from supernode.config import SupernodeConfig
    from supernode.control.node_registry import NodeRegistry
    from supernode.control.notifier import Notifier
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.peer_session import PeerInfo, PeerSession
    from supernode.control.swarm_member import SwarmMember
    from supernode.control.swarm_registry import SwarmRegistry

logger = logging.getLogger(__name__)

# Over all blobs; each has a few neighbours. Idle connections give way.
SEED_CONNECTIONS_MAX: Final = 1000
# Pieces that the others get meanwhile. Counted, not timed: a piece takes a second or a minute.
_BEHIND_PIECES: Final = 4
# Nobody got anything of the swarm, and the seed sent nothing; well before a client goes to the origin (30 s).
_STILL_S: Final = 8.0
# A core each while they hash.
_MAKERS: Final = 2


@dataclass(slots=True)
class TrackedSwarm:
    """What was made and told of one swarm."""

    metainfo: bytes = b""
    making: bool = False
    # Nodes that know of the torrent.
    informed: set[int] = field(default_factory=set)
    # Whom to name to whom decides nothing that must be the same twice.
    neighbours: Neighbours = field(default_factory=lambda: Neighbours(random.Random()))
    # Pieces that a node held when it last got one or was helped, all members together then, and when that was.
    gained: dict[int, tuple[int, int, float]] = field(default_factory=dict)

    def is_behind(self, node: int, swarm: OpenSwarm, now: float) -> bool:
        """Since it got a piece, or since this was so last, the others got some each, or nobody gets anything."""
        held, everybody = swarm.members[node].held.bit_count(), swarm.pieces_held
        before = self.gained.get(node)
        behind = False
        if before is not None and before[0] == held:
            ahead = everybody - before[1] >= _BEHIND_PIECES * len(swarm.members)
            behind = ahead or now - max(before[2], swarm.moved_s) >= _STILL_S
        if before is None or before[0] != held or behind:
            self.gained[node] = (held, everybody, now)
        return behind


class TorrentTracker(PieceDelivery, SwarmEvents):
    """Listens for torrents at once. Raises ConfigError."""

    leases_pieces = False

    def __init__(self, store: BlobStore, config: SupernodeConfig, identity: Identity) -> None:
        self._store = store
        self._identity = identity
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tracked: dict[int, TrackedSwarm] = {}
        limits = SessionLimits(config.upload_slots, SEED_CONNECTIONS_MAX, config.upload_rate.now())
        try:
            self._seeding = TorrentSwarms(store, config.torrent_listen, limits, self)
        except ConfigError as error:
            raise ConfigError(f"--torrent-listen {config.torrent_listen}: {error}") from None
        self.port = self._seeding.port
        self._makers = ThreadPoolExecutor(_MAKERS, thread_name_prefix="metainfo")
        # The swarm goes on without us.
        store.on_evicted(self._seeding.blob_left)
        # Until it is whole again.
        store.on_rotten(lambda digest, _: self._seeding.blob_left(digest))

    @property
    def sent_bytes(self) -> int:
        return self._seeding.sent_bytes

    def begin(self, swarms: SwarmRegistry, nodes: NodeRegistry, notifier: Notifier, clock: Callable[[], float]) -> None:
        self._swarms, self._nodes, self._notifier, self._clock = swarms, nodes, notifier, clock
        self._loop = asyncio.get_running_loop()

    def refusal(self, info: PeerInfo) -> str:
        return "" if info.delivery_address else "pieces travel by BitTorrent in this cluster, which this node cannot"

    def set_upload_rate(self, bytes_s: int) -> None:
        self._seeding.set_rates(bytes_s, 0)

    def close(self) -> None:
        self._makers.shutdown(wait=True, cancel_futures=True)
        self._seeding.close()

    def blob_verified(self, swarm: OpenSwarm) -> None:
        """See PieceDelivery: make the torrent, if somebody wants the blob."""
        tracked = self._of(swarm)
        if tracked.metainfo and swarm.seed_checked:
            self._seeding.offer(swarm.digest, swarm.layout, tracked.metainfo)
        if tracked.making or tracked.metainfo or not swarm.wanted_by or swarm.inline:
            return
        if swarm.seed_checked and swarm.seed_complete and fits_torrent(swarm.layout):
            tracked.making = True
            self._makers.submit(self._make, swarm.number, swarm.digest, swarm.layout)

    def member_entered(self, session: PeerSession, swarm: OpenSwarm, member: SwarmMember) -> None:
        tracked = self._of(swarm)
        if not tracked.metainfo:
            self.blob_verified(swarm)
        elif member.wanted:
            self._tell(session, swarm, tracked)

    def payload_moved(self, digest: Digest, received_bytes: int, sent_bytes: int) -> None:
        """From any thread: the seed sent of it, and fetches nothing."""
        self._on_loop(lambda: self._note_move(digest))

    def _note_move(self, digest: Digest) -> None:
        swarm = self._swarms.of(digest)
        if swarm is not None:
            swarm.got_on(self._clock())

    def _on_loop(self, call: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(call)

    def _of(self, swarm: OpenSwarm) -> TrackedSwarm:
        found = self._tracked.get(swarm.number)
        if found is None:
            for number in [each for each in self._tracked if self._swarms.numbered(each) is None]:
                del self._tracked[number]
            found = self._tracked[swarm.number] = TrackedSwarm()
        return found

    # --- making ------------------------------------------------------------------------------------------------

    def _make(self, number: int, digest: Digest, layout: PieceLayout) -> None:
        """In a maker's thread."""
        metainfo = b""
        started_s = time.monotonic()
        try:
            metainfo = self._hash(digest, layout)
            if metainfo and self._seeding.offer(digest, layout, metainfo):
                logger.info(
                    "torrent_made digest=%s bytes=%d elapsed_s=%.3f",
                    digest.short, len(metainfo), time.monotonic() - started_s,
                )  # fmt: skip
        except (LocalError, OSError) as error:
            logger.error("torrent_not_made digest=%s error=%s", digest.short, error)
        except Exception:
            logger.exception("torrent_not_made digest=%s", digest.short)
        self._on_loop(lambda: self._made(number, metainfo))

    def _hash(self, digest: Digest, layout: PieceLayout) -> bytes:
        handle = self._store.get(digest)
        if handle is None:
            return b""
        try:
            if handle.check_pieces(handle.unchecked(handle.check_mark(for_peer=True)), "peer"):
                return b""  # it is whole again later
            buffer = memoryview(bytearray(BLOCK_BYTES))
            roots = [piece_root(handle.fileno(), layout, piece, buffer) for piece in range(layout.count)]
        finally:
            handle.close()
        return make_metainfo(digest, layout, roots, secret_of(self._identity, digest))

    def _made(self, number: int, metainfo: bytes) -> None:
        swarm = self._swarms.numbered(number)
        if swarm is None:
            return
        tracked = self._of(swarm)
        tracked.making, tracked.metainfo = False, metainfo
        if not metainfo:
            return
        # The first pieces are to come from now on.
        swarm.got_on(self._clock())
        for node, member in list(swarm.members.items()):
            session = self._nodes.session(node)
            if session is not None and member.wanted:
                self._tell(session, swarm, tracked)

    # --- what nodes are sent -----------------------------------------------------------------------------------

    def refresh(self, session: PeerSession) -> None:
        """See PieceDelivery: who lost neighbours is given others, and so is who gets nothing while others do."""
        for number in session.wanting:
            swarm, tracked = self._swarms.numbered(number), self._tracked.get(number)
            member = swarm.members.get(session.node) if swarm is not None else None
            if swarm is None or member is None or tracked is None or not tracked.metainfo:
                continue
            if member.held == swarm.layout.full_mask:
                continue
            serving = self._tell(session, swarm, tracked)
            if tracked.is_behind(session.node, swarm, self._clock()):
                # The seed first: it has everything.
                others = serving if SEED_NODE in tracked.neighbours.of(session.node) else [SEED_NODE]
                self._name(session, swarm, tracked, tracked.neighbours.choose(session.node, others, 1))

    def _tell(self, session: PeerSession, swarm: OpenSwarm, tracked: TrackedSwarm) -> list[int]:
        """The torrent, once a session, and what neighbours the peer lacks. Returns all that could be named."""
        self._open(session, swarm, tracked)
        serving = [SEED_NODE, *(node for node in swarm.members if self._serves(node))]
        full = swarm.layout.full_mask
        complete = [SEED_NODE, *(node for node, member in swarm.members.items() if member.held == full)]
        tracked.neighbours.keep([session.node, *serving], complete)
        lacking = tracked.neighbours.lacks(session.node)
        self._name(session, swarm, tracked, tracked.neighbours.choose(session.node, serving, lacking))
        return serving

    def _name(self, session: PeerSession, swarm: OpenSwarm, tracked: TrackedSwarm, named: list[int]) -> None:
        """Those that it is to meet are told of the torrent, too."""
        if not named:
            return
        for node in named:
            other = self._nodes.session(node)
            if other is not None:
                self._open(other, swarm, tracked)
            self._notifier.introduce(session, node)
        session.send(TorrentPeers(swarm.number, tuple(named)))

    def _serves(self, node: int) -> bool:
        session = self._nodes.session(node)
        if session is None or self._nodes.is_quarantined(session.info.peer):
            return False
        return bool(session.info.delivery_address)

    def _open(self, session: PeerSession, swarm: OpenSwarm, tracked: TrackedSwarm) -> None:
        """Once a session: the hashes that each piece must match, then the torrent."""
        if session.node not in tracked.informed:
            tracked.informed.add(session.node)
            self._notifier.send_hashes(session, swarm, swarm.members[session.node])
            session.send(TorrentOpened(swarm.number, tracked.metainfo))
