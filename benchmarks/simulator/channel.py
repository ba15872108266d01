"""The simulated way from the supernode to one peer: frames, one a turn of its loop; tiny blobs over its uplink.

Stands in for supernode.session: implements supernode.control.peer_session.Channel. It decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.simulator.checkers import listeners
from proto.wire.messages import InlineBlob
from supernode.scheduler.contract import SEED

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.simulator.environment import Environment
    from benchmarks.simulator.peer import Peer
    from benchmarks.simulator.transfer import Endpoint
    from proto.ids import Digest
    from proto.wire.messages import Message


class PeerChannel:
    """`digest_of` names the blob of a swarm's number, which the peer knows from SwarmOpened."""

    # Where the peer reached the supernode: of no use here.
    local_host = ""

    def __init__(self, environment: Environment, peer: Peer, digest_of: Callable[[int], Digest]) -> None:
        self.peer = peer
        self._environment = environment
        self._digest_of = digest_of
        self._half_s = environment.settings.round_trip_s / 2
        self._control = environment.settings.profile.control
        # When the last frame so far arrives: none overtakes another.
        self._arrives_s = 0.0
        self._seed = environment.transport.endpoints[SEED]
        self._on_arrived = listeners(environment.checkers, "arrived")
        # What the peer is sent next, and when the first of it was said; and what waits for a frame to go with.
        self._frame: list[Message] = []
        self._frame_s = -1.0
        self._later: list[Message] = []

    def send(self, message: Message, *, soon: bool = True) -> None:
        if isinstance(message, InlineBlob):
            self._send_content(message)
        elif not soon:
            self._later.append(message)
        elif self._frame_s == self._environment.clock.now:
            self._frame.append(message)
        else:
            self._begin_frame(message)

    def _begin_frame(self, message: Message) -> None:
        clock = self._environment.clock
        self._frame, self._frame_s = [*self._later, message], clock.now
        self._later.clear()
        delay_s = self._half_s + self._control.draw(self._environment.delays)
        self._arrives_s = max(self._arrives_s, clock.now + delay_s)
        clock.run_at(self._arrives_s, self.peer.receive, self._frame)

    def end(self, code: str, message: str) -> None:
        """See Channel. Only a session that the peer itself has replaced is ended here."""

    # --- tiny blobs --------------------------------------------------------------------------------------------

    def _send_content(self, message: InlineBlob) -> None:
        """The content itself, over the supernode's uplink like any other bytes."""
        path = self._environment.network.path(SEED, self.peer.node)
        blob = self._environment.blobs[self._digest_of(message.swarm)]
        self._environment.links.start(path, float(len(message.content)), self._content_sent, message, blob)

    def _content_sent(self, message: InlineBlob, blob: int) -> None:
        size, to = len(message.content), self._environment.transport.endpoints[self.peer.node]
        self._seed.sent_bytes += size
        to.air_bytes += size
        self._environment.clock.run_after(self._half_s, self._content_arrived, message, blob, to)

    def _content_arrived(self, message: InlineBlob, blob: int, to: Endpoint) -> None:
        environment, size = self._environment, len(message.content)
        to.air_bytes -= size
        to.received_bytes += size
        environment.transport.seed_bytes += size
        if to.alive:
            to.held[blob] = 1
            for arrived in self._on_arrived:
                arrived(environment.clock.now, self.peer.node, blob, 0, size)
            self.peer.receive([InlineBlob(message.lease, message.swarm, b"")])
