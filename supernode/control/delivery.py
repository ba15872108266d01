"""How pieces reach the members of a swarm beside inline blobs: by the scheduler's leases, or by what members run.

A delivery that members run among themselves lives in a package of its own and overrides these hooks. It decides neither
what is public nor who is a member: it hears of swarms and members when both are settled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from supernode.control.node_registry import NodeRegistry
    from supernode.control.notifier import Notifier
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.peer_session import PeerInfo, PeerSession
    from supernode.control.swarm_member import SwarmMember
    from supernode.control.swarm_registry import SwarmRegistry


class PieceDelivery:
    """The hooks, called on the event loop. As they stand here leases bring everything."""

    # Whether the scheduler leases pieces to nodes; if not, it only sees to the supernode's own copy.
    leases_pieces = True
    # The delivery's own port of this supernode, 0 for none.
    port = 0

    @property
    def sent_bytes(self) -> int:
        """Payload sent to nodes, beside what the upload server counts."""
        return 0

    def begin(self, swarms: SwarmRegistry, nodes: NodeRegistry, notifier: Notifier, clock: Callable[[], float]) -> None:
        """On the loop, before any other hook: what there is to look at and to notify with. `clock` is monotonic."""

    def refusal(self, info: PeerInfo) -> str:
        """Why this node cannot have blobs that way; empty if it can."""
        return ""

    def blob_verified(self, swarm: OpenSwarm) -> None:
        """The supernode holds the blob whole, and its digest has passed."""

    def member_entered(self, session: PeerSession, swarm: OpenSwarm, member: SwarmMember) -> None:
        """A peer announced the blob, and was answered."""

    def refresh(self, session: PeerSession) -> None:
        """Every few seconds for every session, before a frame leaves."""

    def set_upload_rate(self, bytes_s: int) -> None:
        """Change the rate limit, 0 for none."""

    def close(self) -> None:
        """Blocking: end what was begun."""
