"""Whether nodes reach the supernode's port for pieces, and what follows where none that wants a blob does. Pure.

A wrong --advertise, or a firewall, is the same for every blob and for whoever comes next. So what is known of an
address outlives blobs and sessions, until a node reaches it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proto.ids import short_peer
from proto.pieces import indices
from proto.runtime.logs import LogLimit
from supernode.scheduler import contract
from supernode.scheduler.contract import SEED

if TYPE_CHECKING:
    from supernode.control.node_registry import NodeRegistry
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.peer_session import PeerSession
    from supernode.control.ports import ControlPorts
    from supernode.control.swarm_registry import SwarmRegistry

logger = logging.getLogger(__name__)

# Transfers from the seed for which a node got no connection, in a row, before it counts as out of that node's reach.
SEED_FAILURES_MAX: Final = 2
# An address that nobody reaches is tried again by one node after so long. Nodes also connect ahead of use: where one
# gets through, that is seen sooner.
SEED_TRY_S: Final = 300.0


@dataclass(slots=True)
class _Unreached:
    """An address that nodes failed to reach and none reached since. `trier` is the node that tries again."""

    since_s: float
    try_at_s: float
    trier: int = SEED


@dataclass(eq=False, slots=True)
class SeedReach:
    """One a supernode."""

    _ports: ControlPorts
    _swarms: SwarmRegistry
    _nodes: NodeRegistry
    _unreached: dict[str, _Unreached] = field(default_factory=dict)
    _log_limit: LogLimit = field(default_factory=LogLimit)

    def since_s(self) -> dict[str, float]:
        """Addresses that no node reaches, and since when, monotonic seconds."""
        return {address: unreached.since_s for address, unreached in self._unreached.items()}

    def nodes_out(self) -> int:
        """How many connected nodes do not reach the seed, as far as is known."""
        return sum(self.is_out(session) for session in self._nodes)

    def is_out(self, session: PeerSession) -> bool:
        """Whether the seed is out of this node's reach, as far as is known."""
        unreached = self._unreached.get(session.seed_address)
        if unreached is None or session.seed_reached:
            return session.seed_failures >= SEED_FAILURES_MAX
        return unreached.trier != session.node

    # --- what nodes say --------------------------------------------------------------------------------------------

    def failed(self, session: PeerSession) -> None:
        """A transfer from the seed failed there as it does where nothing, or something else, listens."""
        if self._is_connected(session):
            return
        was_out = self.is_out(session)
        session.seed_failures += 1
        if was_out or session.seed_failures < SEED_FAILURES_MAX:
            return
        session.seed_reached = False
        now_s, address = self._ports.clock(), session.seed_address
        # Its word alone, against that of a connection that stands, says nothing of the others.
        others = [other for other in self._nodes if other.seed_address == address and other is not session]
        if not any(other.seed_reached or self._is_connected(other) for other in others):
            unreached = self._unreached.setdefault(address, _Unreached(now_s, 0.0))
            unreached.try_at_s, unreached.trier = now_s + SEED_TRY_S, SEED
        self._log_limit.log(
            logger, logging.ERROR, "seed_unreachable peer=%s address=%s: nodes cannot connect to the supernode's port "
            "for pieces there; correct --advertise, or open it", short_peer(session.info.peer), address,
        )  # fmt: skip
        self._review_all()

    def reached(self, session: PeerSession) -> None:
        """The node got a piece from the seed, or is connected to its port: so others may, too."""
        was_out = self.is_out(session)
        session.seed_failures, session.seed_reached = 0, True
        if self._unreached.pop(session.seed_address, None) is not None:
            logger.warning("seed_reached peer=%s address=%s", short_peer(session.info.peer), session.seed_address)
            for other in self._nodes:
                if other.seed_address == session.seed_address:
                    other.seed_failures = min(other.seed_failures, SEED_FAILURES_MAX - 1)
        elif not was_out:
            return
        self._review_all()

    def look(self, session: PeerSession) -> None:
        """Once in a while: the port may have been opened."""
        if not self.is_out(session):
            return
        unreached = self._unreached.get(session.seed_address)
        if self._is_connected(session):
            self.reached(session)
        elif unreached is not None and self._ports.clock() >= unreached.try_at_s:
            unreached.try_at_s, unreached.trier = self._ports.clock() + SEED_TRY_S, session.node
            session.seed_failures = SEED_FAILURES_MAX - 1
            self._review_all()

    def _is_connected(self, session: PeerSession) -> bool:
        return self._ports.seed_connected(session.info.peer)

    # --- what follows ----------------------------------------------------------------------------------------------

    def _review_all(self) -> None:
        for swarm in self._swarms:
            self.review(swarm)

    def review(self, swarm: OpenSwarm) -> None:
        """Where nobody who wants the blob reaches the seed, what it holds counts for nothing: a node is elected."""
        if swarm.inline or not swarm.layout.count:
            return
        wanting = self._nodes.sessions_of(node for node, member in swarm.members.items() if member.wanted)
        out = bool(wanting) and all(self.is_out(session) for session in wanting)
        if out is swarm.seed_out_of_reach:
            return
        swarm.seed_out_of_reach = out
        if not out:
            for piece in indices(swarm.seed_held):
                self._ports.post(contract.PieceStored(swarm.number, SEED, piece))
            return
        if swarm.seed_held:
            self._ports.post(contract.PieceEvicted(swarm.number, SEED, swarm.seed_held))
        for fetch_id in swarm.fetches:
            self._ports.seed.cancel_origin(fetch_id)
