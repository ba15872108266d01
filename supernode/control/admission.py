"""How a blob becomes a swarm and a peer its member: the public check, the cut, what is known from before.

Answers to one peer's announcements of one digest leave in their order. Lives on the event loop; waits for threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proto.errors import FrameInvalid, LayercastError, NameInvalid, UpstreamNotAllowed
from proto.ids import Digest, PeerId, short_peer
from proto.oci.routes import check_repository
from proto.oci.upstreams import normalise_upstream
from proto.pieces import PIECE_SIZE_MAX_BYTES, PIECE_SIZE_MIN_BYTES, Bitfield, PieceLayout
from proto.wire.messages import SEED_NODE, Announce, BlobRefused, Source, Vouched, Withdraw
from supernode.control.driver import INLINE_BYTES_MAX
from supernode.control.verification import VOIDS_MAX
from supernode.origin.public_access import Verdict
from supernode.scheduler import contract
from supernode.session.hello import TEXT_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.oci.upstreams import UpstreamTable
    from supernode.control.delivery import PieceDelivery
    from supernode.control.driver import Driver
    from supernode.control.swarm_registry import OpenSwarm, SwarmMember
    from supernode.control.verification import Verification
    from supernode.metrics import Metrics
    from supernode.origin.public_access import PublicAccess
    from supernode.seed import SeedBlob
    from supernode.session.session import PeerSession
    from supernode.state.base import SavedSwarm
    from supernode.state.thread import StateThread

logger = logging.getLogger(__name__)

# Announcements of one digest by one peer that may wait for an answer: one a source is normal.
WAITING_PER_DIGEST_MAX: Final = 64
# Open swarms hold hashes, members and the scheduler's masks: about 50 KiB each with 256 pieces.
SWARMS_MAX: Final = 20_000


@dataclass(slots=True)
class Policy:
    """What a reload may change."""

    upstreams: UpstreamTable
    p2p: bool = True


class Admission:
    """See the module. `recover_until`, by the driver's clock, ends the wait for peers after a restart."""

    def __init__(
        self,
        *,
        driver: Driver,
        verification: Verification,
        public_access: PublicAccess,
        state: StateThread,
        metrics: Metrics,
        policy: Policy,
        recover_until: float,
        delivery: PieceDelivery,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._driver = driver
        self._verification = verification
        self._public_access = public_access
        self._state = state
        self._metrics = metrics
        self._policy = policy
        self._recover_until = recover_until
        self._delivery = delivery
        self._unix_clock = clock
        self._waiting: dict[tuple[PeerSession, Digest], deque[Announce | Withdraw]] = {}
        self._opening: dict[Digest, asyncio.Task[OpenSwarm]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- announcements in their order ------------------------------------------------------------------------------

    def announce(self, session: PeerSession, digest: Digest, announce: Announce) -> None:
        """Answer with SwarmOpened or BlobRefused, at once or later. Raises FrameInvalid."""
        session.announced.setdefault(digest, 0)
        self._queue(session, digest, announce)

    def withdraw(self, session: PeerSession, digest: Digest) -> None:
        """The peer has nothing to do with the blob any more."""
        if digest in session.announced:
            self._queue(session, digest, Withdraw(str(digest)))

    def _queue(self, session: PeerSession, digest: Digest, message: Announce | Withdraw) -> None:
        waiting = self._waiting.get((session, digest))
        if waiting is not None:
            if len(waiting) >= WAITING_PER_DIGEST_MAX:
                raise FrameInvalid(f"{WAITING_PER_DIGEST_MAX} announcements of blob {digest.short} wait already")
            waiting.append(message)
            return
        self._waiting[session, digest] = deque([message])
        task = asyncio.create_task(self._work_off(session, digest))
        self._tasks.add(task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._driver.fail(task.exception())

    async def _work_off(self, session: PeerSession, digest: Digest) -> None:
        waiting = self._waiting[session, digest]
        try:
            while waiting:
                message = waiting.popleft()
                if isinstance(message, Announce):
                    await self._answer(session, digest, message)
                else:
                    self._leave(session, digest)
        except FrameInvalid as error:
            session.channel.end("frame", str(error))
        finally:
            del self._waiting[session, digest]

    async def _answer(self, session: PeerSession, digest: Digest, announce: Announce) -> None:
        verdict, public = await self._verdict(session, digest, announce)
        if verdict.public:
            try:
                swarm = await self._swarm(digest, verdict.size_bytes, announce)
                if self._driver.nodes.session(session.node) is session:
                    self._enter(session, swarm, announce, public)
                self._verification.settle(swarm)
                return
            except FrameInvalid:
                raise
            except LayercastError as error:
                verdict = Verdict(0, "unavailable", str(error))
        if not session.announced.get(digest):
            session.announced.pop(digest, None)
        session.send(BlobRefused(announce.digest, verdict.reason, verdict.message[:TEXT_MAX]))

    async def _verdict(self, session: PeerSession, digest: Digest, announce: Announce) -> tuple[Verdict, list[Source]]:
        """The first word of the announced sources that is public, with all that are; else the last refusal."""
        if not self._policy.p2p:
            return Verdict(0, "limit", "sharing is switched off"), []
        if reason := self._delivery.refusal(session.info):
            return Verdict(0, "limit", reason), []
        refusal = Verdict(0, "unknown", "no source announced")
        found: Verdict | None = None
        public = []
        for announced in announce.sources:
            verdict, source = await self._verdict_of(announced, digest)
            if not verdict.public:
                refusal = verdict
            elif found is None or found.size_bytes == verdict.size_bytes:
                found = found or verdict
                public.append(source)
        return found or refusal, public

    async def _verdict_of(self, announced: Source, digest: Digest) -> tuple[Verdict, Source]:
        try:
            source = Source(normalise_upstream(announced.upstream), check_repository(announced.repository))
        except NameInvalid as error:
            raise FrameInvalid(f"Announce: {error}") from None
        try:
            self._policy.upstreams.lookup(source.upstream)
        except UpstreamNotAllowed:
            message = f"registry {source.upstream!r} is not an allowed upstream of the supernode"
            return Verdict(0, "limit", message), source
        times = self._verification.times_voided(source, digest)
        if times >= VOIDS_MAX:
            message = f"origin {source.upstream} sent content that is not blob {digest.short}, {times} times"
            return Verdict(0, "unavailable", message), source
        return await self._public_access.check(source, digest), source

    # --- opening a swarm -------------------------------------------------------------------------------------------

    async def _swarm(self, digest: Digest, size_bytes: int, announce: Announce) -> OpenSwarm:
        """The open swarm of this size. Raises LayercastError where there is none and cannot be."""
        # Looked up again after every wait: the last member of a swarm just opened may have left meanwhile.
        while (swarm := self._driver.swarms.of(digest)) is None:
            task = self._opening.get(digest)
            if task is None:
                if len(self._driver.swarms) + len(self._opening) >= SWARMS_MAX:
                    raise LayercastError(f"{SWARMS_MAX} blobs are open already")
                task = self._opening[digest] = asyncio.create_task(self._open(digest, size_bytes, announce))
                task.add_done_callback(lambda _: self._opening.pop(digest, None))
            await asyncio.shield(task)
        if swarm.layout.size_bytes != size_bytes:
            raise LayercastError(
                f"blob {digest.short} has {swarm.layout.size_bytes} bytes here, the origin says {size_bytes}"
            )
        return swarm

    async def _open(self, digest: Digest, size_bytes: int, announce: Announce) -> OpenSwarm:
        if size_bytes == 0 and Digest.of(b"", digest.algorithm) != digest:
            raise LayercastError(f"the origin says that blob {digest.short} is empty, which it is not")
        saved = await self._state.load_swarm(digest)
        if saved is not None and saved.size_bytes != size_bytes:
            saved = None
        own = await self._driver.seed.look(digest)
        if own is not None and own.layout.size_bytes != size_bytes:
            own = None
        try:
            layout = own.layout if own is not None else _layout(size_bytes, saved, announce)
        except FrameInvalid as error:
            raise LayercastError(str(error)) from None
        if saved is not None and saved.piece_size_bytes != layout.piece_size_bytes:
            saved = None
        return self._begin(digest, layout, saved, own)

    def _begin(self, digest: Digest, layout: PieceLayout, saved: SavedSwarm | None, own: SeedBlob | None) -> OpenSwarm:
        driver = self._driver
        swarm = driver.swarms.open(digest, layout)
        self._metrics.swarms_open.set(len(driver.swarms))
        if saved is not None:
            swarm.vouched = saved.vouched
            swarm.recorded.update(PeerId(peer) for peer in saved.holders)
            for first, hashes in saved.hashes:
                swarm.hashes.learn(first, hashes)
        if own is not None:
            self._adopt(swarm, own)
        self._state.save_swarm(digest, layout.size_bytes, layout.piece_size_bytes, self._unix_clock())
        if own is not None and own.hashes:
            self._state.add_hashes(digest, list(own.hashes))
        swarm.inline = 0 < layout.size_bytes <= INLINE_BYTES_MAX and driver.fits_inline(swarm, 1)
        if not layout.count:
            swarm.vouched = True
            return swarm
        recovering = saved is not None and driver.clock() < self._recover_until
        if saved is not None and recovering:
            numbers = (driver.nodes.await_return(PeerId(peer)) for peer in saved.holders)
            swarm.recovering = {number for number in numbers if number is not None}
        driver.post(
            contract.SwarmOpened(
                swarm.number,
                layout.size_bytes,
                layout.piece_size_bytes,
                seed_held=swarm.seed_held,
                once_ready=swarm.hashes.known & ~swarm.seed_held if recovering else 0,
                recover_until=self._recover_until,
                recover_peers=tuple(sorted(swarm.recovering)),
                inline=swarm.inline,
            )
        )
        logger.info(
            "swarm_opened digest=%s swarm=%d bytes=%d pieces=%d held=%d hashes=%d awaited=%d",
            digest.short, swarm.number, layout.size_bytes, layout.count, swarm.seed_held.bit_count(),
            swarm.hashes.known.bit_count(), len(swarm.recovering),
        )  # fmt: skip
        self._verification.check_if_complete(swarm)
        return swarm

    def _adopt(self, swarm: OpenSwarm, own: SeedBlob) -> None:
        """Take in what the store holds; its own hashes win over remembered ones that differ."""
        if not all(swarm.hashes.agrees(first, hashes) for first, hashes in own.hashes):
            logger.error("state_contradicts_store digest=%s: remembered hashes dropped", swarm.digest.short)
            swarm.hashes.clear()
            swarm.vouched = False
        for first, hashes in own.hashes:
            swarm.hashes.learn(first, hashes)
        swarm.seed_held = own.held
        swarm.content = own.content
        swarm.vouched = swarm.vouched or own.complete
        swarm.seed_checked = own.complete

    # --- members ---------------------------------------------------------------------------------------------------

    def _enter(self, session: PeerSession, swarm: OpenSwarm, announce: Announce, public: list[Source]) -> None:
        held = _held(swarm, announce)
        if self._driver.nodes.is_quarantined(session.info.peer):
            held = 0
        for source in public:
            if source not in swarm.sources:
                swarm.sources.append(source)
                self._state.add_source(swarm.digest, source)
        member = swarm.join(session.node, wanted=announce.wanted)
        if self._driver.nodes.is_quarantined(session.info.peer):
            swarm.mistrust(session.node)
        session.announced[swarm.digest] = swarm.number
        if announce.hashes:
            self._claim(session, swarm, announce)
        member.held = held & swarm.hashes.known
        member.unproven = held & ~swarm.hashes.known
        if held:
            self.remember_holder(session, swarm)
        else:
            self._forget_holder(session, swarm)
        self._tell_member(session, swarm, member)
        if not swarm.layout.count:
            return
        post = self._driver.post
        post(contract.PeerAnnounced(swarm.number, session.node, member.held, announce.wanted))
        if announce.hashes and swarm.elected == session.node:
            swarm.elected = None
            post(contract.OriginTried(swarm.number, session.node, True))
        if session.node in swarm.recovering:
            swarm.recovering.discard(session.node)
            post(contract.RecoveryPeerReturned(swarm.number, session.node))

    def _tell_member(self, session: PeerSession, swarm: OpenSwarm, member: SwarmMember) -> None:
        """The answer to an announcement, and what a member that wants the blob needs to begin."""
        if member.wanted and swarm.layout.count > 1 and self._delivery.leases_pieces:
            # It can connect before its first lease comes.
            self._driver.notifier.introduce(session, SEED_NODE)
        self._driver.notifier.send_opened(session, swarm, member)
        if member.wanted:
            session.wanting.add(swarm.number)
            if not swarm.inline:
                # The content of a tiny blob comes whole with the first grant, and its hash is told after it: its own
                # digest is what it is checked by. The next ping names the others, if not.
                self._driver.notifier.send_hashes(session, swarm, member)
                self._driver.notifier.send_holders(session, swarm, member)
        else:
            session.wanting.discard(swarm.number)
        if swarm.vouched:
            session.send(Vouched(swarm.number))
        self._delivery.member_entered(session, swarm, member)

    def _claim(self, session: PeerSession, swarm: OpenSwarm, announce: Announce) -> None:
        """A peer completed the blob alone and says what the piece hashes are.

        Taken where they contradict nothing known and no fetch from the origin is about to tell; the digest decides.
        """
        if len(announce.hashes) != 32 * swarm.layout.count or _held(swarm, announce) != swarm.layout.full_mask:
            raise FrameInvalid("Announce: hashes are for a blob that is held whole, 32 bytes a piece")
        peer = session.info.peer
        if self._driver.nodes.is_quarantined(peer) or self._verification.is_doubted(peer, swarm.digest):
            return
        if swarm.vouched or swarm.fetches:
            return
        if not swarm.hashes.agrees(0, announce.hashes):
            logger.warning("hashes_ignored digest=%s peer=%s", swarm.digest.short, short_peer(session.info.peer))
            return
        if swarm.hashes.known != swarm.layout.full_mask:
            swarm.claimant = session.info.peer
            for piece in range(swarm.layout.count):
                self._driver.learn_hash(swarm, piece, announce.hashes[piece * 32 : piece * 32 + 32])

    def _leave(self, session: PeerSession, digest: Digest) -> None:
        number = session.announced.pop(digest, 0)
        swarm = self._driver.swarms.numbered(number)
        if swarm is None:
            return
        member = swarm.leave(session.node)
        session.wanting.discard(number)
        if member is not None:
            self._forget_holder(session, swarm)
            self._driver.post(contract.PeerWithdrew(number, session.node))
        self._verification.settle(swarm)

    def remember_holder(self, session: PeerSession, swarm: OpenSwarm) -> None:
        """The peer holds something: after a restart it is worth waiting for. Written once."""
        if session.info.peer not in swarm.recorded:
            swarm.recorded.add(session.info.peer)
            self._state.add_holder(swarm.digest, session.info.peer)

    def _forget_holder(self, session: PeerSession, swarm: OpenSwarm) -> None:
        if session.info.peer in swarm.recorded:
            swarm.recorded.discard(session.info.peer)
            self._state.remove_holder(swarm.digest, session.info.peer)

    async def close(self) -> None:
        """End what waits."""
        tasks = [*self._tasks, *self._opening.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _layout(size_bytes: int, saved: SavedSwarm | None, announce: Announce) -> PieceLayout:
    """The cut from before, else the peer's if it is a valid one for this size, else our own."""
    if saved is not None:
        return PieceLayout(size_bytes, saved.piece_size_bytes)
    cut = announce.piece_size_bytes
    in_range = PIECE_SIZE_MIN_BYTES <= cut <= PIECE_SIZE_MAX_BYTES and cut & (cut - 1) == 0
    if announce.size_bytes == size_bytes and in_range and announce.held:
        return PieceLayout(size_bytes, cut)
    return PieceLayout.of(size_bytes)


def _held(swarm: OpenSwarm, announce: Announce) -> int:
    """The announced pieces; none of another cut. Raises FrameInvalid."""
    if not announce.held or (announce.size_bytes, announce.piece_size_bytes) != (
        swarm.layout.size_bytes,
        swarm.layout.piece_size_bytes,
    ):
        return 0
    return Bitfield.from_bytes(announce.held, swarm.layout.count).mask
