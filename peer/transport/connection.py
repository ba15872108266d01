"""One keep-alive connection to a peer's upload server: connect, nonce, request, head. Blocking, one thread at a time.

Only shut_down() may come from another thread. Which connection, which piece, what an end means: client.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final

from peer.transport.member_tls import member_of
from peer.transport.sockets import set_send_timeout, set_urgent, set_wake_threshold, shut_down
from peer.transport.wire import HEAD_BYTES_MAX, HEAD_END, Answer, format_request, nonce_path, parse_answer
from proto.bounded_dict import BoundedDict
from proto.config.values import parse_numeric
from proto.errors import FrameInvalid
from proto.ids import peer_name
from proto.wire.tickets import NONCE_BYTES, prove_connection

if TYPE_CHECKING:
    from peer.transport.member_tls import MemberTls
    from proto.ids import PeerName
    from proto.wire.tickets import Identity

_PROOFS_MAX: Final = 64
# Packet by packet a thread would wake 177 times for a piece of 256 KiB. The kernel makes its buffer twice as large as
# this, so that the sender's window stays open meanwhile, and wakes the thread sooner where it does not.
_WAKE_BYTES_MIN: Final = 64 * 1024
# A TLS record with its head and tag is no longer. What has come of one is out of the kernel's sight.
_TLS_RECORD_BYTES_MAX: Final = 17 * 1024
# A limit for poll(2), above every other here.
_SILENCE_MAX_S: Final = 3600.0


class ConnectionLost(Exception):
    """The remote closed, reset or could not be reached. `early`: before a byte of the answer came."""

    def __init__(self, *, early: bool) -> None:
        super().__init__("connection lost")
        self.early = early


class AnswerLate(Exception):
    """The remote let a time limit pass."""


class HttpConnection:
    """Not connected until open()."""

    def __init__(self, address: str, identity: Identity, connect_timeout_s: float) -> None:
        self.address = address
        self.encrypted = False
        self._connect_timeout_s = connect_timeout_s
        self.used = False
        self.idle_since_s = 0.0
        self._identity = identity
        self._nonce = b""
        self._proofs: BoundedDict[tuple[PeerName, bytes], bytes] = BoundedDict(_PROOFS_MAX)
        self._sock: socket.socket | None = None
        self._poller = select.poll()
        self._wake_bytes = 1
        self._stopped = False

    def open(self, buffer: memoryview) -> None:
        """Connect and fetch the nonce, one round trip each. Raises ConnectionLost, AnswerLate, FrameInvalid.

        Only to a numeric address: a name server that does not answer would hold this thread.
        """
        try:
            where = parse_numeric(self.address)
        except ValueError as error:
            raise FrameInvalid(f"address {self.address!r}: {error}") from None
        try:
            self._sock = socket.socket(socket.AF_INET6 if ":" in where.host else socket.AF_INET)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Requests would else wait behind the pieces that this node sends, and acknowledgements, too.
            set_urgent(self._sock)
            set_send_timeout(self._sock, self._connect_timeout_s)
            if self._stopped:
                raise ConnectionLost(early=True)
            self._sock.connect((where.host, where.port))
            self._begin()
            self._poller.register(self._sock.fileno(), select.POLLIN)
        except OSError:
            raise ConnectionLost(early=True) from None
        self._send(format_request(nonce_path(), self.address))
        self._nonce = self._read_nonce(buffer)

    def introduce(self, server: PeerName, ticket: bytes, buffer: memoryview) -> None:
        """Say whose connection it is, before something is asked for with this ticket.

        Raises ConnectionLost, AnswerLate, FrameInvalid.
        """
        self.request(nonce_path(), server, ticket)
        self._read_nonce(buffer)

    def request(
        self, path: str, server: PeerName, ticket: bytes, *, ahead: bool = False, hash_wanted: bool = False
    ) -> None:
        """Send a request with the ticket, which only this server can use. Raises ConnectionLost, FrameInvalid.

        `ahead`: another transfer of the peer comes first.
        `hash_wanted`: the piece's signed hash is to come with it.
        """
        self._check_server(server)
        proof = self._proofs.get((server, ticket))
        if proof is None:
            proof = prove_connection(self._identity, server, self._nonce, ticket)
            self._proofs[server, ticket] = proof
        self._send(format_request(path, self.address, ticket, proof, ahead=ahead, hash_wanted=hash_wanted))

    def read_head(self, buffer: memoryview, timeout_s: float) -> tuple[Answer, memoryview]:
        """The answer's head, and what came of its body with it (a part of `buffer`).

        Raises ConnectionLost, AnswerLate, FrameInvalid.
        """
        give_up_s = time.monotonic() + timeout_s
        filled = 0
        while True:
            # No more than a head, so that the body comes to where its reader wants it.
            count = self._receive(buffer[filled:HEAD_BYTES_MAX], give_up_s, 1, early=not filled)
            filled += count
            end = bytes(buffer[:filled]).find(HEAD_END)
            if end >= 0:
                return parse_answer(bytes(buffer[:end])), buffer[end + len(HEAD_END) : filled]
            if filled >= HEAD_BYTES_MAX:
                raise FrameInvalid(f"{self.address}: the head of its answer is too large")

    def read_body(self, view: memoryview, give_up_s: float) -> int:
        """Some of the body into the view, which is no longer than what is still to come of it; at least 1 byte.

        This thread is woken for half of what the view takes, within limits. Raises ConnectionLost, AnswerLate.
        """
        size = len(view)
        wake_bytes = min(size, max(_WAKE_BYTES_MIN, size // 2))
        return self._receive(view, give_up_s, wake_bytes, early=False)

    def shut_down(self) -> None:
        """Wake the thread that is blocked in here; from any thread."""
        self._stopped = True
        if self._sock is not None:
            shut_down(self._sock)

    def close(self) -> None:
        """Idempotent."""
        if self._sock is not None:
            self._sock.close()

    def _read_nonce(self, buffer: memoryview) -> bytes:
        answer, rest = self.read_head(buffer, self._connect_timeout_s)
        if answer.status != 204 or len(answer.nonce) != NONCE_BYTES or len(rest):
            raise FrameInvalid(f"{self.address} gave no nonce")
        return answer.nonce

    def _begin(self) -> None:
        """It is connected. Raises OSError."""

    def _check_server(self, server: PeerName) -> None:
        """Raises FrameInvalid where somebody else is here. Plain, nobody knows: the proof is good at that one alone."""

    def _send(self, data: bytes) -> None:
        assert self._sock is not None
        try:
            self._sock.sendall(data)
        except OSError:
            raise ConnectionLost(early=True) from None

    def _receive(self, view: memoryview, give_up_s: float, wake_bytes: int, *, early: bool) -> int:
        """What is there once so many bytes are, which must be on their way. At least 1."""
        while True:
            try:
                self._wait(wake_bytes, give_up_s)
                count = self._take(view)
            except BlockingIOError:
                continue
            except OSError:
                raise ConnectionLost(early=early) from None
            if not count:
                raise ConnectionLost(early=early)
            return count

    def _wait(self, wake_bytes: int, give_up_s: float) -> None:
        """Until so many bytes are there, no more fit, or none will come. Raises AnswerLate, OSError."""
        assert self._sock is not None
        wait_s = give_up_s - time.monotonic()
        if wake_bytes != self._wake_bytes:
            set_wake_threshold(self._sock, wake_bytes)
            self._wake_bytes = wake_bytes
        if wait_s <= 0 or not self._poller.poll(min(wait_s, _SILENCE_MAX_S) * 1000):
            raise AnswerLate

    def _take(self, view: memoryview) -> int:
        """What is there; 0 at the end. Raises BlockingIOError where nothing is, OSError."""
        assert self._sock is not None
        return self._sock.recv_into(view, 0, socket.MSG_DONTWAIT)


class TlsConnection(HttpConnection):
    """The same by TLS between members. Nothing in it waits but the handshake and what is sent, by Python's time-out."""

    _sock: ssl.SSLSocket

    def __init__(self, address: str, identity: Identity, connect_timeout_s: float, tls: MemberTls) -> None:
        super().__init__(address, identity, connect_timeout_s)
        self.encrypted = True
        self._tls = tls
        self._server: PeerName | None = None

    def _begin(self) -> None:
        context = self._tls.client
        if context is None:
            raise ConnectionError("this node has no certificate")
        self._sock.settimeout(self._connect_timeout_s)
        self._sock = context.wrap_socket(self._sock)
        member = member_of(self._sock)
        if self._stopped or member is None:
            raise ConnectionError("stopped, or the certificate is no node's")
        self._server = peer_name(member)
        self._sock.settimeout(0)

    def _check_server(self, server: PeerName) -> None:
        if self._server != server:
            raise FrameInvalid(f"{self.address} is another node than the one that is asked")

    def _send(self, data: bytes) -> None:
        self._sock.settimeout(self._connect_timeout_s)
        super()._send(data)
        self._sock.settimeout(0)

    def _wait(self, wake_bytes: int, give_up_s: float) -> None:
        if not self._sock.pending():
            super()._wait(max(1, wake_bytes - _TLS_RECORD_BYTES_MAX), give_up_s)

    def _take(self, view: memoryview) -> int:
        """Record by record: TLS gives no more at a time."""
        filled = 0
        try:
            while filled < len(view):
                count = self._sock.recv_into(view[filled:])
                if not count:
                    break
                filled += count
        except ssl.SSLWantReadError:
            if not filled:
                raise BlockingIOError from None
        return filled
