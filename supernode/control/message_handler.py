"""What peers say: each message checked against what its sender may say, then made an event for the scheduler.

Announcements go through supernode.control.admission first. Nothing a peer says is believed
beyond its own pieces and leases.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proto.errors import DigestInvalid, FrameInvalid
from proto.ids import Digest, short_peer
from proto.runtime.logs import LogLimit
from proto.wire import messages
from proto.wire.messages import NO_READER, FetchReason, Message
from supernode.scheduler import contract
from supernode.scheduler.contract import SEED, FailReason
from supernode.session.session import Limits, PeerSession, WebSocketSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from supernode.control.admission import Admission
    from supernode.control.driver import Driver
    from supernode.control.swarm_registry import OpenSwarm, SwarmMember
    from supernode.control.verification import Verification
    from supernode.metrics import Metrics
    from supernode.session.hello import PeerInfo

logger = logging.getLogger(__name__)

_REASONS = {reason.value: reason for reason in FailReason}


class MessageHandler:
    """Implements supernode.session.session.SessionOwner."""

    def __init__(
        self,
        driver: Driver,
        admission: Admission,
        verification: Verification,
        metrics: Metrics,
        limits: Limits,
        seed_address: Callable[[str], str],
        on_tick: Callable[[PeerSession], None] | None = None,
    ) -> None:
        """`seed_address` gives our upload address for a peer that reached us at this host.

        `on_tick` is told of every session every few seconds, before what is refreshed then leaves.
        """
        self._driver = driver
        self._admission = admission
        self._verification = verification
        self._metrics = metrics
        self._limits = limits
        self._seed_address = seed_address
        self._on_tick = on_tick
        self._mismatches = LogLimit()

    # --- sessions ------------------------------------------------------------------------------------------------

    def admit(self, channel: WebSocketSession, info: PeerInfo) -> PeerSession:
        """Give the peer its number. A peer that is back replaces its own older session."""
        nodes = self._driver.nodes
        older = nodes.number_of(info.peer)
        if older is not None:
            replaced = nodes.session(older)
            assert replaced is not None
            replaced.channel.end("identity", "another session of this peer was opened")
            self._forget(replaced, "replaced")
        session = PeerSession(nodes.number_for(info.peer), info, channel, self._seed_address(channel.local_host))
        nodes.add(session)
        self._metrics.sessions_open.set(len(nodes))
        logger.info(
            "session_opened peer=%s node=%d address=%s zone=%s agent=%s",
            short_peer(info.peer), session.node, info.address, info.zone or "-", info.agent,
        )  # fmt: skip
        self._driver.post(
            contract.PeerJoined(
                session.node,
                info.zone,
                info.upload_slots,
                info.download_slots,
                info.upload_rate_bytes_s,
                info.download_rate_bytes_s,
            )
        )
        return session

    def lost(self, session: PeerSession, reason: str) -> None:
        """See SessionOwner."""
        self._forget(session, reason)

    def tick(self, session: PeerSession) -> None:
        """See SessionOwner."""
        self._driver.notifier.refresh(session)
        if self._on_tick is not None:
            self._on_tick(session)

    def _forget(self, session: PeerSession, reason: str) -> None:
        nodes = self._driver.nodes
        if nodes.session(session.node) is not session:
            return
        nodes.remove(session)
        self._metrics.sessions_open.set(len(nodes))
        self._driver.post(contract.PeerLost(session.node, reason))
        for number in session.announced.values():
            swarm = self._driver.swarms.numbered(number)
            if swarm is not None:
                swarm.leave(session.node)
                self._verification.settle(swarm)
        session.announced.clear()
        session.wanting.clear()
        session.leases.clear()

    # --- messages ------------------------------------------------------------------------------------------------

    def received(self, session: PeerSession, message: Message) -> None:
        """See SessionOwner."""
        match message:
            case messages.Stored():
                self._stored(session, message)
            case messages.Failed():
                self._failed(session, message)
            case messages.Announce():
                self._announce(session, message)
            case messages.Withdraw():
                self._admission.withdraw(session, _digest(message.digest))
            case messages.ReaderMoved():
                self._reader_moved(session, message)
            case messages.BlobChecked():
                self._blob_checked(session, message)
            case messages.OriginTried():
                self._origin_tried(session, message)
            case _:
                raise FrameInvalid(f"{type(message).__name__} is not a peer's to say here")

    def _announce(self, session: PeerSession, announce: messages.Announce) -> None:
        digest = _digest(announce.digest)
        if min(announce.size_bytes, announce.piece_size_bytes) < 0:
            raise FrameInvalid("Announce: sizes are not negative")
        if digest not in session.announced and len(session.announced) >= self._limits.announced_max:
            message = f"{self._limits.announced_max} blobs are announced already"
            session.send(messages.BlobRefused(announce.digest, "limit", message))
            return
        self._admission.announce(session, digest, announce)

    def _part(self, session: PeerSession, number: int) -> tuple[OpenSwarm, SwarmMember] | None:
        """The swarm and this peer's part in it; None for a swarm that was closed or left meanwhile."""
        swarm = self._driver.swarms.numbered(number)
        member = swarm.members.get(session.node) if swarm is not None else None
        return (swarm, member) if swarm is not None and member is not None else None

    def _stored(self, session: PeerSession, stored: messages.Stored) -> None:
        part = self._part(session, stored.swarm)
        if part is None:
            return
        swarm, member = part
        if not 0 <= stored.piece < swarm.layout.count or stored.elapsed_ms < 0:
            raise FrameInvalid(f"Stored: piece {stored.piece} of a blob with {swarm.layout.count}")
        lease = session.leases.pop(stored.lease, None)
        as_granted = lease is not None and lease[:2] == (stored.swarm, stored.piece)
        lease_id = self._driver.lease_id(stored.lease) if as_granted else 0
        if lease_id:
            self._metrics.leases.labels("stored").inc()
            if swarm.inline and lease is not None and lease[2] == SEED:
                # It came without. Others may ask this peer for it together with the piece, but nobody waits now.
                session.untold.add(swarm.number)
            elif not member.hashes_sent >> stored.piece & 1:
                # It came with the piece, so it can be passed on with it.
                member.hashes_sent |= 1 << stored.piece
                member.tells |= 1 << stored.piece
        self._admission.remember_holder(session, swarm)
        member.failing = False
        if not (member.held | member.unproven) >> stored.piece & 1:
            # What it said before is no news of the swarm.
            swarm.moved_s = self._driver.clock()
        if not swarm.hashes.known >> stored.piece & 1:
            member.unproven |= 1 << stored.piece
            self._driver.headway(swarm, session.node)
            return
        member.held |= 1 << stored.piece
        self._driver.post(
            contract.PieceStored(swarm.number, session.node, stored.piece, lease_id, stored.elapsed_ms / 1000)
        )

    def _failed(self, session: PeerSession, failed: messages.Failed) -> None:
        lease = session.leases.pop(failed.lease, None)
        if lease is None:
            return
        self._metrics.leases.labels("failed").inc()
        if failed.reason == FetchReason.UNHASHED:
            self._tell_hash(session, *lease[:2])
            self._driver.post(contract.FetchFailed(self._driver.lease_id(failed.lease), FailReason.CANCELLED))
            return
        # A reason that a newer peer may know is nobody's fault as far as we can tell.
        reason = _REASONS.get(failed.reason, _REASONS[FetchReason.LOCAL])
        if reason is FailReason.CORRUPT and not self._believed(session, lease[2]):
            # Still a failure of this source, which others may have no trouble with.
            reason = FailReason.PROTOCOL
        part = self._part(session, lease[0])
        if part is not None:
            part[1].failing = True
        self._driver.post(contract.FetchFailed(self._driver.lease_id(failed.lease), reason))

    def _tell_hash(self, session: PeerSession, number: int, piece: int) -> None:
        """Its source could not."""
        part = self._part(session, number)
        if part is not None:
            self._driver.notifier.send_hashes(session, *part, 1 << piece)

    def _believed(self, session: PeerSession, source: int) -> bool:
        """Whether a report of corrupt bytes may have the source quarantined."""
        accused = self._driver.nodes.session(source)
        if accused is None or self._driver.nodes.may_accuse(session.info.peer, accused.info.peer):
            return True
        self._mismatches.log(
            logger, logging.WARNING, "accusation_ignored peer=%s source=%s",
            short_peer(session.info.peer), short_peer(accused.info.peer),
        )  # fmt: skip
        return False

    def _reader_moved(self, session: PeerSession, moved: messages.ReaderMoved) -> None:
        part = self._part(session, moved.swarm)
        if part is None:
            return
        if not NO_READER <= moved.piece < max(1, part[0].layout.count):
            raise FrameInvalid(f"ReaderMoved: piece {moved.piece} of a blob with {part[0].layout.count}")
        piece = None if moved.piece == NO_READER else moved.piece
        self._driver.post(contract.ReaderMoved(moved.swarm, session.node, piece))

    def _blob_checked(self, session: PeerSession, checked: messages.BlobChecked) -> None:
        part = self._part(session, checked.swarm)
        if part is None:
            return
        swarm, _ = part
        if not checked.matches:
            # Where the content came from the origin our own check decides for all.
            peer = short_peer(session.info.peer)
            self._mismatches.log(
                logger, logging.WARNING, "peer_digest_mismatch peer=%s digest=%s", peer, swarm.digest.short
            )
            self._verification.doubt(swarm)
            return
        session.wanting.discard(swarm.number)

    def _origin_tried(self, session: PeerSession, tried: messages.OriginTried) -> None:
        part = self._part(session, tried.swarm)
        if part is None or part[0].elected != session.node:
            return
        swarm, member = part
        if not tried.reason and member.held | member.unproven == swarm.layout.full_mask and member.unproven:
            # Its own digest check and then its hashes follow; until they are here its pieces are no copies, and the
            # scheduler would ask the origin for them again. If they never come, the attempt counts as stalled.
            self._driver.headway(swarm, session.node)
            return
        swarm.elected = None
        self._driver.post(contract.OriginTried(tried.swarm, session.node, not tried.reason))


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except DigestInvalid as error:
        raise FrameInvalid(str(error)) from None
