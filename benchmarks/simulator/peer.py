"""A simulated node: the production downloader, and what its driver does with it, without I/O.

Each command is carried out as peer.driver and peer.work do. One client reads the blob as fast as it comes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from peer.downloader import contract
from peer.downloader.contract import BlobWanted, DigestChecked, FetchEnded, LinkOpened, ReaderAt, ReaderClosed, Wakeup
from proto.ids import Digest, PeerId
from proto.messages import Source
from proto.pieces import first_missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.simulator.clock import Call
    from benchmarks.simulator.transport import Transfer
    from benchmarks.simulator.world import World
    from proto.machine import Machine
    from proto.messages import Message

DIGEST = Digest.of(b"the simulated blob")
SOURCE = Source("registry.example.com", "simulated/blob")
_READER = 1
# The blob's own digest runs along with the verified prefix; what is left at the end is about one piece.
_SHA256_BYTES_S = 1.4e9


class UnexpectedCommand(AssertionError):
    """A machine asked for what no event of this world leads to."""


def peer_id(node: int) -> PeerId:
    """A stand-in for the node's public key."""
    return PeerId(node.to_bytes(32, "big"))


def node_of(peer: PeerId) -> int:
    """The node whose stand-in it is."""
    return int.from_bytes(peer, "big")


class Peer:
    """See the module. `send` brings a message to the supernode, with its latency."""

    def __init__(
        self,
        node: int,
        world: World,
        machine: Machine[contract.Event, contract.Command],
        send: Callable[[int, Message], None],
    ) -> None:
        self.node = node
        self._world = world
        self._machine = machine
        self._send = send
        self._inbox: deque[contract.Event] = deque()
        self._handling = False
        self._timer: Call | None = None
        self._fetches: dict[int, Transfer] = {}
        self._held = 0
        self._hashed = 0
        self._answered = False
        self._reads = 0
        self.first_byte_s: float | None = None
        self.completed_s: float | None = None
        # Why the client was sent away; empty as it should be.
        self.error = ""

    def begin(self) -> None:
        """The session is open, and a client asks for the blob."""
        self.post(LinkOpened())
        self.post(BlobWanted(_READER, DIGEST, SOURCE))

    def learn_hashes(self, pieces: int) -> None:
        """Signed hashes of these pieces (mask) arrived."""
        self._hashed |= pieces
        self.post(contract.HashesLearned(DIGEST, pieces))

    def post(self, event: contract.Event) -> None:
        """Have the machine handle it after what is being handled."""
        self._inbox.append(event)
        if self._handling:
            return
        self._handling = True
        world = self._world
        while self._inbox:
            following = self._inbox.popleft()
            world.trace.add(world.clock.now, self.node, following)
            for command in self._machine.handle(following, world.clock.now):
                world.trace.add(world.clock.now, self.node, command)
                self._carry_out(command)
        self._handling = False
        self._set_timer()

    def _set_timer(self) -> None:
        """A timer that is due too early asks again; only a later one has to be brought forward."""
        due = self._machine.next_wakeup()
        if due is None or (self._timer is not None and self._timer.due_s <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._world.clock.at(max(due, self._world.clock.now + 0.001), self._wake)

    def _wake(self) -> None:
        self._timer = None
        due = self._machine.next_wakeup()
        if due is not None and due <= self._world.clock.now:
            self.post(Wakeup())
        else:
            self._set_timer()

    # --- commands ----------------------------------------------------------------------------------------------

    def _carry_out(self, command: contract.Command) -> None:
        match command:
            case contract.Send(message):
                self._send(self.node, message)
            case contract.StartFetch():
                self._fetch(command)
            case contract.CancelFetch(fetch):
                if fetch in self._fetches:
                    self._world.transport.cancel(self._fetches[fetch])
            case contract.PieceHeld(_, piece):
                self._piece_held(piece)
            case _:
                self._carry_out_rare(command)

    def _carry_out_rare(self, command: contract.Command) -> None:
        match command:
            case contract.OpenInStore(digest):
                self.post(contract.StoreOpened(digest, self._held, self._hashed, False))
            case contract.CheckDigest(check):
                rest_s = self._world.scenario.piece_size_bytes / _SHA256_BYTES_S
                self._world.clock.after(rest_s, lambda: self.post(DigestChecked(check, True)))
            case contract.AnswerReader():
                self._answered = True
                self._read_on()
            case contract.BlobComplete():
                self._complete()
            case contract.FailReaders(_, _, message) | contract.RefuseReader(_, _, message):
                self.error = message
                self.post(ReaderClosed(_READER))
            case contract.SourcePublic() | contract.CloseInStore() | contract.ForgetBlob():
                pass  # what the store and the sources' file keep: nothing here
            case _:
                raise UnexpectedCommand(f"node {self.node}: {command}")

    def _fetch(self, command: contract.StartFetch) -> None:
        def ended(reason: str, elapsed_s: float) -> None:
            del self._fetches[command.fetch]
            self.post(FetchEnded(command.fetch, reason, elapsed_s))

        source = node_of(command.holder.peer)
        self._fetches[command.fetch] = self._world.transport.fetch(
            self.node, source, command.piece, command.deadline_s, ended
        )

    # --- the client --------------------------------------------------------------------------------------------

    def _piece_held(self, piece: int) -> None:
        now = self._world.clock.now
        self._held |= 1 << piece
        for checker in self._world.checkers:
            checker.claimed(now, self.node, piece)
        if self._answered and piece == self._reads:
            self._read_on()

    def _read_on(self) -> None:
        self._reads = first_missing(self._held, self._reads)
        if self._reads and self.first_byte_s is None:
            self.first_byte_s = self._world.clock.now
        if self._reads < self._world.scenario.layout.count:
            self.post(ReaderAt(_READER, self._reads))

    def _complete(self) -> None:
        now = self._world.clock.now
        self.completed_s = now
        if self._world.scenario.layout.count == 1 or self.first_byte_s is None:
            # The last piece is withheld until the digest has passed.
            self.first_byte_s = now
        for checker in self._world.checkers:
            checker.completed(now, self.node)
        self._world.node_completed()
        self.post(ReaderClosed(_READER))
