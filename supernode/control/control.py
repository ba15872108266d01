"""All that the supernode decides outside the scheduler, put together: messages and reports in, events and messages out.

Pure: time, the scheduler's inbox, store, saved state and sockets come from outside. Made by supernode.app for the
service and by the simulator, which so run the same decisions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.control.admission import Admission
from supernode.control.command_handler import CommandHandler
from supernode.control.membership import Membership
from supernode.control.message_handler import MessageHandler
from supernode.control.node_registry import NodeRegistry
from supernode.control.notifier import Notifier
from supernode.control.swarm_registry import SwarmRegistry
from supernode.control.verification import Verification

if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.ids import Digest
    from proto.wire.messages import Source
    from supernode.control.delivery import PieceDelivery
    from supernode.control.membership import Post, SwarmState
    from supernode.control.message_handler import AnnouncementQueue
    from supernode.control.observer import ControlObserver
    from supernode.control.piece_hashes import Signer
    from supernode.control.seed_work import SeedWork


class Control:
    """The parts, for whoever drives them. `clock` is monotonic, `unix_clock` Unix seconds, `uplink_rate` bytes/s.

    `post` queues an event for the scheduler. `recover_until`, by `clock`, ends the wait for peers after a restart.
    """

    def __init__(
        self,
        *,
        post: Post,
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
        signer: Signer,
        seed: SeedWork,
        state: SwarmState,
        observer: ControlObserver,
        delivery: PieceDelivery,
        forget_public: Callable[[Source, Digest], None],
        uplink_rate: Callable[[], float],
        recover_until: float,
    ) -> None:
        self._post = post
        self._clock = clock
        self._observer = observer
        self._delivery = delivery
        self.swarms = SwarmRegistry(signer)
        self.nodes = NodeRegistry()
        self.notifier = Notifier(self.swarms, self.nodes, signer, clock, delivery_port=delivery.port)
        self.membership = Membership(self.swarms, self.nodes, post=post, seed=seed, state=state, observer=observer)
        self.commands = CommandHandler(
            self.swarms,
            self.nodes,
            self.notifier,
            self.membership,
            post=post,
            signer=signer,
            seed=seed,
            observer=observer,
            uplink_rate=uplink_rate,
        )
        self.verification = Verification(
            self.swarms,
            self.nodes,
            self.membership,
            post=post,
            seed=seed,
            state=state,
            observer=observer,
            delivery=delivery,
            clock=clock,
            forget_public=forget_public,
        )
        self.admission = Admission(
            self.swarms,
            self.nodes,
            self.notifier,
            self.membership,
            self.verification,
            post=post,
            state=state,
            observer=observer,
            delivery=delivery,
            clock=clock,
            unix_clock=unix_clock,
            uplink_rate=uplink_rate,
            recover_until=recover_until,
        )
        delivery.begin(self.swarms, self.nodes, self.notifier, clock)

    def message_handler(
        self, announcements: AnnouncementQueue, *, seed_address: Callable[[str], str], announced_max: int
    ) -> MessageHandler:
        """What takes the peers' sessions and messages; made after the queue, which uses the parts above."""
        return MessageHandler(
            self.swarms,
            self.nodes,
            self.notifier,
            self.membership,
            self.verification,
            announcements,
            post=self._post,
            observer=self._observer,
            delivery=self._delivery,
            clock=self._clock,
            seed_address=seed_address,
            announced_max=announced_max,
        )
