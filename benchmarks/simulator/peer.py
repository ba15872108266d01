"""A simulated node: the production's downloader and message handler, with commands carried out at a virtual clock.

Implements peer.node.command_handler.CommandHandler and peer.node.message_handler.NodeKeeper. What the node holds is
its endpoint's, and outlives it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from benchmarks.simulator.errors import UnexpectedCommand
from benchmarks.simulator.names import ANY_HASH, SOURCE, digest_of, node_of
from peer.downloader import contract
from peer.downloader.contract import (
    BlobWanted,
    DigestChecked,
    FetchEnded,
    HashesLearned,
    ReaderAt,
    ReaderClosed,
    Wakeup,
)
from peer.node.command_handler import methods_of
from peer.node.message_handler import MessageHandler
from peer.transport.delivery import DeliverySlot
from proto.pieces import indices

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.simulator.clock import Call
    from benchmarks.simulator.environment import Environment
    from benchmarks.simulator.origin import Fetch
    from benchmarks.simulator.transfer import Endpoint, Transfer
    from peer.store.base import SignedHashes
    from proto.ids import Digest
    from proto.machine import Machine
    from proto.pieces import PieceLayout
    from proto.wire.messages import Message, NodeKnown, PieceHashes, Preheat, SwarmOpened

# In every simulation pieces come by the supernode's leases.
_LEASES_ALONE: Final = DeliverySlot()
# The blob's own digest runs along with the verified prefix; what is left at the end is about one piece.
_SHA256_BYTES_S = 1.4e9


class PeerClient(Protocol):
    """A node's client, as it hears of the blobs that it asked for."""

    def answered(self, peer: Peer, blob: int) -> None:
        """It may read."""

    def piece_held(self, peer: Peer, blob: int, piece: int) -> None:
        """A piece more is at the node."""

    def withhold(self, peer: Peer, blob: int, pieces: int) -> None:
        """Of these pieces (mask), and of no others, it may read nothing before the blob is complete."""

    def blob_complete(self, peer: Peer, blob: int) -> None:
        """All of it may be read."""

    def sent_away(self, peer: Peer, blob: int, message: str) -> None:
        """The node cannot bring it."""


class Store:
    """What a node keeps of the blobs over its own restarts, beside the pieces that its endpoint serves."""

    def __init__(self, blobs: int) -> None:
        # Pieces (masks) whose hash the supernode signed, and whether the blob's own digest passed.
        self.hashed = [0] * blobs
        self.complete = [False] * blobs


