"""What the simulated supernode tells its sessions: in frames, one a turn of its loop; tiny blobs over its uplink.

Stands in for supernode.session.outbox and what supernode.control.driver and supernode.control.notifier put there.
Nothing is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.simulator.checkers import told
from benchmarks.simulator.names import address_of, blob_of, digest_of, peer_id
from peer.downloader.contract import HashesLearned
from proto.ids import peer_name
from proto.wire.messages import Grant, InlineBlob, NodeKnown, OriginStatus
from supernode.control.swarm_registry import INLINE_UPLINK_S
from supernode.scheduler.contract import SEED

if TYPE_CHECKING:
    from benchmarks.simulator.sessions import Session, Swarm
    from benchmarks.simulator.transfer import Endpoint
    from benchmarks.simulator.world import World
    from proto.wire.messages import Message
    from supernode.scheduler.contract import GrantLease


class Outbox:
    """All sessions' ways out."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._half_s = world.settings.round_trip_s / 2
        self._endpoint = world.transport.endpoints[SEED]
        self._tell_arrived = told(world.checkers, "arrived")
        self._tell_granted = told(world.checkers, "granted")

    def tell(self, session: Session, message: Message) -> None:
        """With the turn's frame."""
        self._post(session, message)

    def _post(self, session: Session, said: Message | HashesLearned) -> None:
        clock = self._world.clock
        if session.frame_s == clock.now:
            session.frame.append(said)
        else:
            session.frame, session.frame_s = [said], clock.now
            clock.run_after(self._half_s, session.peer.receive, session.frame)

    def grant(self, session: Session, swarm: Swarm, grant: GrantLease, source_node: int) -> None:
        """With the hashes and the acquaintance that the peer needs for it."""
        self.hashes(session, grant.swarm, swarm)
        if grant.inline and self.fits_inline(swarm, sum(member.wanted for member in swarm.members.values())):
            # It travels as a message and takes no slot.
            self._send_inline(session, swarm, grant)
            return
        self.granted(grant.lease_id, source_node, session.node)
        if grant.source not in session.known:
            session.known[grant.source] = None
            # The identity is the node's, whatever number its session has.
            self.tell(session, NodeKnown(grant.source, peer_name(peer_id(source_node)), address_of(source_node)))
        expires_ms = max(1, int(grant.expires_in_s * 1000))
        self.tell(
            session,
            Grant(grant.lease_id, grant.swarm, grant.piece, grant.source, expires_ms, grant.ahead, grant.behind),
        )

    def granted(self, lease: int, source_node: int, receiver_node: int) -> None:
        """Tell the checkers."""
        for granted in self._tell_granted:
            granted(self._world.clock.now, lease, source_node, receiver_node)

    def hashes(self, session: Session, number: int, swarm: Swarm) -> None:
        """Those that it was not told yet."""
        member = swarm.members[session.number]
        if member.hashes_sent != swarm.hashes:
            missing = swarm.hashes & ~member.hashes_sent
            member.hashes_sent = swarm.hashes
            self._post(session, HashesLearned(digest_of(blob_of(number)), missing))

    def origin_status(self, session: Session, number: int, swarm: Swarm) -> None:
        """How the origin does."""
        self.tell(session, OriginStatus(number, swarm.origin_state, swarm.elected == session.number))

    def sharing(self, session: Session, number: int, swarm: Swarm) -> None:
        """That the swarm moves."""
        self.tell(session, OriginStatus(number, "sharing", swarm.elected == session.number))

    def fits_inline(self, swarm: Swarm, waiting: int) -> bool:
        """As supernode.control.driver counts it."""
        scenario, settings = self._world.scenario, self._world.settings
        rate_bytes_s = (scenario.declared and scenario.supernode_bytes_s) or settings.uplink_assumed_bytes_s
        return waiting * swarm.layout.size_bytes <= rate_bytes_s * INLINE_UPLINK_S

    # --- tiny blobs --------------------------------------------------------------------------------------------

    def _send_inline(self, session: Session, swarm: Swarm, grant: GrantLease) -> None:
        """The content itself, over the supernode's uplink like any other bytes."""
        world = self._world
        path = world.network.path(SEED, session.node)
        world.links.start(path, float(swarm.layout.size_bytes), self._inline_sent, session, swarm, grant)

    def _inline_sent(self, session: Session, swarm: Swarm, grant: GrantLease) -> None:
        size, to = swarm.layout.size_bytes, self._world.transport.endpoints[session.node]
        self._endpoint.sent_bytes += size
        to.air_bytes += size
        self._world.clock.run_after(self._half_s, self._inline_arrived, session, swarm, grant, to)

    def _inline_arrived(self, session: Session, swarm: Swarm, grant: GrantLease, to: Endpoint) -> None:
        world, size = self._world, swarm.layout.size_bytes
        to.air_bytes -= size
        to.received_bytes += size
        world.transport.seed_bytes += size
        if to.alive:
            to.held[swarm.blob] = 1
            for arrived in self._tell_arrived:
                arrived(world.clock.now, session.node, swarm.blob, 0, size)
            session.peer.receive([InlineBlob(grant.lease_id, grant.swarm, b"")])
