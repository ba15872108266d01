"""Answering one request for pieces, bitfield or hashes: ticket, look-up, bytes. Which request and when: server."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from peer.transport.open_handles import OpenHandles
from peer.transport.wire import (
    ANSWER_BYTES_MAX,
    RUN_WITH_PIECE_MAX,
    Asked,
    Request,
    encode_bitfield,
    encode_hashes,
    format_answer,
    format_refusal,
)
from proto.bounded_dict import BoundedDict
from proto.errors import LocalError, TicketInvalid
from proto.pieces import MIB
from proto.runtime.logs import LogLimit
from proto.wire.tickets import Ticket, check_connection, read_ticket

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from peer.store.base import BlobHandle, BlobStore, SignedHashes
    from peer.transport.channel import PlainChannel
    from peer.transport.rates import RateLimiter
    from peer.transport.upload_turns import Turn
    from proto.ids import Digest, PeerId, PeerName

# A peer downloads a few blobs at a time over one connection; the oldest checked ticket is forgotten beyond this.
_TICKETS_MAX: Final = 64
# The supernode's signatures on them, which are good on any connection: a receiver has several to us.
_SIGNED_MAX: Final = 1024
# In small steps a sender would be woken for each: the kernel may take in so much, if it has room.
_HELD_BYTES_MAX: Final = MIB
# But the next transfer is not to begin while that much is still to leave: both would share the link, and two links at
# their receivers. A transfer is over when no more than this part of it is left, within limits.
_UNSENT_PART: Final = 16
_UNSENT_BYTES_MIN: Final = 8 * 1024
_UNSENT_BYTES_MAX: Final = 128 * 1024

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Connection:
    """One connection to the upload server. Owned by the epoll thread but while it is served: then by a worker."""

    channel: PlainChannel
    # From where it comes.
    address: str
    # When the server gives up on it if it asks for nothing, monotonic seconds.
    deadline_s: float
    received: bytearray = field(default_factory=bytearray)
    nonce: bytes = b""
    tickets: BoundedDict[tuple[bytes, bytes], Ticket] = field(default_factory=lambda: BoundedDict(_TICKETS_MAX))
    # Its request that waits or is served.
    turn: Turn | None = None
    # Nothing has come yet.
    new: bool = True
    # Who proved by a ticket to be at its other end.
    peer: PeerId | None = None

    @property
    def member(self) -> PeerId | None:
        """Whose connection it is, by certificate or ticket; None for a stranger's, or while nothing was asked."""
        return self.channel.member or self.peer

    @property
    def sock(self) -> socket.socket:
        """For what is done to sockets of either kind."""
        return self.channel.sock


