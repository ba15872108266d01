"""What peers say: each message checked against what its sender may say, then made an event for the scheduler. Pure.

Nothing that a peer says is believed beyond its own pieces and leases. How a blob is opened, and a peer let in, takes
waits: that is left to whoever implements AnnouncementQueue.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from proto.errors import DigestInvalid, FrameInvalid
from proto.ids import Digest, short_peer
from proto.pieces import mask_from_bytes
from proto.runtime.logs import LogLimit
from proto.wire import messages
from proto.wire.messages import NO_READER, FetchReason, Message
from supernode.control.accusations import Accusations
from supernode.control.peer_session import IdentityTaken, PeerSession
from supernode.control.piece_hashes import HASH_BYTES
from supernode.scheduler import contract
from supernode.scheduler.contract import SEED, FailReason

if TYPE_CHECKING:
    from supernode.control.node_registry import NodeRegistry
    from supernode.control.notifier import Notifier
    from supernode.control.offers import Offers
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.participation import Participation
    from supernode.control.peer_session import Channel, PeerInfo, PeerLease
    from supernode.control.ports import ControlPorts
    from supernode.control.seed_reach import SeedReach
    from supernode.control.swarm_member import SwarmMember
    from supernode.control.swarm_registry import SwarmRegistry
    from supernode.control.verification import Verification

logger = logging.getLogger(__name__)

_REASONS: dict[str, FailReason] = {reason.value: reason for reason in FailReason if reason is not FailReason.DISPUTED}
# So long a member is believed that the origin wants to be left alone: no longer than it could say nothing at all.
RETRY_AFTER_MAX_S: Final = 30.0
# What these say is the receiver's own affair.
_NOBODYS_FAULT = (FailReason.LOCAL, FailReason.CANCELLED, FailReason.NOT_HELD)
# How a transfer from the seed fails where nobody listens at its address, or somebody else does.
_NOT_THE_SEED = (FailReason.CONNECTION, FailReason.TIMEOUT, FailReason.PROTOCOL, FailReason.TICKET)


class AnnouncementQueue(Protocol):
    """Answers a peer's announcements of one blob in their order, at once or later."""

    def announce(self, session: PeerSession, digest: Digest, announce: messages.Announce) -> None:
        """Raises FrameInvalid."""

    def withdraw(self, session: PeerSession, digest: Digest) -> None:
        """The peer has nothing to do with the blob any more."""


