"""A Downloader under test: events in with the time, commands out, invariants checked after every one."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, TypeVar

from peer.downloader import contract, invariants
from peer.downloader.contract import BlobFound, BlobWanted, Received, StoreOpened, SupernodeConnected
from peer.downloader.machine import Downloader
from proto.ids import Digest, PeerName
from proto.pieces import KIB, PieceLayout
from proto.wire.messages import Grant, NodeKnown, Source, SwarmOpened

if TYPE_CHECKING:
    from peer.downloader.limits import Limits
    from proto.wire.messages import Message

CommandT = TypeVar("CommandT")

DIGEST = Digest.of(b"layer")
SOURCE = Source("docker.io", "library/debian")
OTHER_SOURCE = Source("quay.io", "other/debian")
PIECE = 256 * KIB
SIZE = 4 * PIECE - 5
SWARM = 7
TICKET = b"ticket"


def peer_id(number: int) -> PeerName:
    return PeerName(bytes([number]) * 12)


class Script:
    """Feeds one machine; the clock moves by hand."""

    def __init__(self, seed: int = 1, limits: Limits | None = None, own: int = 9) -> None:
        self.machine = Downloader(Random(seed), peer_id(own), limits)
        self.now = 100.0
        self.all: list[contract.Command] = []

    def __call__(self, *events: contract.Event) -> list[contract.Command]:
        """Handle these; the commands of all of them."""
        out: list[contract.Command] = []
        for event in events:
            out += self.machine.handle(event, self.now)
            invariants.check(self.machine)
        self.all += out
        return out

    def receive(self, *messages: Message) -> list[contract.Command]:
        return self(*(Received(message) for message in messages))

    def wait(self, seconds: float) -> list[contract.Command]:
        """Let time pass, waking the machine whenever it asked for it."""
        out: list[contract.Command] = []
        end = self.now + seconds
        for _ in range(10_000):
            due = self.machine.next_wakeup()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            out += self(contract.Wakeup())
            following = self.machine.next_wakeup()
            assert following is None or following > self.now or out, "no spinning"
        else:
            raise AssertionError("the machine asks to be woken without end")
        self.now = end
        return out

    # --- the usual beginnings ----------------------------------------------------------------------------------

    def connected(self) -> Script:
        self(SupernodeConnected())
        self.receive(*(NodeKnown(n, peer_id(n + 1), f"10.0.0.{n}:65002") for n in range(4)))
        return self

    def open(self, held: int = 0, hashed: int = 0b1111, reader: int = 1, size: int = SIZE) -> Script:
        """A client reads the blob of four pieces in an open swarm."""
        if held:
            self(BlobFound(DIGEST, size, PIECE, held, False))
        self(BlobWanted(reader, DIGEST, SOURCE))
        self.receive(SwarmOpened(SWARM, str(DIGEST), size, PIECE, TICKET))
        count = PieceLayout(size, PIECE).count
        self(StoreOpened(DIGEST, held, hashed & ((1 << count) - 1), False))
        return self

    def grant(self, lease: int, piece: int, node: int = 1) -> list[contract.Command]:
        return self.receive(Grant(lease, SWARM, piece, node, 5000))


def of_type(commands: list[contract.Command], kind: type[CommandT]) -> list[CommandT]:
    return [command for command in commands if isinstance(command, kind)]


def sent(commands: list[contract.Command]) -> list[Message]:
    return [command.message for command in of_type(commands, contract.Send)]
