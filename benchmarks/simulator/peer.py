"""A simulated node: the production downloader, and what its driver does with it, without I/O.

Each command is carried out as peer.driver and peer.work do. What the node holds is its endpoint's, and outlives it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.simulator.names import SOURCE, digest_of, node_of
from benchmarks.simulator.origin import PeerPatience
from peer.downloader import contract
from peer.downloader.contract import BlobWanted, DigestChecked, FetchEnded, LinkOpened, ReaderAt, ReaderClosed, Wakeup
from proto.messages import Announce
from proto.pieces import indices

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.simulator.client import Client
    from benchmarks.simulator.clock import Call
    from benchmarks.simulator.origin import Fetch
    from benchmarks.simulator.transport import Endpoint, Transfer
    from benchmarks.simulator.world import World
    from proto.machine import Machine
    from proto.messages import Message

# The blob's own digest runs along with the verified prefix; what is left at the end is about one piece.
_SHA256_BYTES_S = 1.4e9


class UnexpectedCommand(AssertionError):
    """A machine asked for what no event of this world leads to."""


class Store:
    """What a node keeps of the blobs over its own restarts, beside the pieces that its endpoint serves."""

    def __init__(self, blobs: int) -> None:
        # Pieces (masks) whose hash the supernode signed, and whether the blob's own digest passed.
        self.hashed = [0] * blobs
        self.complete = [False] * blobs


class Peer:
    """See the module. `send` brings a message to the supernode, with its latency."""

    def __init__(
        self,
        world: World,
        machine: Machine[contract.Event, contract.Command],
        endpoint: Endpoint,
        store: Store,
        client: Client,
        send: Callable[[Message], None],
    ) -> None:
        self.node = endpoint.number
        self._world = world
        self._machine = machine
        self._endpoint = endpoint
        self._store = store
        self._client = client
        self._send = send
        self._inbox: deque[contract.Event] = deque()
        self._handling = False
        self._gone = False
        self._timer: Call | None = None
        self._fetches: dict[int, Transfer] = {}
        self._upstream: dict[int, Fetch] = {}
        self._blobs = {digest_of(blob): blob for blob in range(len(world.scenario.blobs))}

    def begin(self) -> None:
        """The node started: it tells what it has, once the session is open."""
        for digest, blob in self._blobs.items():
            held = self._endpoint.held[blob]
            if held:
                layout = self._world.scenario.layout(blob)
                complete = self._store.complete[blob]
                self.post(
                    contract.BlobFound(digest, layout.size_bytes, layout.piece_size_bytes, held, complete, (SOURCE,))
                )
        self.post(LinkOpened())

    def leave(self) -> None:
        """The process is no more: nothing is handled, and nothing comes of what was begun."""
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()

    # --- the client ----------------------------------------------------------------------------------------------

    def held(self, blob: int) -> int:
        """The pieces (mask) in the store."""
        return self._endpoint.held[blob]

    def want(self, blob: int) -> None:
        """The client asks for a blob."""
        self.post(BlobWanted(blob + 1, digest_of(blob), SOURCE))

    def read_at(self, blob: int, piece: int) -> None:
        """The client waits for this piece."""
        self.post(ReaderAt(blob + 1, piece))

    def close(self, blob: int) -> None:
        """The client has what it wants of the blob, or went away."""
        self.post(ReaderClosed(blob + 1))

    # --- the machine -------------------------------------------------------------------------------------------

    def learn_hashes(self, blob: int, pieces: int) -> None:
        """Signed hashes of these pieces (mask) arrived."""
        if not self._gone:
            self._store.hashed[blob] |= pieces
            self.post(contract.HashesLearned(digest_of(blob), pieces))

    def post(self, event: contract.Event) -> None:
        """Have the machine handle it after what is being handled."""
        if self._gone:
            return
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
            case contract.Send(message, with_hashes):
                if with_hashes and isinstance(message, Announce):
                    # What they are matters to nobody here, only that they are told.
                    blob = self._blob(message.digest)
                    message = replace(message, hashes=bytes(32 * self._world.scenario.layout(blob).count))
                self._send(message)
            case contract.StartFetch():
                self._fetch(command)
            case contract.CancelFetch(fetch):
                if fetch in self._fetches:
                    self._world.transport.cancel(self._fetches[fetch])
            case contract.PieceHeld(digest, piece):
                self._piece_held(self._blobs[digest], piece)
            case _:
                self._carry_out_rare(command)

    def _carry_out_rare(self, command: contract.Command) -> None:
        match command:
            case contract.OpenInStore(digest):
                blob, store = self._blobs[digest], self._store
                held = self._endpoint.held[blob]
                self.post(contract.StoreOpened(digest, held, store.hashed[blob], store.complete[blob]))
            case contract.CheckDigest(check, digest):
                rest_s = self._world.scenario.layout(self._blobs[digest]).piece_size_bytes / _SHA256_BYTES_S
                self._world.clock.after(rest_s, lambda: self.post(DigestChecked(check, True)))
            case contract.StoreInline(fetch):
                self._world.clock.after(self._world.settings.hash_s, lambda: self.post(FetchEnded(fetch, "", 0.0)))
            case contract.FetchUpstream():
                self._fetch_upstream(command)
            case contract.CancelUpstream(fetch):
                if fetch in self._upstream:
                    self._upstream[fetch].stop()
            case _:
                self._carry_out_for_clients(command)

    def _carry_out_for_clients(self, command: contract.Command) -> None:
        match command:
            case contract.AnswerReader(reader):
                self._client.answered(self, reader - 1)
            case contract.BlobComplete(digest):
                blob = self._blobs[digest]
                self._store.complete[blob] = True
                self._client.blob_complete(self, blob)
            case contract.FailReaders(digest, _, message):
                self._client.sent_away(self, self._blobs[digest], message)
            case contract.RefuseReader(reader, _, message):
                self._client.sent_away(self, reader - 1, message)
            case contract.SourcePublic() | contract.CloseInStore() | contract.ForgetBlob():
                pass  # what the store and the sources' file keep: nothing here
            case _:
                raise UnexpectedCommand(f"node {self.node}: {command}")

    def _blob(self, digest: str) -> int:
        return next(blob for known, blob in self._blobs.items() if str(known) == digest)

    def _fetch(self, command: contract.StartFetch) -> None:
        def ended(reason: str, elapsed_s: float) -> None:
            del self._fetches[command.fetch]
            self.post(FetchEnded(command.fetch, reason, elapsed_s))

        source = node_of(command.holder.peer)
        blob = self._blobs[command.digest]
        self._fetches[command.fetch] = self._world.transport.fetch(
            self.node, source, blob, command.piece, command.deadline_s, ended
        )

    def _fetch_upstream(self, command: contract.FetchUpstream) -> None:
        blob, world = self._blobs[command.digest], self._world

        def stored(piece: int) -> None:
            for checker in world.checkers:
                checker.arrived(world.clock.now, self.node, blob, piece, world.scenario.layout(blob).length(piece))
            self.post(contract.UpstreamPiece(command.fetch, piece))

        def ended(reason: str) -> None:
            del self._upstream[command.fetch]
            self.post(contract.UpstreamEnded(command.fetch, reason))

        ahead = command.pieces >> command.first << command.first
        pieces = deque([*indices(ahead), *indices(command.pieces & ~ahead)])
        self._upstream[command.fetch] = world.origin.fetch(self._endpoint, blob, pieces, PeerPatience(), stored, ended)

    def _piece_held(self, blob: int, piece: int) -> None:
        for checker in self._world.checkers:
            checker.claimed(self._world.clock.now, self.node, blob, piece)
        self._client.piece_held(self, blob, piece)