@dataclass(eq=False, slots=True)
class MessageHandler:
    """One a supernode. Called on the event loop, never re-entrantly."""

    _ports: ControlPorts
    _swarms: SwarmRegistry
    _nodes: NodeRegistry
    _notifier: Notifier
    _participation: Participation
    _seed_reach: SeedReach
    _verification: Verification
    _offers: Offers
    _announcements: AnnouncementQueue
    _accusations: Accusations = field(default_factory=Accusations)
    _mismatches: LogLimit = field(default_factory=LogLimit)
    _addresses: LogLimit = field(default_factory=LogLimit)

    # --- sessions ------------------------------------------------------------------------------------------------

    def admit(self, channel: Channel, info: PeerInfo) -> PeerSession:
        """The peer proved who it is: give it its number. A peer that is back replaces its own older session.

        Raises IdentityTaken where the older session is another machine's, or another program's of the same one.
        """
        nodes = self._nodes
        older = nodes.session_of(info.peer)
        if older is not None:
            _check_same_node(older.info, info)
            older.channel.end("identity", "another session of this peer was opened")
            self.lost(older, "replaced")
        session = PeerSession(nodes.number_for(info.peer), info, channel, self._ports.seed_address(channel.local_host))
        nodes.add(session)
        self._ports.observer.sessions_changed(len(nodes))
        logger.info(
            "session_opened peer=%s node=%d address=%s zone=%s agent=%s",
            short_peer(info.peer), session.node, info.address, info.zone or "-", info.agent,
        )  # fmt: skip
        if info.address_refused:
            self._addresses.log(
                logger, logging.WARNING,
                "address_not_allowed peer=%s advertises=%r seen_at=%s: asked for nothing; see --advertise-allow",
                short_peer(info.peer), info.address_refused, info.address,
            )  # fmt: skip
        self._ports.post(
            contract.PeerJoined(
                session.node,
                info.zone,
                info.upload_slots,
                info.download_slots,
                info.upload_rate_bytes_s,
                info.download_rate_bytes_s,
            )
        )
        quarantine = nodes.quarantined.get(info.peer)
        if quarantine is not None:
            self._ports.post(contract.PeerQuarantined(session.node, quarantine.reason))
        return session

    def lost(self, session: PeerSession, reason: str, *, silent: bool = False) -> None:
        """The session is over; called exactly once after admit(). `silent`: nothing was heard, and nothing ended it."""
        self._participation.session_over(session, reason, silent=silent)

    def refresh(self, session: PeerSession) -> None:
        """A frame is about to leave, and it is time again for what is repeated every few seconds."""
        self._participation.end_quarantines_over()
        self._seed_reach.look(session)
        self._notifier.refresh(session)
        self._ports.delivery.refresh(session)

    # --- messages ------------------------------------------------------------------------------------------------

    def received(self, session: PeerSession, message: Message) -> None:
        """Raises FrameInvalid for what breaks the protocol."""
        match message:
            case messages.Stored():
                self._stored(session, message)
            case messages.Failed():
                self._failed(session, message)
            case messages.Announce():
                self._announce(session, message)
            case messages.Withdraw():
                self._announcements.withdraw(session, _digest(message.digest))
            case messages.ReaderMoved():
                self._reader_moved(session, message)
            case messages.PiecesWanted():
                self._pieces_wanted(session, message)
            case messages.BlobChecked():
                self._blob_checked(session, message)
            case messages.OriginTried():
                self._origin_tried(session, message)
            case _:
                self._of_the_node(session, message)

    def _of_the_node(self, session: PeerSession, message: Message) -> None:
        """What is about no swarm."""
        match message:
            case messages.PreheatEnded():
                self._ports.preheat_ended(session.info.peer, message)
            case messages.StoreReport():
                if min(message.used_bytes, message.limit_bytes, message.rotten, message.refused) < 0:
                    raise FrameInvalid("StoreReport: counts are not negative")
                # For who looks on: nothing is decided by it.
                session.store = message
            case _:
                raise FrameInvalid(f"{type(message).__name__} is not a peer's to say here")

    def _announce(self, session: PeerSession, announce: messages.Announce) -> None:
        digest = _digest(announce.digest)
        if min(announce.size_bytes, announce.piece_size_bytes) < 0:
            raise FrameInvalid("Announce: sizes are not negative")
        if digest not in session.announced and len(session.announced) >= self._ports.announced_max:
            message = f"{self._ports.announced_max} blobs are announced already"
            session.send(messages.BlobRefused(announce.digest, "limit", message))
            return
        self._announcements.announce(session, digest, announce)

    def _stored(self, session: PeerSession, stored: messages.Stored) -> None:
        part = self._swarms.part(stored.swarm, session.node)
        if part is None:
            return
        swarm, member = part
        if not 0 <= stored.piece < swarm.layout.count or min(stored.elapsed_ms, stored.beyond_us) < 0:
            raise FrameInvalid(f"Stored: piece {stored.piece} of a blob with {swarm.layout.count}")
        lease = session.leases.pop(stored.lease, None)
        lease_id = 0
        self._swarms.count_stored(swarm, member, stored, lease, leased=self._ports.delivery.leases_pieces)
        if lease is not None and (lease.swarm, lease.piece) == (stored.swarm, stored.piece):
            lease_id = lease.lease_id
            self._ports.observer.lease_ended(lease_id, "stored")
            if swarm.inline and lease.source == SEED:
                # It came without. Others may ask this peer for it together with the piece, but nobody waits now.
                session.hashes_due.add(swarm.number)
            elif lease.claim:
                swarm.claims.passed_on(member.name, stored.piece, lease.claim)
            else:
                member.hash_came_with(stored.piece)
                if lease.source == SEED:
                    self._seed_reach.reached(session)
            source = self._nodes.session(lease.source)
            if source is not None:
                self._accusations.served(source.info.peer, session.info)
        new_claim = len(stored.claim) == HASH_BYTES and not swarm.hashes.known >> stored.piece & 1
        if new_claim and self._verification.takes_word_of(session, swarm):
            swarm.claim(member, session.info.peer, stored.piece, stored.claim)
        self._participation.remember_holder(session, swarm)
        self._count(session, swarm, member, stored, lease_id)

    def _count(
        self, session: PeerSession, swarm: OpenSwarm, member: SwarmMember, stored: messages.Stored, lease_id: int
    ) -> None:
        """A piece that the member has now: a copy, if its hash is known here."""
        wanted, unproven = member.wanted, member.unproven
        if swarm.stored_by(member, stored.piece, self._ports.clock()):
            elapsed_s = stored.elapsed_ms / 1000 + stored.beyond_us / 1e6
            unvouched = bool(swarm.claims.pieces >> stored.piece & 1)
            waited_s, answered_s = stored.waited_us / 1e6, stored.answered_us / 1e6
            self._ports.post(
                contract.PieceStored(
                    swarm.number, session.node, stored.piece, lease_id, elapsed_s, waited_s, answered_s, unvouched
                )
            )
        elif member.unproven != unproven and swarm.elected == session.node:
            # From the origin, with a hash that is its own: it is getting on.
            self._ports.post(contract.OriginHeadway(swarm.number, session.node))
        if member.unproven != unproven or member.fetching >> stored.piece & 1:
            self._offers.stored(session, swarm, member, stored.piece)
        if wanted and not member.wanted:
            # With its last piece the want ends, and with the last want the supernode's own copy may be evicted.
            if member.unproven:
                self._ports.post(contract.PeerAnnounced(swarm.number, session.node, member.held, False))
            self._participation.settle(swarm)

    def _failed(self, session: PeerSession, failed: messages.Failed) -> None:
        lease = session.leases.pop(failed.lease, None)
        if lease is None:
            return
        self._ports.observer.lease_ended(lease.lease_id, "failed")
        part = self._swarms.part(lease.swarm, session.node)
        if failed.reason == FetchReason.UNHASHED:
            refuses = part is not None and part[0].claims.pieces >> lease.piece & 1
            if part is not None:
                # Its source could not send it.
                self._notifier.send_hashes(session, *part, 1 << lease.piece)
            # Who takes nothing by a member's word, or is of an earlier release, is kept apart from who gives by it.
            self._ports.post(
                contract.FetchFailed(lease.lease_id, FailReason.TICKET if refuses else FailReason.CANCELLED)
            )
            return
        # A reason that a newer peer may know is nobody's fault as far as we can tell.
        reason = _REASONS.get(failed.reason, _REASONS[FetchReason.LOCAL])
        if lease.source == SEED and reason in _NOT_THE_SEED:
            self._seed_reach.failed(session)
        if part is not None:
            part[1].failing = True
            if failed.reason == FetchReason.CORRUPT:
                self._have_checked(part[0], lease)
            reason = self._judged(session, lease, part[0], reason)
        self._ports.post(contract.FetchFailed(lease.lease_id, reason))

    def _have_checked(self, swarm: OpenSwarm, lease: PeerLease) -> None:
        """Whose piece it was looks after its disk, whoever is right."""
        accused = self._nodes.session(lease.source)
        if lease.source == SEED:
            self._ports.seed.suspect(swarm.digest, 1 << lease.piece)
        elif accused is not None and lease.source in swarm.members:
            accused.send(messages.Doubted(swarm.number, lease.piece))

    def _judged(self, session: PeerSession, lease: PeerLease, swarm: OpenSwarm, reason: FailReason) -> FailReason:
        """What a report is worth for others than this receiver. Of corrupt bytes the seed makes sure by itself."""
        accused = self._nodes.session(lease.source)
        if reason in _NOBODYS_FAULT or accused is None:
            return reason
        self._ports.observer.source_accused(reason.value)
        if reason is FailReason.CORRUPT:
            self._mismatches.log(
                logger, logging.WARNING, "corrupt_reported peer=%s source=%s digest=%s piece=%d",
                short_peer(session.info.peer), short_peer(accused.info.peer), swarm.digest.short, lease.piece,
            )  # fmt: skip
            self._verification.probe(swarm, lease.piece, accused)
        return self._accusations.judge(accused.info.peer, session.info, reason, self._ports.clock())

    def _reader_moved(self, session: PeerSession, moved: messages.ReaderMoved) -> None:
        part = self._swarms.part(moved.swarm, session.node)
        if part is None:
            return
        if not NO_READER <= moved.piece < max(1, part[0].layout.count):
            raise FrameInvalid(f"ReaderMoved: piece {moved.piece} of a blob with {part[0].layout.count}")
        piece = None if moved.piece == NO_READER else moved.piece
        self._ports.post(contract.ReaderMoved(moved.swarm, session.node, piece))

    def _pieces_wanted(self, session: PeerSession, wanted: messages.PiecesWanted) -> None:
        part = self._swarms.part(wanted.swarm, session.node)
        if part is None:
            return
        pieces = mask_from_bytes(wanted.pieces, part[0].layout.count)
        self._ports.post(contract.PiecesWanted(wanted.swarm, session.node, pieces))

    def _blob_checked(self, session: PeerSession, checked: messages.BlobChecked) -> None:
        part = self._swarms.part(checked.swarm, session.node)
        if part is None:
            return
        swarm, _ = part
        if not checked.matches:
            # Our own check decides for all.
            peer = short_peer(session.info.peer)
            self._mismatches.log(
                logger, logging.WARNING, "peer_digest_mismatch peer=%s digest=%s", peer, swarm.digest.short
            )
            return
        session.wanting.discard(swarm.number)

    def _origin_tried(self, session: PeerSession, tried: messages.OriginTried) -> None:
        part = self._swarms.part(tried.swarm, session.node)
        if part is None:
            return
        swarm, member = part
        self._offers.ended(session, swarm, member)
        if swarm.attempt_ended(session.node):
            retry_after_s = min(max(0.0, tried.retry_after_s), RETRY_AFTER_MAX_S) if tried.reason else 0.0
            if retry_after_s:
                swarm.leave_origin(self._ports.clock() + retry_after_s)
            self._ports.post(contract.OriginTried(tried.swarm, session.node, not tried.reason, retry_after_s))


def _check_same_node(older: PeerInfo, newer: PeerInfo) -> None:
    """Raises IdentityTaken for two nodes with one key. A session that is dead ends by itself within seconds."""
    if (older.boot_id, older.address) == (newer.boot_id, newer.address):
        return
    logger.warning("identity_taken peer=%s by=%s refused=%s", short_peer(newer.peer), older.address, newer.address)
    raise IdentityTaken(
        f"another node, at {older.address}, is connected with this node's key: a copied disk? Stop this peer, delete "
        "identity.key and membership.json in its --data-dir and give it a new join token"
    )


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except DigestInvalid as error:
        raise FrameInvalid(str(error)) from None
