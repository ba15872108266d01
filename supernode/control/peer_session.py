"""A peer's open session as the control sees it: who it is, what it may report on, what it has been sent. No socket.

Not to be confused with supernode.session.session.WebSocketSession, which carries the bytes and implements Channel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from proto.bounded_dict import BoundedDict
from proto.errors import RemoteError
from supernode.scheduler.contract import ID_BITS

if TYPE_CHECKING:
    from proto.ids import Digest, PeerId
    from proto.wire.messages import Message, StoreReport
    from supernode.scheduler.contract import GrantLease

# Of a text for the other side's log, in characters.
TEXT_MAX: Final = 256
# Leases that a peer may report on: far more than it can run at a time.
LEASES_PER_PEER_MAX: Final = 1024


class IdentityTaken(RemoteError):
    """Another node is connected with the same key."""


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What a Hello said, checked. Rates are bytes/s, None when unknown."""

    peer: PeerId
    boot_id: str
    address: str
    zone: str
    upload_slots: int
    download_slots: int
    upload_rate_bytes_s: float | None
    download_rate_bytes_s: float | None
    agent: str
    # The upload address that it announced, where nobody may be sent there.
    address_refused: str = ""
    # Where it takes part in the cluster's transport, HOST:PORT; empty for none.
    delivery_address: str = ""


class Channel(Protocol):
    """The way to one peer."""

    @property
    def local_host(self) -> str:
        """Our own address as this peer sees it."""

    def send(self, message: Message, *, soon: bool = True) -> None:
        """Queue a message; what is queued in one turn leaves in one frame. Not `soon`: with the next frame."""

    def end(self, code: str, message: str) -> None:
        """End the session with a Refused code; empty: nothing is sent. Idempotent."""


class PeerLease(NamedTuple):
    """A lease that a peer may report on. `claim`: the hash that its piece is held to by a member's word."""

    lease_id: int
    swarm: int
    piece: int
    source: int
    claim: bytes = b""


@dataclass(eq=False, slots=True)
class PeerSession:
    """See the module. `node` is its number."""

    node: int
    info: PeerInfo
    channel: Channel
    # Where this peer fetches from the seed, HOST:PORT.
    seed_address: str
    # Digest to swarm number (0 while the answer is on its way).
    announced: dict[Digest, int] = field(default_factory=dict)
    wanting: set[int] = field(default_factory=set)
    nodes_known: set[int] = field(default_factory=set)
    # Swarms of which it holds pieces that came without their hashes; these are sent with the next refresh.
    hashes_due: set[int] = field(default_factory=set)
    # Transfers from the seed that found no connection, in a row, and whether it ever got one (seed_reach).
    seed_failures: int = 0
    seed_reached: bool = False
    # A fetch of its own from an origin was waited for in vain.
    fetched_in_vain: bool = False
    # What it last told of its store; None of an older peer.
    store: StoreReport | None = None
    # By the number that the peer knows a lease by. Bounded: the oldest go first.
    leases: BoundedDict[int, PeerLease] = field(default_factory=lambda: BoundedDict(LEASES_PER_PEER_MAX))

    def send(self, message: Message) -> None:
        """Put a message into this turn's frame."""
        self.channel.send(message)

    def add_lease(self, grant: GrantLease, claim: bytes = b"") -> int:
        """Remember a lease. Returns the number that the peer knows it by."""
        number = wire_lease(grant.lease_id)
        self.leases[number] = PeerLease(grant.lease_id, grant.swarm, grant.piece, grant.source, claim)
        return number

    def has_lease_in(self, swarm: int) -> bool:
        """Whether any of its leases is for a piece of this swarm."""
        return any(lease.swarm == swarm for lease in self.leases.values())

    def forget_swarm(self, digest: Digest) -> int:
        """It has nothing to do with the swarm any more. Returns the swarm's number, 0 for none."""
        number = self.announced.pop(digest, 0)
        self.wanting.discard(number)
        return number


def wire_lease(lease_id: int) -> int:
    """The number on the wire: a session is of one epoch, which would be six bytes more in each message."""
    return lease_id & (1 << ID_BITS) - 1
