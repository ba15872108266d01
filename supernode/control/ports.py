"""What the control has of the world outside: clocks, inbox, store, saved state, key. Made by who runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proto.ids import Digest, PeerId
    from proto.wire.messages import Source
    from supernode.control.delivery import PieceDelivery
    from supernode.control.observer import ControlObserver
    from supernode.control.piece_hashes import Signer
    from supernode.control.seed_work import SeedWork
    from supernode.scheduler import contract


class SwarmState(Protocol):
    """What of swarms outlives a restart (supernode.state.base says what each operation does). Never blocks."""

    def save_swarm(self, digest: Digest, size_bytes: int, piece_size_bytes: int, now_unix_s: float) -> None: ...
    def add_source(self, digest: Digest, source: Source) -> None: ...
    def add_hashes(self, digest: Digest, added: Sequence[tuple[int, bytes]]) -> None: ...
    def vouch(self, digest: Digest, hashes: bytes) -> None: ...
    def add_holder(self, digest: Digest, peer: PeerId) -> None: ...
    def remove_holder(self, digest: Digest, peer: PeerId) -> None: ...
    def forget_swarm(self, digest: Digest) -> None: ...


@dataclass(frozen=True, slots=True)
class ControlPorts:
    """`clock` is monotonic, `unix_clock` Unix seconds, `uplink_rate` the supernode's uplink now, bytes/s.

    `post` queues an event for the scheduler. `recover_until`, by `clock`, ends the wait for peers after a restart.
    `forget_public` has a source asked anew whether it gives a blob to anyone.
    """

    post: Callable[[contract.Event], None]
    clock: Callable[[], float]
    unix_clock: Callable[[], float]
    signer: Signer
    seed: SeedWork
    state: SwarmState
    observer: ControlObserver
    delivery: PieceDelivery
    forget_public: Callable[[Source, Digest], None]
    uplink_rate: Callable[[], float]
    recover_until: float
