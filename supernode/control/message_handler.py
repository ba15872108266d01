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
from supernode.session.session import Limits, Link, Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from supernode.control.admission import Opening
    from supernode.control.driver import Driver
    from supernode.control.swarm_registry import Member, Swarm
    from supernode.control.verification import Completion
    from supernode.metrics import Metrics
    from supernode.session.hello import PeerInfo

logger = logging.getLogger(__name__)

_REASONS = {reason.value: reason for reason in FailReason}


class Intake:
    """Implements supernode.session.session.SessionOwner."""

    def __init__(
        self,
        driver: Driver,
        opening: Opening,
        completion: Completion,
        metrics: Metrics,
        limits: Limits,
        seed_address: Callable[[str], str],
        on_tick: Callable[[Link], None] | None = None,
    ) -> None:
        """`seed_address` gives our upload address for a peer that reached us at this host.

        `on_tick` is told of every session every few seconds, before what is refreshed then leaves.
        """
        self._driver = driver
        self._opening = opening
        self._completion = completion
        self._metrics = metrics
        self._limits = limits
        self._seed_address = seed_address
        self._on_tick = on_tick
        self._mismatches = LogLimit()

    # --- sessions ------------------------------------------------------------------------------------------------

    def admit(self, session: Session, info: PeerInfo) -> Link:
        """Give the peer its number. A peer that is back replaces its own older session."""
        nodes = self._driver.nodes
        older = nodes.number_of(info.peer)
        if older is not None:
            link = nodes.link(older)
            assert link is not None
            link.session.end("identity", "another session of this peer was opened")
            self._forget(link, "replaced")
        link = Link(nodes.number_for(info.peer), info, session, self._seed_address(session.local_host))
        nodes.add(link)
        self._metrics.sessions_open.set(len(nodes))
        logger.info(
            "session_opened peer=%s node=%d address=%s zone=%s agent=%s",
            short_peer(info.peer), link.node, info.address, info.zone or "-", info.agent,
        )  # fmt: skip
        self._driver.post(
            contract.PeerJoined(
                link.node,
                info.zone,
                info.upload_slots,
                info.download_slots,
                info.upload_rate_bytes_s,
                info.download_rate_bytes_s,
            )
        )
        return link

    def lost(self, link: Link, reason: str) -> None:
        """See SessionOwner."""
        self._forget(link, reason)

    def tick(self, link: Link) -> None:
        """See SessionOwner."""
        self._driver.telling.refresh(link)
        if self._on_tick is not None:
            self._on_tick(link)

    def _forget(self, link: Link, reason: str) -> None:
        nodes = self._driver.nodes
        if nodes.link(link.node) is not link:
            return
        nodes.remove(link)
        self._metrics.sessions_open.set(len(nodes))
        self._driver.post(contract.PeerLost(link.node, reason))
        for number in link.announced.values():
            swarm = self._driver.swarms.numbered(number)
            if swarm is not None:
                swarm.leave(link.node)
                self._completion.settle(swarm)
        link.announced.clear()
        link.wanting.clear()
        link.leases.clear()

    # --- messages ------------------------------------------------------------------------------------------------

    def received(self, link: Link, message: Message) -> None:
        """See SessionOwner."""
        match message:
            case messages.Stored():
                self._stored(link, message)
            case messages.Failed():
                self._failed(link, message)
            case messages.Announce():
                self._announce(link, message)
            case messages.Withdraw():
                self._opening.withdraw(link, _digest(message.digest))
            case messages.ReaderMoved():
                self._reader_moved(link, message)
            case messages.BlobChecked():
                self._blob_checked(link, message)
            case messages.OriginTried():
                self._origin_tried(link, message)
            case _:
                raise FrameInvalid(f"{type(message).__name__} is not a peer's to say here")

    def _announce(self, link: Link, announce: messages.Announce) -> None:
        digest = _digest(announce.digest)
        if min(announce.size_bytes, announce.piece_size_bytes) < 0:
            raise FrameInvalid("Announce: sizes are not negative")
        if digest not in link.announced and len(link.announced) >= self._limits.announced_max:
            message = f"{self._limits.announced_max} blobs are announced already"
            link.send(messages.BlobRefused(announce.digest, "limit", message))
            return
        self._opening.announce(link, digest, announce)

    def _part(self, link: Link, number: int) -> tuple[Swarm, Member] | None:
        """The swarm and this peer's part in it; None for a swarm that was closed or left meanwhile."""
        swarm = self._driver.swarms.numbered(number)
        member = swarm.members.get(link.node) if swarm is not None else None
        return (swarm, member) if swarm is not None and member is not None else None

    def _stored(self, link: Link, stored: messages.Stored) -> None:
        part = self._part(link, stored.swarm)
        if part is None:
            return
        swarm, member = part
        if not 0 <= stored.piece < swarm.layout.count or stored.elapsed_ms < 0:
            raise FrameInvalid(f"Stored: piece {stored.piece} of a blob with {swarm.layout.count}")
        lease = link.leases.pop(stored.lease, None)
        as_granted = lease is not None and lease[:2] == (stored.swarm, stored.piece)
        lease_id = self._driver.lease_id(stored.lease) if as_granted else 0
        if lease_id:
            self._metrics.leases.labels("stored").inc()
            if swarm.inline and lease is not None and lease[2] == SEED:
                # It came without. Others may ask this peer for it together with the piece, but nobody waits now.
                link.untold.add(swarm.number)
            elif not member.hashes_sent >> stored.piece & 1:
                # It came with the piece, so it can be passed on with it.
                member.hashes_sent |= 1 << stored.piece
                member.tells |= 1 << stored.piece
        self._opening.remember_holder(link, swarm)
        member.failing = False
        if not (member.held | member.unproven) >> stored.piece & 1:
            # What it said before is no news of the swarm.
            swarm.moved_s = self._driver.clock()
        if not swarm.hashes.known >> stored.piece & 1:
            member.unproven |= 1 << stored.piece
            self._driver.headway(swarm, link.node)
            return
        member.held |= 1 << stored.piece
        self._driver.post(
            contract.PieceStored(swarm.number, link.node, stored.piece, lease_id, stored.elapsed_ms / 1000)
        )

    def _failed(self, link: Link, failed: messages.Failed) -> None:
        lease = link.leases.pop(failed.lease, None)
        if lease is None:
            return
        self._metrics.leases.labels("failed").inc()
        if failed.reason == FetchReason.UNHASHED:
            self._tell_hash(link, *lease[:2])
            self._driver.post(contract.FetchFailed(self._driver.lease_id(failed.lease), FailReason.CANCELLED))
            return
        # A reason that a newer peer may know is nobody's fault as far as we can tell.
        reason = _REASONS.get(failed.reason, _REASONS[FetchReason.LOCAL])
        if reason is FailReason.CORRUPT and not self._believed(link, lease[2]):
            # Still a failure of this source, which others may have no trouble with.
            reason = FailReason.PROTOCOL
        part = self._part(link, lease[0])
        if part is not None:
            part[1].failing = True
        self._driver.post(contract.FetchFailed(self._driver.lease_id(failed.lease), reason))

    def _tell_hash(self, link: Link, number: int, piece: int) -> None:
        """Its source could not."""
        part = self._part(link, number)
        if part is not None:
            self._driver.telling.send_hashes(link, *part, 1 << piece)

    def _believed(self, link: Link, source: int) -> bool:
        """Whether a report of corrupt bytes may have the source quarantined."""
        accused = self._driver.nodes.link(source)
        if accused is None or self._driver.nodes.may_accuse(link.info.peer, accused.info.peer):
            return True
        self._mismatches.log(
            logger, logging.WARNING, "accusation_ignored peer=%s source=%s",
            short_peer(link.info.peer), short_peer(accused.info.peer),
        )  # fmt: skip
        return False

    def _reader_moved(self, link: Link, moved: messages.ReaderMoved) -> None:
        part = self._part(link, moved.swarm)
        if part is None:
            return
        if not NO_READER <= moved.piece < max(1, part[0].layout.count):
            raise FrameInvalid(f"ReaderMoved: piece {moved.piece} of a blob with {part[0].layout.count}")
        piece = None if moved.piece == NO_READER else moved.piece
        self._driver.post(contract.ReaderMoved(moved.swarm, link.node, piece))

    def _blob_checked(self, link: Link, checked: messages.BlobChecked) -> None:
        part = self._part(link, checked.swarm)
        if part is None:
            return
        swarm, _ = part
        if not checked.matches:
            # Where the content came from the origin our own check decides for all.
            peer = short_peer(link.info.peer)
            self._mismatches.log(
                logger, logging.WARNING, "peer_digest_mismatch peer=%s digest=%s", peer, swarm.digest.short
            )
            self._completion.doubt(swarm)
            return
        link.wanting.discard(swarm.number)

    def _origin_tried(self, link: Link, tried: messages.OriginTried) -> None:
        part = self._part(link, tried.swarm)
        if part is None or part[0].elected != link.node:
            return
        swarm, member = part
        if not tried.reason and member.held | member.unproven == swarm.layout.full_mask and member.unproven:
            # Its own digest check and then its hashes follow; until they are here its pieces are no copies, and the
            # scheduler would ask the origin for them again. If they never come, the attempt counts as stalled.
            self._driver.headway(swarm, link.node)
            return
        swarm.elected = None
        self._driver.post(contract.OriginTried(tried.swarm, link.node, not tried.reason))


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except DigestInvalid as error:
        raise FrameInvalid(str(error)) from None