class Peer:
    """See the module."""

    def __init__(
        self,
        environment: Environment,
        machine: Machine[contract.Event, contract.Command],
        endpoint: Endpoint,
        store: Store,
        client: PeerClient,
        send: Callable[[int, list[Message]], None],
    ) -> None:
        self.node = endpoint.number
        self._environment = environment
        self._send_frame = send
        self._machine = machine
        self._endpoint = endpoint
        self._store = store
        self._client = client
        self._inbox: deque[contract.Event] = deque()
        self._handling = False
        self._gone = False
        self._timer: Call | None = None
        self._fetches: dict[int, Transfer] = {}
        self._upstream: dict[int, Fetch] = {}
        # Fetches of pieces that nobody vouches for.
        self._by_word: set[int] = set()
        self._blobs = environment.blobs
        # What goes to the supernode next, and when the first of it was said.
        self._frame: list[Message] = []
        self._frame_s = -1.0
        self._on_preheated: Callable[[int], None] = lambda node: None
        self._messages = MessageHandler(self, _LEASES_ALONE, self.post)
        self._methods = methods_of(self)

    def begin(self) -> None:
        """The node started: it tells what it has, once the session is open."""
        for digest, blob in self._blobs.items():
            held = self._endpoint.held[blob]
            if held:
                layout = self._environment.scenario.layout(blob)
                complete = self._store.complete[blob]
                self.post(
                    contract.BlobFound(digest, layout.size_bytes, layout.piece_size_bytes, held, complete, (SOURCE,))
                )
        self._messages.session_opened()

    def lose_supernode(self) -> None:
        """The session's connection ended."""
        if not self._gone:
            self._messages.session_lost(silent=False)

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
        scenario = self._environment.scenario
        allowed_bytes = scenario.all_blobs[blob] if scenario.origin.by_members else None
        proven = allowed_bytes is not None
        self.post(BlobWanted(blob + 1, digest_of(blob), SOURCE, allowed_bytes, proven))

    def begin_preheat(self, blob: int, on_complete: Callable[[int], None]) -> None:
        """The supernode wants it here, though no client waits. `on_complete` is told of this node once it is."""
        self._on_preheated = on_complete
        self.post(BlobWanted(blob + 1, digest_of(blob), SOURCE, background=True))

    def _pulled(self, blob: int) -> bool:
        """Whether the client is to hear of it."""
        return blob < len(self._environment.scenario.blobs)

    def read_at(self, blob: int, piece: int) -> None:
        """The client waits for this piece."""
        self.post(ReaderAt(blob + 1, piece))

    def close(self, blob: int) -> None:
        """The client has what it wants of the blob, or went away."""
        self.post(ReaderClosed(blob + 1))

    # --- the machine -------------------------------------------------------------------------------------------

    def receive(self, frame: list[Message]) -> None:
        """What the supernode said in one turn of its loop arrived."""
        if self._gone:
            return
        # As in one turn of the loop: the machine hears all of the frame before what follows from it.
        self._handling = True
        for message in frame:
            self._messages.received(message)
        self._handling = False
        self._handle_all()

    def post(self, event: contract.Event) -> None:
        """Have the machine handle it after what is being handled."""
        if not self._gone:
            self._inbox.append(event)
            self._handle_all()

    def _handle_all(self) -> None:
        if self._handling:
            return
        self._handling = True
        inbox, node, machine, now = self._inbox, self.node, self._machine, self._environment.clock.now
        methods, trace = self._methods, self._environment.trace.add
        while inbox:
            following = inbox.popleft()
            trace(now, node, following)
            for command in machine.handle(following, now):
                trace(now, node, command)
                methods[type(command)](command)
        self._handling = False
        self._set_timer()

    def _set_timer(self) -> None:
        """A timer that is due too early asks again; only a later one has to be brought forward."""
        due = self._machine.next_wakeup()
        if due is None or (self._timer is not None and self._timer.due_s <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._environment.clock.at(max(due, self._environment.clock.now + 0.001), self._wake)

    def _wake(self) -> None:
        self._timer = None
        due = self._machine.next_wakeup()
        if due is not None and due <= self._environment.clock.now:
            self.post(Wakeup())
        else:
            self._set_timer()

    # --- commands ----------------------------------------------------------------------------------------------

    def send(self, command: contract.Send) -> None:
        """All that is said at one instant goes in one frame, as in one turn of the loop."""
        message = command.message
        now = self._environment.clock.now
        if self._frame_s == now:
            self._frame.append(message)
        else:
            self._frame, self._frame_s = [message], now
            self._send_frame(self.node, self._frame)

    def open_in_store(self, command: contract.OpenInStore) -> None:
        blob, store = self._blobs[command.digest], self._store
        held = self._endpoint.held[blob]
        self.post(contract.StoreOpened(command.digest, held, store.hashed[blob], store.complete[blob]))

    def check_digest(self, command: contract.CheckDigest) -> None:
        rest_s = self._environment.scenario.layout(self._blobs[command.digest]).piece_size_bytes / _SHA256_BYTES_S
        self._environment.clock.run_after(rest_s, self.post, DigestChecked(command.check, True))

    def store_content(self, command: contract.StoreContent) -> None:
        hash_s = self._environment.settings.hash_s
        self._environment.clock.run_after(hash_s, self.post, FetchEnded(command.fetch, "", 0.0))

    def cancel_fetch(self, command: contract.CancelFetch) -> None:
        transfer = self._fetches.get(command.fetch)
        if transfer is not None:
            self._environment.transport.cancel(transfer)

    def cancel_upstream(self, command: contract.CancelUpstream) -> None:
        if command.fetch in self._upstream:
            self._upstream[command.fetch].stop()

    def answer_reader(self, command: contract.AnswerReader) -> None:
        blob = command.reader - 1
        if self._pulled(blob):
            self._client.answered(self, blob)
        else:
            self.close(blob)

    def blob_complete(self, command: contract.BlobComplete) -> None:
        blob = self._blobs[command.digest]
        self._store.complete[blob] = True
        if self._pulled(blob):
            self._client.blob_complete(self, blob)
        else:
            self._on_preheated(self.node)

    def fail_readers(self, command: contract.FailReaders) -> None:
        self._client.sent_away(self, self._blobs[command.digest], command.message)

    def refuse_reader(self, command: contract.RefuseReader) -> None:
        self._client.sent_away(self, command.reader - 1, command.message)

    def _blob(self, digest: str) -> int:
        return next(blob for known, blob in self._blobs.items() if str(known) == digest)

    def start_fetch(self, command: contract.StartFetch) -> None:
        if command.claim:
            self._by_word.add(command.fetch)
        self._fetches[command.fetch] = self._environment.transport.fetch(
            self.node,
            node_of(command.holder.peer),
            self._blobs[command.digest],
            command.piece,
            command.deadline_s,
            self._fetch_ended,
            command.fetch,
            ahead=command.ahead,
            behind=self._fetches.get(command.behind),
        )

    def _fetch_ended(self, fetch: int, reason: str, elapsed_s: float) -> None:
        transfer = self._fetches.pop(fetch)
        by_word = fetch in self._by_word
        self._by_word.discard(fetch)
        if not (reason or by_word):
            self._learn_hash(transfer.blob, transfer.piece)
        self.post(FetchEnded(fetch, reason, elapsed_s))

    def _learn_hash(self, blob: int, piece: int) -> None:
        """Where it was not known before, it came with the piece."""
        if not self._store.hashed[blob] >> piece & 1:
            self._store.hashed[blob] |= 1 << piece
            self.post(HashesLearned(digest_of(blob), 1 << piece))

    def fetch_upstream(self, command: contract.FetchUpstream) -> None:
        blob, environment = self._blobs[command.digest], self._environment

        def stored(piece: int) -> None:
            size_bytes = environment.scenario.layout(blob).length(piece)
            for checker in environment.checkers:
                checker.arrived(environment.clock.now, self.node, blob, piece, size_bytes)
            self.post(contract.UpstreamPiece(command.fetch, piece, ANY_HASH))

        def ended(reason: str) -> None:
            del self._upstream[command.fetch]
            self.post(contract.UpstreamEnded(command.fetch, reason))

        ahead = command.pieces >> command.first << command.first
        pieces = deque([*indices(ahead), *indices(command.pieces & ~ahead)])
        self._upstream[command.fetch] = environment.origin.fetch(self._endpoint, blob, pieces, stored, ended)

    def withhold(self, command: contract.Withhold) -> None:
        blob = self._blobs[command.digest]
        if self._pulled(blob):
            self._client.withhold(self, blob, command.pieces)

    def piece_held(self, command: contract.PieceHeld) -> None:
        blob = self._blobs[command.digest]
        for claimed in self._environment.on_claimed:
            claimed(self._environment.clock.now, self.node, blob, command.piece)
        if self._pulled(blob):
            self._client.piece_held(self, blob, command.piece)

    def close_in_store(self, command: contract.CloseInStore) -> None:
        """Nothing is evicted here."""

    def forget_blob(self, command: contract.ForgetBlob) -> None:
        """Nothing is kept beside the machine."""

    def source_public(self, command: contract.SourcePublic) -> None:
        """There is one source."""

    def leave_origin(self, command: contract.LeaveOrigin) -> None:
        """Nobody here asks but by the downloader."""

    def bytes_private(self, command: contract.BytesPrivate) -> None:
        """All is public."""

    def void_in_store(self, command: contract.VoidInStore) -> None:
        """No content is wrong here but on its way."""
        raise UnexpectedCommand(f"node {self.node}: {command}")

    def check_public(self, command: contract.CheckPublic) -> None:
        """Every blob is in a swarm before a session ends."""
        raise UnexpectedCommand(f"node {self.node}: {command}")

    def ask_holdings(self, command: contract.AskHoldings) -> None:
        asked, blob = self._environment.transport.endpoints[node_of(command.holder.peer)], self._blobs[command.digest]

        def answered() -> None:
            self.post(contract.HoldingsKnown(command.query, asked.held[blob] if asked.alive else None))

        self._environment.clock.after(self._environment.settings.round_trip_s, answered)

    # --- peer.node.message_handler.NodeKeeper ------------------------------------------------------------------

    def keep_ticket(self, digest: Digest, ticket: bytes) -> None:
        """Nobody asks for one."""

    def check_hashes(self, digest: Digest, layout: PieceLayout, hashes: PieceHashes) -> None:
        """All are right."""

    def learn_hashes(self, digest: Digest, signed: SignedHashes) -> bool:
        self._store.hashed[self._blobs[digest]] |= signed.pieces
        return True

    def connect_to_seed(self, seed: NodeKnown, opened: SwarmOpened) -> None:
        """What a connection costs is the transport's."""

    def suspect(self, digest: Digest, piece: int) -> None:
        """See NodeKeeper. No disk rots here."""

    def lease_granted(self) -> None:
        """The scheduler counts."""

    def preheat(self, digest: Digest, preheat: Preheat) -> None:
        """See NodeKeeper. No supernode has jobs here: begin_preheat()."""

    def keep(self, digests: frozenset[Digest]) -> None:
        """See NodeKeeper. Nothing is evicted here."""
