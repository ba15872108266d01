"""Who watches the control: the service's metrics, the simulator's checkers. It changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proto.ids import Digest, PeerId


class ControlObserver:
    """Each method may be left as it is here. Lease ids are the scheduler's; the seed has the supernode's own key."""

    def sessions_changed(self, count: int) -> None:
        """A session opened or ended."""

    def swarms_changed(self, count: int) -> None:
        """A swarm opened or was closed."""

    def lease_granted(self, lease_id: int, source: PeerId, receiver: PeerId, *, inline: bool) -> None:
        """A lease was sent to its receiver; `inline`: with the content, so that it takes no slot."""

    def lease_ended(self, lease_id: int, outcome: str) -> None:
        """`outcome`: stored, failed, cancelled or expired; empty where the receiver's session is over."""

    def received_from_peer(self, count_bytes: int) -> None:
        """The seed got payload from a node."""

    def origin_opened(self, digest: Digest) -> None:
        """Every node may ask the origin for itself from now on."""

    def digest_checked(self, *, matches: bool) -> None:
        """The digest of a whole blob was compared."""