class UploadCounters:
    """What the upload server did since it began; safe to read and to add to from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Payload bytes of pieces.
        self.sent_bytes = 0
        # Answers with success: pieces, bitfield, hashes, nonce.
        self.served: Counter[str] = Counter()
        # Refusals: busy, no_key, ticket, plain, not_held, malformed, off, store, connections, stalled, share, gone.
        self.refused: Counter[str] = Counter()

    def add_served(self, what: str, size_bytes: int = 0) -> None:
        with self._lock:
            self.served[what] += 1
            self.sent_bytes += size_bytes

    def add_refused(self, reason: str, size_bytes: int = 0) -> None:
        """One refusal; `size_bytes` of payload may have left before."""
        with self._lock:
            self.refused[reason] += 1
            self.sent_bytes += size_bytes


class Answerer:
    """Used by all workers at once."""

    def __init__(
        self,
        store: BlobStore,
        supernode_key: Callable[[], bytes | None],
        name: PeerName,
        limiter: RateLimiter,
        counters: UploadCounters,
        sign_hash: Callable[[BlobHandle, int], SignedHashes | None] | None = None,
        clock: Callable[[], float] = time.time,
        encrypted_alone: Callable[[Digest], bool] = lambda digest: False,
    ) -> None:
        """`encrypted_alone` says which blobs travel by TLS alone: those that are private, or all. `sign_hash` gives the
        signed hash of a piece that is held; without it, as the store has it from others.

        `clock`: Unix seconds, by which tickets end.
        """
        self._clock = clock
        self._encrypted_alone = encrypted_alone
        self._sign_hash = sign_hash or (lambda handle, piece: handle.signed_run(piece, RUN_WITH_PIECE_MAX))
        self.handles: Final = OpenHandles(store)
        # The server's watching thread alone uses it.
        self._signed: BoundedDict[tuple[bytes, bytes], Ticket] = BoundedDict(_SIGNED_MAX)
        self._supernode_key = supernode_key
        self._name = name
        self._limiter = limiter
        self._counters = counters
        self._refusals = LogLimit()

    def ticket_of(self, connection: Connection, request: Request) -> Ticket | None:
        """What a request may have, checked; None while no supernode is known. Raises TicketInvalid.

        The supernode's signature once, the peer's once per connection and ticket, digest and expiry every time.
        """
        assert request.digest is not None
        key = self._supernode_key()
        if key is None:
            return None
        if not request.ticket:
            raise TicketInvalid("a ticket is needed: send Layercast-Ticket and Layercast-Proof")
        ticket = self._proven(connection, request, key)
        ticket.check(request.digest, self._clock())
        return ticket

    def introduced(self, connection: Connection, request: Request) -> None:
        """A ticket is shown before anything is asked for: it tells whose connection it is. Raises TicketInvalid."""
        key = self._supernode_key()
        if key is not None:
            self._proven(connection, request, key)

    def _proven(self, connection: Connection, request: Request, key: bytes) -> Ticket:
        ticket = connection.tickets.get((key, request.ticket))
        if ticket is None:
            if not connection.nonce:
                raise TicketInvalid("this connection has no nonce yet: ask for /v1/nonce first")
            ticket = self._signed.get((key, request.ticket))
            if ticket is None:
                ticket = self._signed[key, request.ticket] = read_ticket(request.ticket, key)
            check_connection(ticket.peer, self._name, connection.nonce, request.ticket, request.proof)
            connection.tickets[key, request.ticket] = ticket
            connection.peer = ticket.peer
        return ticket

    def may_travel(self, connection: Connection, digest: Digest, ticket: Ticket) -> bool:
        """Whether the connection is good enough for the blob: by TLS, with the certificate of whom the ticket names."""
        return connection.channel.member == ticket.peer or not self._encrypted_alone(digest)

    def answer(self, connection: Connection, request: Request) -> bool:
        """Send everything; False when the connection must end. Raises OSError when the receiver is gone."""
        assert request.digest is not None
        try:
            handle = self.handles.take(request.digest)
        except LocalError as error:
            log.error("upload_failed digest=%s error=%s", request.digest.short, error)
            return self._refuse(connection, request, 503, "store", "the store cannot be read now")
        if handle is None:
            return self._refuse(connection, request, 404, "not_held", "nothing is held of this blob")
        try:
            if request.asked is Asked.PIECES:
                return self._send_pieces(connection, request, handle)
            if request.asked is Asked.BITFIELD:
                body = encode_bitfield(handle.layout, handle.held)
            else:
                body = encode_hashes(handle.layout, handle.signed_hashes)
        finally:
            self.handles.give(handle)
        connection.channel.send(format_answer(200, len(body), keep_alive=request.keep_alive) + body)
        self._counters.add_served(request.asked.value)
        return request.keep_alive

    def log_refusal(self, reason: str, message: str) -> None:
        """Tell of nonsense and of tickets that do not hold, as far as one log bears it."""
        if reason in ("ticket", "malformed"):
            self._refusals.log(log, logging.INFO, "upload_refused reason=%s %s", reason, message)

    def _send_pieces(self, connection: Connection, request: Request, handle: BlobHandle) -> bool:
        layout, first, last = handle.layout, request.first, request.last
        wanted = ((1 << last - first + 1) - 1) << first
        if last < layout.count and not self._check_pieces(handle, wanted):
            return self._refuse(connection, request, 503, "store", "the store cannot be read now")
        if last >= layout.count or handle.held & wanted != wanted:
            return self._refuse(connection, request, 404, "not_held", f"pieces {first}-{last} are not all held")
        offset = layout.offset(first)
        size = layout.offset(last) + layout.length(last) - offset
        if size > ANSWER_BYTES_MAX:
            return self._refuse(connection, request, 400, "malformed", f"{size} bytes asked for at once")
        connection.channel.hold(min(size, _HELD_BYTES_MAX))
        signed = self._sign_hash(handle, first) if request.hash_wanted and first == last else None
        head = format_answer(200, size, hashes=signed, keep_alive=request.keep_alive)
        # One segment for the head and the first bytes of the piece.
        connection.channel.send(head, more=True)
        sent, whole = 0, False
        try:
            while sent < size:
                count = self._send_some(connection, handle.fileno(), offset + sent, size - sent)
                if not count:
                    # The blob was voided underneath: the receiver sees a short answer.
                    break
                sent += count
            if sent == size:
                unsent = min(max(size // _UNSENT_PART, _UNSENT_BYTES_MIN), _UNSENT_BYTES_MAX)
                connection.channel.await_left(unsent)
                whole = True
        finally:
            if not whole:
                self._counters.add_refused("gone", sent)
        if whole:
            self._counters.add_served("pieces", size)
        return whole and request.keep_alive

    def _check_pieces(self, handle: BlobHandle, wanted: int) -> bool:
        """What was not read for long, or not since the start, may have rotted: who sends that gets the blame."""
        unchecked = handle.unchecked(handle.check_mark(for_peer=True), wanted)
        try:
            if unchecked:
                handle.check_pieces(unchecked, "peer")
        except LocalError as error:
            log.error("upload_failed digest=%s error=%s", handle.digest.short, error)
            return False
        return True

    def _send_some(self, connection: Connection, descriptor: int, offset: int, size: int) -> int:
        if self._limiter.limited:
            size = min(size, self._limiter.chunk_bytes)
            self._limiter.take(size)
        return connection.channel.send_file(descriptor, offset, size)

    def _refuse(self, connection: Connection, request: Request, status: int, reason: str, message: str) -> bool:
        self._counters.add_refused(reason)
        self.log_refusal(reason, message)
        keep_alive = request.keep_alive and status != 400
        connection.channel.send(format_refusal(status, message, keep_alive=keep_alive))
        return keep_alive
