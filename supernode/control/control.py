"""All that the supernode decides outside the scheduler, put together: messages and reports in, events and messages out.

Pure: time, the scheduler's inbox, store, saved state and sockets come from outside. Made by supernode.app for the
service and by the simulator, which so run the same decisions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.control.admission import Admission
from supernode.control.command_handler import CommandHandler
from supernode.control.message_handler import MessageHandler
from supernode.control.node_registry import NodeRegistry
from supernode.control.notifier import Notifier
from supernode.control.offers import Offers
from supernode.control.participation import Participation
from supernode.control.seed_reach import SeedReach
from supernode.control.swarm_registry import SwarmRegistry
from supernode.control.verification import Verification

if TYPE_CHECKING:
    from supernode.control.message_handler import AnnouncementQueue
    from supernode.control.ports import ControlPorts


class Control:
    """The parts, for whoever drives them."""

    def __init__(self, ports: ControlPorts) -> None:
        self._ports = ports
        self.swarms = swarms = SwarmRegistry(ports.signer)
        self.nodes = nodes = NodeRegistry()
        self.notifier = Notifier(swarms, nodes, ports.signer, ports.clock, ports.delivery.port, ports.has_login)
        self.seed_reach = SeedReach(ports, swarms, nodes)
        self.participation = Participation(ports, swarms, nodes, self.seed_reach)
        self.verification = Verification(ports, swarms, nodes, self.participation)
        self.offers = Offers(ports, swarms, nodes, self.verification)
        self.commands = CommandHandler(ports, swarms, nodes, self.notifier, self.participation, self.offers)
        self.admission = Admission(
            ports, swarms, nodes, self.notifier, self.participation, self.seed_reach, self.verification, self.offers
        )
        ports.delivery.begin(swarms, nodes, self.notifier, ports.clock)

    def message_handler(self, announcements: AnnouncementQueue) -> MessageHandler:
        """What takes the peers' sessions and messages; made after the queue, which uses the parts above."""
        return MessageHandler(
            self._ports,
            self.swarms,
            self.nodes,
            self.notifier,
            self.participation,
            self.seed_reach,
            self.verification,
            self.offers,
            announcements,
        )
