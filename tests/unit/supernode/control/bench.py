"""The supernode's control with nothing around it: what it posts, sends and has done is kept; time stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from proto.ids import Digest
from proto.pieces import PieceLayout
from proto.wire.messages import Announce, Message, Source
from proto.wire.tickets import Identity
from supernode.control.control import Control
from supernode.control.delivery import PieceDelivery
from supernode.control.peer_session import PeerInfo, PeerLease, PeerSession
from supernode.control.ports import ControlObserver, ControlPorts
from supernode.scheduler import contract
from supernode.signer import IdentitySigner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peer.transport.base import PieceSource
    from proto.ids import PeerId, PeerName
    from supernode.control.claims import Offer
    from supernode.control.open_swarm import OpenSwarm
    from supernode.scheduler.contract import GrantLease

M = TypeVar("M")

SOURCE = Source("registry.example.com", "library/thing")
UPLINK_BYTES_S = 1e6


class Ears:
    """A channel: what was sent, and why the session was ended."""

    local_host = "10.0.0.9"

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.ended = ""

    def send(self, message: Message, *, soon: bool = True) -> None:
        self.heard.append(message)

    def end(self, code: str, message: str) -> None:
        self.ended = code

    def of(self, kind: type[M]) -> list[M]:
        return [message for message in self.heard if isinstance(message, kind)]


class SeedCalls:
    """Implements SeedWork: the names and first arguments of the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        # Of the last fetch from the origin.
        self.offers: dict[int, tuple[Offer, ...]] = {}

    def pin(self, digest: Digest, layout: PieceLayout) -> None:
        self.calls.append(("pin", digest))

    def unpin(self, digest: Digest, *, silent: bool) -> None:
        self.calls.append(("unpin", digest))

    def fetch_from_origin(
        self, fetch_id: int, swarm: OpenSwarm, pieces: int, offers: dict[int, tuple[Offer, ...]]
    ) -> None:
        self.calls.append(("fetch_from_origin", fetch_id, pieces))
        self.offers = offers

    def also_wanted(self, fetch_id: int, asker: PeerName) -> None:
        self.calls.append(("also_wanted", fetch_id, asker))

    def end_origin(self, fetch_id: int) -> None:
        self.calls.append(("end_origin", fetch_id))

    def cancel_origin(self, fetch_id: int) -> None:
        self.calls.append(("cancel_origin", fetch_id))

    def fetch_from_peer(
        self, grant: GrantLease, swarm: OpenSwarm, piece_hash: bytes, peer: PeerId, source: PieceSource
    ) -> None:
        self.calls.append(("fetch_from_peer", grant.lease_id, grant.piece, source.address))

    def probe(self, swarm: OpenSwarm, piece: int, piece_hash: bytes, peer: PeerId, source: PieceSource) -> None:
        self.calls.append(("probe", piece, peer, source.address))

    def cancel_fetch(self, lease_id: int) -> None:
        self.calls.append(("cancel_fetch", lease_id))

    def check(self, swarm: OpenSwarm) -> None:
        self.calls.append(("check", swarm.number))

    def suspect(self, digest: Digest, pieces: int) -> None:
        self.calls.append(("suspect", digest, pieces))

    def void(self, digest: Digest) -> None:
        self.calls.append(("void", digest))


class Saved:
    """Implements SwarmState: the names of the operations."""

    def __init__(self) -> None:
        self.operations: list[str] = []
        self.hashes: list[tuple[int, bytes]] = []

    def save_swarm(self, digest: Digest, size_bytes: int, piece_size_bytes: int, now_unix_s: float) -> None:
        self.operations.append("save_swarm")

    def add_source(self, digest: Digest, source: Source) -> None:
        self.operations.append("add_source")

    def add_private(self, digest: Digest, upstream: str) -> None:
        self.operations.append("add_private")

    def add_hashes(self, digest: Digest, added: Sequence[tuple[int, bytes]]) -> None:
        self.operations.append("add_hashes")
        self.hashes += added

    def vouch(self, digest: Digest, hashes: bytes) -> None:
        self.operations.append("vouch")

    def add_holder(self, digest: Digest, peer: PeerId) -> None:
        self.operations.append("add_holder")

    def remove_holder(self, digest: Digest, peer: PeerId) -> None:
        self.operations.append("remove_holder")

    def forget_swarm(self, digest: Digest) -> None:
        self.operations.append("forget_swarm")


class Bench:
    """See the module. Announcements are let in at once, from SOURCE."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.events: list[contract.Event] = []
        self.seed = SeedCalls()
        self.saved = Saved()
        self.ears: dict[int, Ears] = {}
        self.blamed: list[Source] = []
        # Peers that are connected to the seed.
        self.connected: set[PeerId] = set()
        self.pace: contract.Pace | None = None
        self.control = Control(
            ControlPorts(
                post=self.events.append,
                clock=lambda: self.now_s,
                unix_clock=lambda: self.now_s,
                signer=IdentitySigner(Identity.generate()),
                seed=self.seed,
                state=self.saved,
                observer=ControlObserver(),
                delivery=PieceDelivery(),
                forget_public=lambda source, digest: self.blamed.append(source),
                uplink_rate=lambda: UPLINK_BYTES_S,
                recover_until=0.0,
                seed_address=lambda host: f"{host}:65003",
                seed_connected=self.connected.__contains__,
                announced_max=100,
                pace=lambda: self.pace,
            )
        )
        self.handler = self.control.message_handler(self)

    def join(self, address: str = "10.0.0.1:1") -> PeerSession:
        """A peer connects."""
        ears = Ears()
        info = PeerInfo(Identity.generate().peer, "boot", address, "", 4, 4, None, None, "test")
        session = self.handler.admit(ears, info)
        self.ears[session.node] = ears
        return session

    def open(self, content: bytes, pieces: int = 1) -> OpenSwarm:
        """A swarm of so many pieces of 1,000 bytes that nobody is in."""
        return self.control.swarms.open(Digest.of(content), PieceLayout(pieces * 1000, 1000))

    def enter(self, session: PeerSession, swarm: OpenSwarm, *, wanted: bool = True) -> None:
        """The peer announces the blob, of which it holds nothing."""
        announce = Announce(str(swarm.digest), (SOURCE,), wanted, 0, 0, b"")
        self.control.admission.enter(session, swarm, announce, [SOURCE])

    def announce(self, session: PeerSession, digest: Digest, announce: Announce) -> None:
        """See AnnouncementQueue."""
        swarm = self.control.swarms.of(digest)
        assert swarm is not None
        self.control.admission.enter(session, swarm, announce, [SOURCE])

    def withdraw(self, session: PeerSession, digest: Digest) -> None:
        """See AnnouncementQueue."""
        self.control.participation.leave(session, digest)

    def lease(
        self, session: PeerSession, number: int, swarm: OpenSwarm, piece: int, source: int, claim: bytes = b""
    ) -> None:
        """The peer has been granted this."""
        session.leases[number] = PeerLease((1 << contract.ID_BITS) + number, swarm.number, piece, source, claim)

    def heard(self, session: PeerSession) -> Ears:
        """What the peer was sent."""
        return self.ears[session.node]
