"""Announcements of blobs in their order: whether the blob is public and what is known of it, then the admission.

Answers to one peer's announcements of one digest leave in the order in which they came. Lives on the event loop; the
checks at origins, the store and the saved state are waited for.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proto.errors import FrameInvalid, LayercastError, NameInvalid, UpstreamNotAllowed
from proto.ids import Digest
from proto.oci.routes import check_repository
from proto.oci.upstreams import normalise_upstream
from proto.pieces import piece_size_for
from proto.wire.messages import Announce, BlobRefused, Source, Withdraw
from supernode.control.admission import Terms
from supernode.control.open_swarm import SeedBlob
from supernode.control.peer_session import TEXT_MAX
from supernode.control.verification import SILENT_S, VOIDS_MAX
from supernode.origin.public_access import Verdict
from supernode.shares import is_over_share

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from proto.ids import PeerId
    from proto.oci.upstreams import UpstreamTable
    from supernode.control.control import Control
    from supernode.control.delivery import PieceDelivery
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.peer_session import PeerSession
    from supernode.origin.private_access import PrivateAccess
    from supernode.origin.public_access import PublicAccess
    from supernode.state.base import SavedSwarm

    # Whose announcements, and of which upstream.
    _Line = tuple[PeerSession, str]
    # A place where a blob is public, and its word.
    _Place = tuple[Source, Verdict]

# Announcements of one digest by one peer that may wait for an answer: one a source is normal.
WAITING_PER_DIGEST_MAX: Final = 64
# Blobs of one peer at one upstream that are asked about at a time, and bytes of its announcements that wait behind
# them. A node that comes back with thousands of blobs has its answers a little later; one that makes up digests holds
# up itself alone, and one whose registry is slow its blobs of that registry.
ANSWERING_PER_UPSTREAM_MAX: Final = 64
WAITING_BYTES_PER_PEER_MAX: Final = 16 * 1024 * 1024
# Open swarms hold hashes, members and the scheduler's masks: about 50 KiB each with 256 pieces.
SWARMS_MAX: Final = 20_000
# From half of them on, one address may have opened its share of all and no more, but this many in any case.
SWARMS_PER_ADDRESS_MIN: Final = 500
_MESSAGE_BYTES: Final = 500
# A node that names another origin than that whose bytes come waits so long for the digest: most layers take less. It
# waits on while all of it will be here in time, or nothing came of its own: less than its client does
# (peer.downloader.limits).
OTHER_ORIGIN_WAIT_S: Final = 5.0
OTHER_ORIGIN_WAIT_MAX_S: Final = 15.0
# What an origin says to who has no credential, of a blob that it may give to others.
_MAY_BE_PRIVATE: Final = ("private", "unknown", "rate_limited")
_LOOK_S: Final = 0.1


class ForeignBytes(LayercastError):
    """What is here of a blob came from another origin than was named, and that gives it to nobody now."""


@dataclass(slots=True)
class Policy:
    """What a reload may change."""

    upstreams: UpstreamTable
    p2p: bool = True


@dataclass(eq=False, slots=True)
class Announcements:
    """Implements supernode.control.message_handler.AnnouncementQueue. `_on_fatal` hears of our own bugs.

    `_load_swarm` gives what was saved of a blob, `_look` what the store has of it.
    """

    _control: Control
    _public_access: PublicAccess
    _policy: Policy
    _delivery: PieceDelivery
    _load_swarm: Callable[[Digest], Awaitable[SavedSwarm | None]]
    _look: Callable[[Digest], Awaitable[SeedBlob | None]]
    _on_fatal: Callable[[BaseException | None], None]
    # None where no private blobs are shared.
    _private_access: PrivateAccess | None = None
    _forget_bytes: Callable[[Digest], None] = lambda digest: None
    _waiting: dict[tuple[PeerSession, Digest], deque[Announce | Withdraw]] = field(default_factory=dict)
    _opening: dict[Digest, asyncio.Task[OpenSwarm]] = field(default_factory=dict)
    # Of each peer and upstream: blobs that are being asked about, and those that wait for that. Of each peer: the bytes
    # of what waits.
    _answering: Counter[_Line] = field(default_factory=Counter)
    _lined_up: dict[_Line, deque[Digest]] = field(default_factory=dict)
    _waiting_bytes: Counter[PeerSession] = field(default_factory=Counter)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    # --- in their order ------------------------------------------------------------------------------------------

    def announce(self, session: PeerSession, digest: Digest, announce: Announce) -> None:
        """Answer with SwarmOpened or BlobRefused, at once or later. Raises FrameInvalid."""
        session.announced.setdefault(digest, 0)
        self._queue(session, digest, announce)

    def withdraw(self, session: PeerSession, digest: Digest) -> None:
        """The peer has nothing to do with the blob any more."""
        if digest in session.announced:
            self._queue(session, digest, Withdraw(str(digest)))

    def _queue(self, session: PeerSession, digest: Digest, message: Announce | Withdraw) -> None:
        self._waiting_bytes[session] += _size_bytes(message)
        if self._waiting_bytes[session] > WAITING_BYTES_PER_PEER_MAX:
            raise FrameInvalid(f"{WAITING_BYTES_PER_PEER_MAX} bytes of announcements wait for an answer already")
        waiting = self._waiting.get((session, digest))
        if waiting is not None:
            if len(waiting) >= WAITING_PER_DIGEST_MAX:
                raise FrameInvalid(f"{WAITING_PER_DIGEST_MAX} announcements of blob {digest.short} wait already")
            waiting.append(message)
            return
        self._waiting[session, digest] = deque([message])
        line = session, message.sources[0].upstream if isinstance(message, Announce) and message.sources else ""
        if self._answering[line] < ANSWERING_PER_UPSTREAM_MAX:
            self._begin(line, digest)
        else:
            self._lined_up.setdefault(line, deque()).append(digest)

    def _begin(self, line: _Line, digest: Digest) -> None:
        self._answering[line] += 1
        task = asyncio.create_task(self._work_off(line, digest))
        self._tasks.add(task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._on_fatal(task.exception())

    async def _work_off(self, line: _Line, digest: Digest) -> None:
        session, _ = line
        waiting = self._waiting[session, digest]
        try:
            while waiting and self._control.nodes.session(session.node) is session:
                message = waiting.popleft()
                self._waiting_bytes[session] -= _size_bytes(message)
                if isinstance(message, Announce):
                    await self._answer(session, digest, message)
                else:
                    self._control.participation.leave(session, digest)
        except FrameInvalid as error:
            session.channel.end("frame", str(error))
        finally:
            self._forget(session, digest)
            self._next(line)

    def _forget(self, session: PeerSession, digest: Digest) -> None:
        self._waiting_bytes[session] -= sum(map(_size_bytes, self._waiting.pop((session, digest))))
        if not self._waiting_bytes[session]:
            del self._waiting_bytes[session]

    def _next(self, line: _Line) -> None:
        """One answer of this peer's is done: the next of its blobs, or nothing is left of it here."""
        session, _ = line
        self._answering[line] -= 1
        lined_up = self._lined_up.get(line)
        while lined_up and self._control.nodes.session(session.node) is not session:
            self._forget(session, lined_up.popleft())
        if lined_up:
            self._begin(line, lined_up.popleft())
        elif not self._answering[line]:
            self._lined_up.pop(line, None)
            del self._answering[line]

    async def _answer(self, session: PeerSession, digest: Digest, announce: Announce) -> None:
        verdict, public = await self._verdict(session, digest, announce)
        if verdict.shared:
            try:
                swarm, elsewhere = await self._serving(session, digest, verdict, announce, public)
                try:
                    if self._control.nodes.session(session.node) is session:
                        terms = Terms(verdict.private, verdict.age_s)
                        if verdict.private and elsewhere is not None:
                            terms = Terms(True, elsewhere[1].age_s, (elsewhere[0],))
                        self._control.admission.enter(session, swarm, announce, public, terms)
                finally:
                    # Also where it breaks the protocol: nobody may be in it.
                    self._control.participation.settle(swarm)
                if announce.wanted and swarm.vouched and not swarm.seed_complete:
                    await asyncio.sleep(SILENT_S)
                    self._control.verification.ask_elsewhere(swarm, {source.upstream for source in public})
                return
            except FrameInvalid:
                raise
            except LayercastError as error:
                verdict = Verdict(0, "foreign" if isinstance(error, ForeignBytes) else "unavailable", str(error))
                self._close_if_idle(digest)
        if not session.announced.get(digest):
            session.announced.pop(digest, None)
        message = verdict.message[:TEXT_MAX]
        session.send(BlobRefused(announce.digest, verdict.reason, message, verdict.retry_after_s))

    def _close_if_idle(self, digest: Digest) -> None:
        """Nobody was let in: what was opened for one origin's word, its size say, must not stand in others' way."""
        swarm = self._control.swarms.of(digest)
        if swarm is not None:
            self._control.participation.settle(swarm)

    # --- whether it may be shared --------------------------------------------------------------------------------

    async def _verdict(self, session: PeerSession, digest: Digest, announce: Announce) -> tuple[Verdict, list[Source]]:
        """The first word of the announced sources that is public, with all that are; else the last refusal."""
        if not self._policy.p2p:
            return Verdict(0, "limit", "sharing is switched off"), []
        if reason := self._delivery.refusal(session.info):
            return Verdict(0, "limit", reason), []
        refusal = Verdict(0, "unknown", "no source announced")
        found: Verdict | None = None
        public = []
        asker = session.info.peer
        asked = (self._verdict_of(each, digest, announce, asker) for each in announce.sources)
        for verdict, source in await asyncio.gather(*asked):
            if not verdict.shared:
                refusal = verdict
            elif found is None or (found.size_bytes, found.private) == (verdict.size_bytes, verdict.private):
                found = found or verdict
                public.append(source)
        return found or refusal, public

    async def _verdict_of(
        self, announced: Source, digest: Digest, announce: Announce, asker: PeerId
    ) -> tuple[Verdict, Source]:
        try:
            repository = check_repository(announced.repository)
            source = Source(normalise_upstream(announced.upstream), repository, announced.manifest)
        except NameInvalid as error:
            raise FrameInvalid(f"Announce: {error}") from None
        try:
            self._policy.upstreams.lookup(source.upstream)
        except UpstreamNotAllowed:
            message = f"registry {source.upstream!r} is not an allowed upstream of the supernode"
            return Verdict(0, "limit", message), source
        times = self._control.verification.times_voided(source, digest)
        if times >= VOIDS_MAX:
            message = f"origin {source.upstream} sent content that is not blob {digest.short}, {times} times"
            return Verdict(0, "unavailable", message), source
        if not (announce.asks or announce.wanted or announce.allowed):
            told = await self._public_access.recall(source, digest)
            if told is not None:
                return told, source
        private = self._private_access if announce.allowed and self._delivery.leases_pieces else None
        if private is None or not self._public_access.denies(source):
            verdict = await self._public_access.check(source, digest, asker)
            if private is None or verdict.reason not in _MAY_BE_PRIVATE:
                return verdict, source
        # What no client waits for we asked for ourselves, by the word of a manifest that anybody may have pushed.
        allowed = 0 if announce.background else announce.allowed
        return await private.check(source, digest, allowed, announce.size_bytes, asker), source

    # --- the swarm -----------------------------------------------------------------------------------------------

    async def _serving(
        self, session: PeerSession, digest: Digest, verdict: Verdict, announce: Announce, public: list[Source]
    ) -> tuple[OpenSwarm, _Place | None]:
        """The open swarm of this size, once what is in it is of an announced upstream or its digest has passed; and
        another place where its bytes are public.

        Raises LayercastError where there is none, or that takes too long: the clients then have it from the origin that
        they named.
        """
        upstreams, size_bytes = {source.upstream for source in public}, verdict.size_bytes
        if any(self._control.verification.times_voided(source, digest) for source in public):
            # Who sent wrong content lately comes after those that wait for an answer about another origin.
            await asyncio.sleep(2 * _LOOK_S)
        begins_at = ""
        for looks in range(round(OTHER_ORIGIN_WAIT_MAX_S / _LOOK_S)):
            swarm = await self._swarm(digest, size_bytes, host_of(session), announce, begins_at)
            elsewhere = None
            if places := swarm.public_elsewhere(upstreams) if announce.asks or announce.wanted else []:
                elsewhere = await self._still_public(places, digest, session.info.peer)
                swarm = await self._swarm(digest, size_bytes, host_of(session), announce)
            same_size = swarm.layout.size_bytes == size_bytes
            if verdict.private and same_size and swarm.untouched and not swarm.private:
                self._control.admission.make_private(swarm, upstreams)
            if verdict.private and not (same_size or swarm.vouched) and upstreams <= swarm.private_at:
                # Each size is the word of members: in the same turn of the loop the swarm is opened anew, or stays.
                self._control.admission.contradict(session, swarm, size_bytes)
                continue
            _check_private(swarm, verdict, upstreams)
            if same_size and (not announce.wanted or swarm.serves(upstreams)):
                return swarm, elsewhere
            if swarm.vouched or not announce.wanted:
                raise LayercastError(
                    f"blob {digest.short} has {swarm.layout.size_bytes} bytes here, the origin says {size_bytes}"
                )
            waited_s = looks * _LOOK_S
            whole_at_s = waited_s + self._control.admission.whole_in_s(swarm)
            in_time = same_size and whole_at_s <= OTHER_ORIGIN_WAIT_MAX_S
            stood_still = self._control.admission.stood_still(digest, public[0].upstream)
            if waited_s >= OTHER_ORIGIN_WAIT_S and not (in_time or stood_still):
                break
            if self._control.admission.makes_way(swarm, public[0].upstream):
                # For readers of this one, whoever else finds the swarm open first.
                begins_at = public[0].upstream
            else:
                await asyncio.sleep(_LOOK_S)
        raise LayercastError(f"blob {digest.short} comes from another origin, and its digest has not passed yet")

    async def _still_public(self, places: list[Source], digest: Digest, asker: PeerId) -> _Place | None:
        """Of these places one that still gives the blob to anyone; None where that cannot be known now.

        Raises ForeignBytes where none does: no other origin's word unlocks what was made private.
        """
        refused = True
        for place in places:
            verdict = await self._public_access.check(place, digest, asker)
            if verdict.shared:
                return place, verdict
            refused = refused and verdict.reason in ("private", "unknown")
        if refused:
            raise ForeignBytes(f"blob {digest.short} came from {places[0].upstream}, which gives it to nobody now")
        return None

    async def _swarm(
        self, digest: Digest, size_bytes: int, opener: str, announce: Announce, begins_at: str = ""
    ) -> OpenSwarm:
        """The open swarm; else one of this size is opened, from this upstream if one is named.

        Raises LayercastError where that cannot be.
        """
        # Looked up again after every wait: the last member of a swarm just opened may have left meanwhile.
        while (swarm := self._control.swarms.of(digest)) is None:
            task = self._opening.get(digest)
            if task is None:
                self._check_room(opener)
                opened = self._open(digest, size_bytes, opener, announce, begins_at)
                task = self._opening[digest] = asyncio.create_task(opened)
            await asyncio.shield(task)
        return swarm

    def _check_room(self, opener: str) -> None:
        """Raises LayercastError where no more blobs may be open, or none more for the nodes of this address."""
        count = len(self._control.swarms) + len(self._opening)
        if count >= SWARMS_MAX:
            raise LayercastError(f"{SWARMS_MAX} blobs are open already")
        taken = self._control.swarms.opened_by(opener)
        addresses = {host_of(session) for session in self._control.nodes} if count >= SWARMS_MAX // 2 else set()
        if is_over_share(taken, by_all=count, most=SWARMS_MAX, parties=len(addresses), least=SWARMS_PER_ADDRESS_MIN):
            raise LayercastError(f"nodes at {opener} have {taken} blobs open, which is their share of {SWARMS_MAX}")

    async def _open(
        self, digest: Digest, size_bytes: int, opener: str, announce: Announce, begins_at: str
    ) -> OpenSwarm:
        try:
            if size_bytes == 0 and Digest.of(b"", digest.algorithm) != digest:
                raise LayercastError(f"the origin says that blob {digest.short} is empty, which it is not")
            saved = await self._load_swarm(digest)
            own = await self._look(digest)
            if own is not None and saved is None:
                # Nobody knows any more whose bytes these are: they may be private. Their cut stays: a whole blob does.
                self._forget_bytes(digest)
                own = SeedBlob(own.layout, 0, False, (), None)
            _check_size(size_bytes, saved, own)
            usual, ranges = _has_by_usual_cut(announce, size_bytes), announce.ranges
            return self._control.admission.open(
                digest, size_bytes, saved, own, opener, ranges=ranges, usual=usual, begins_at=begins_at
            )
        except FrameInvalid as error:
            raise LayercastError(str(error)) from None
        finally:
            # At once: who finds the swarm closed again must not wait for this one, which waits no more.
            del self._opening[digest]

    async def close(self) -> None:
        """End what waits."""
        self._lined_up.clear()
        tasks = [*self._tasks, *self._opening.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _check_private(swarm: OpenSwarm, verdict: Verdict, upstreams: set[str]) -> None:
    """Raises LayercastError where what is in the swarm is not for clients of these upstreams."""
    same_size = swarm.layout.size_bytes == verdict.size_bytes
    if swarm.private and not (same_size and upstreams <= swarm.private_at):
        # Whatever this origin says: it unlocks nothing that came from another.
        raise LayercastError(f"blob {swarm.digest.short} is another origin's here, and private")
    if verdict.private and not (swarm.private or swarm.vouched):
        raise LayercastError(f"blob {swarm.digest.short} comes from where it is public, and is not whole yet")


def _check_size(size_bytes: int, saved: SavedSwarm | None, own: SeedBlob | None) -> None:
    """Raises LayercastError where the digest has passed at another size: then that is a fact."""
    passed_bytes = size_bytes
    if own is not None and own.complete:
        passed_bytes = own.layout.size_bytes
    elif saved is not None and saved.vouched:
        passed_bytes = saved.size_bytes
    if passed_bytes != size_bytes:
        raise LayercastError(f"the blob has {passed_bytes} bytes by its digest, and not {size_bytes}")


def _has_by_usual_cut(announce: Announce, size_bytes: int) -> bool:
    """Whether the node has some of it, or fetches it, as nodes cut a blob that they begin without a supernode."""
    cut = announce.size_bytes, announce.piece_size_bytes
    return any(announce.held + announce.fetching) and cut == (size_bytes, piece_size_for(size_bytes))


def host_of(session: PeerSession) -> str:
    """The address of a peer without its port."""
    return session.info.address.rpartition(":")[0]


def _size_bytes(message: Announce | Withdraw) -> int:
    """About what it takes in memory."""
    return _MESSAGE_BYTES + (len(message.held) + len(message.hashes) if isinstance(message, Announce) else 0)
