"""A counting HTTP proxy in front of a registry: every byte it sends is in its ledger, and it can misbehave.

It forwards requests and answers unaltered (header lines in order, bodies byte for byte) unless a fault is in
force, over one upstream connection per client connection, a thread each. Meant for tests and benchmarks on
networks of their own: it has no limits, no authentication and trusts both sides.

Bytes are sent and counted under one lock, and the end of an answer is entered together with its last byte. So the
ledger has all that any client can have received by the time it is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import select
import socket
import struct
import termios
import threading
import time
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.closing import Closing
from benchmarks.cluster.faults import NO_FAULT, Fault, FaultTable, RateLimit, alter_head, corrupted, made_answer
from benchmarks.cluster.http_messages import (
    Head,
    SocketReader,
    WireError,
    content_range_start,
    parse_range,
    request_body,
    response_body,
)
from benchmarks.cluster.ledger import Ending, Exchange, Ledger
from benchmarks.cluster.ports import ReservedPort

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

# Small enough that bytes counted as sent are soon bytes received: the ledger's error where a client is killed.
_SEND_BUFFER_BYTES: Final = 256 << 10
_CONNECT_TIMEOUT_S: Final = 60.0
_CLOSE_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.05
# Of one turn at a TLS socket: one record, for which there is room where the kernel says that there is some.
_TLS_RECORD_BYTES: Final = 16 << 10
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 seconds: close() sends RST
# States of a TCP socket whose FIN was not acknowledged yet: FIN_WAIT1, LAST_ACK, CLOSING (include/net/tcp_states.h).
_FIN_UNACKED: Final = (4, 9, 11)
_CLOSED: Final = 7

Address = tuple[str, int]


class CountingProxy(Closing):
    """The proxy, serving from construction until `close`; a context manager.

    `listen` with port 0 takes a free port; `address` is HOST:PORT as bound. `tls` makes it an https server;
    `upstream` is always spoken to in plain HTTP.
    """

    def __init__(
        self, upstream: Address, listen: Address = ("127.0.0.1", 0), tls: ssl.SSLContext | None = None
    ) -> None:
        self._upstream = upstream
        self._tls = tls
        self._faults = FaultTable()
        self._rate = RateLimit()
        # Held to send and count, to enter and to read. Nobody waits for a network while holding it.
        self.books = threading.Lock()
        self._exchanges: list[Exchange] = []
        self._numbers = itertools.count()
        self._connections: set[_Connection] = set()
        self.closing = threading.Event()
        self._port = ReservedPort(listen[0]) if listen[1] == 0 else None
        self._bound = listen if self._port is None else (self._port.host, self._port.port)
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self.accept()

    @property
    def address(self) -> str:
        """HOST:PORT where it listens."""
        return f"{self._bound[0]}:{self._bound[1]}"

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"{'https' if self._tls else 'http'}://{self.address}"

    def ledger(self) -> Ledger:
        """A copy of what has passed so far, running exchanges included: all that any client has received by now."""
        with self.books:
            return Ledger(tuple(dataclasses.replace(exchange) for exchange in self._exchanges))

    def reset(self) -> None:
        """Forget what has passed so far."""
        with self.books:
            self._exchanges.clear()

    def add_fault(self, fault: Fault) -> None:
        """Put a fault in force for requests yet to come."""
        self._faults.add(fault)

    def clear_faults(self) -> None:
        """Drop all faults; stalled answers go on."""
        self._faults.clear()

    def set_rate(self, bytes_per_s: float | None) -> None:
        """Limit the bytes per second of all answers together; None lifts the limit."""
        self._rate.set(bytes_per_s)

    def refuse(self) -> None:
        """Refuse connections from now on, and cut those that are open."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # shutdown wakes the blocked accept(); close alone would leave it waiting
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        if self._acceptor is not None:
            self._acceptor.join(_CLOSE_TIMEOUT_S)
        self.cut()

    def cut(self) -> None:
        """Cut all open connections."""
        with self.books:
            open_now = list(self._connections)
        for connection in open_now:
            connection.shutdown()
        for connection in open_now:
            connection.thread.join(_CLOSE_TIMEOUT_S)

    def accept(self) -> None:
        """Accept connections (again), on the same address."""
        if self._listener is not None:
            return
        self._listener = socket.create_server(self._bound, backlog=1024)
        self._acceptor = threading.Thread(target=self._accept_loop, args=(self._listener,), name="counting-proxy")
        self._acceptor.start()

    def close(self) -> None:
        """Stop serving, cut all connections, wait for the threads."""
        self.closing.set()
        self._faults.clear()
        self._rate.set(None)
        self.refuse()
        if self._port is not None:
            self._port.close()

    def _accept_loop(self, listener: socket.socket) -> None:
        while True:
            try:
                client, address = listener.accept()
            except OSError:
                return  # refuse() closed the listener
            connection = _Connection(self, client, f"{address[0]}:{address[1]}", self._upstream, self._tls)
            # started under the lock, so that cut() never joins a thread that has not begun
            with self.books:
                self._connections.add(connection)
                connection.thread.start()

    # What a connection needs of its proxy.

    def open_exchange(self, client: str, method: str, target: str, head: Head) -> tuple[Exchange, Fault]:
        """Enter a request in the ledger and say which fault it meets."""
        path, _, query = target.partition("?")
        asked = parse_range(head.get("Range"))
        fault = self._faults.take(method, path, ranged=asked is not None)
        with self.books:
            exchange = Exchange(
                next(self._numbers), client, method, path, query, list(head.headers), asked, time.monotonic()
            )
            exchange.faulted = fault is not NO_FAULT
            self._exchanges.append(exchange)
        return exchange, fault

    def turns(self, data: memoryview) -> Iterator[memoryview]:
        """`data` in the parts, and at the times, that the rate allows."""
        while data:
            part = data[: self._rate.turn_bytes(len(data))]
            self._rate.wait(len(part))
            yield part
            data = data[len(part) :]

    def forget(self, connection: _Connection) -> None:
        """The connection is closed."""
        with self.books:
            self._connections.discard(connection)

    def cleared(self) -> threading.Event:
        """Set when faults are next cleared."""
        return self._faults.wait_until_cleared()


class _Connection:
    """One client connection and the upstream connection that belongs to it."""

    def __init__(
        self, proxy: CountingProxy, client: socket.socket, name: str, upstream: Address, tls: ssl.SSLContext | None
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._name = name
        self._upstream_address = upstream
        self._upstream: socket.socket | None = None
        self._tls = tls
        self._writable = select.poll()
        self._shut_down = False
        self.thread = threading.Thread(target=self._run, name="counting-proxy-connection")

    def shutdown(self) -> None:
        """End both directions of both sides, from any thread; the connection's own thread then closes them."""
        self._shut_down = True
        for sock in (self._client, self._upstream):
            if sock is not None:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            with contextlib.suppress(OSError, WireError):  # either side may go at any time; the ledger has it
                self._serve()
        finally:
            self._client.close()
            if self._upstream is not None:
                self._upstream.close()
            self._proxy.forget(self)

    def _serve(self) -> None:
        """Serve requests until one side has enough."""
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            self._client = self._tls.wrap_socket(self._client, server_side=True)
        self._writable.register(self._client, select.POLLOUT)
        reader = SocketReader(self._client)
        while (head := reader.read_head()) is not None:
            method, target, _ = head.first_line.split(" ", 2)
            exchange, fault = self._proxy.open_exchange(self._name, method, target, head)
            try:
                stays_open = self._exchange(head, reader, exchange, fault)
            finally:
                self._settle(exchange)
            if not stays_open or head.wants_close():
                return

    def _exchange(self, head: Head, reader: SocketReader, exchange: Exchange, fault: Fault) -> bool:
        """Answer one request; whether the connection may serve another."""
        if head.get("Expect") is not None:
            head.remove("Expect")
            self._send(exchange, b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault.status:
            for _ in request_body(head, reader):
                pass
            answer, body = made_answer(exchange, fault)
            return self._answer(exchange, fault, answer, body)
        if fault.ignore_range:
            head.remove("Range")
        try:
            upstream = self._forward(head, request_body(head, reader))
            answer = upstream.read_head() or _raise_origin_gone()
        except (OSError, WireError):
            exchange.ending = "origin-gone"
            raise
        exchange.status = int(answer.first_line.split(" ", 2)[1])
        body = _origin_body(response_body(exchange.method, exchange.status, answer, upstream))
        bodiless = exchange.method == "HEAD" or exchange.status in (204, 304)
        framed = answer.get("Content-Length") is not None or answer.get("Transfer-Encoding") is not None
        stays_open = not answer.wants_close() and (bodiless or framed)
        return self._answer(exchange, fault, answer, body) and stays_open

    def _forward(self, head: Head, body: Iterator[bytes]) -> SocketReader:
        """Send a request on; the reader is at the head of its answer."""
        if self._upstream is None:
            self._upstream = socket.create_connection(self._upstream_address, _CONNECT_TIMEOUT_S)
            self._upstream.settimeout(None)
            self._upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._upstream.sendall(head.encode())
        chunked = head.get("Transfer-Encoding") is not None
        for part in body:
            self._upstream.sendall(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
        if chunked:
            self._upstream.sendall(b"0\r\n\r\n")
        return SocketReader(self._upstream)

    def _answer(self, exchange: Exchange, fault: Fault, answer: Head, body: Iterator[bytes]) -> bool:
        """Send head and body as the fault wants; whether the connection may serve another request."""
        exchange.offset = content_range_start(answer.get("Content-Range")) if exchange.status == 206 else 0
        size_bytes = _body_size_bytes(exchange, answer)
        chunked = alter_head(answer, fault)
        self._proxy.closing.wait(fault.head_delay_s)
        self._send(exchange, answer.encode(), ends=size_bytes == 0 and not chunked)
        if exchange.method != "HEAD" and fault.first_byte_delay_s:
            self._proxy.closing.wait(fault.first_byte_delay_s)
        try:
            complete = self._send_body(exchange, fault, body, size_bytes, chunked=chunked)
        except WireError:
            exchange.ending = "origin-gone"
            raise
        with self._proxy.books:
            exchange.ending = "complete" if complete else "cut"
        return complete and not fault.length_delta_bytes

    def _send_body(
        self, exchange: Exchange, fault: Fault, body: Iterator[bytes], size_bytes: int | None, *, chunked: bool
    ) -> bool:
        # Taken before the first byte leaves: a client may have the faults cleared as soon as it sees one.
        cleared = self._proxy.cleared()
        for part in body:
            data = memoryview(corrupted(part, exchange, fault))
            if fault.cut_after_bytes is not None:
                data = data[: fault.cut_after_bytes - exchange.body_sent_bytes]
            while data:
                allowed = len(data)
                if fault.stall_after_bytes is not None:
                    allowed = min(allowed, fault.stall_after_bytes - exchange.body_sent_bytes)
                if allowed <= 0:
                    self._stall(cleared)
                    fault = NO_FAULT
                    continue
                for turn in self._proxy.turns(data[:allowed]):
                    self._send_part(exchange, turn, size_bytes, chunked=chunked)
                data = data[allowed:]
            if fault.cut_after_bytes is not None and exchange.body_sent_bytes >= fault.cut_after_bytes:
                self._cut(reset=fault.reset)
                return False
        if chunked:
            self._send(exchange, b"0\r\n\r\n", ends=True)
        return True

    def _send_part(self, exchange: Exchange, data: memoryview, size_bytes: int | None, *, chunked: bool) -> None:
        """Send some of the body, which has `size_bytes` in all if that is known."""
        if chunked:
            self._send(exchange, b"%x\r\n" % len(data))
        ends = not chunked and exchange.body_sent_bytes + len(data) == size_bytes
        self._send(exchange, data, of_body=True, ends=ends)
        if chunked:
            self._send(exchange, b"\r\n")

    def _send(self, exchange: Exchange, data: bytes | memoryview, *, of_body: bool = False, ends: bool = False) -> None:
        """Send and count; `ends` says that the answer is complete with it."""
        rest = memoryview(data)
        while rest:
            self._writable.poll()
            with self._proxy.books:
                now_s = time.monotonic()
                sent = self._send_what_fits(rest)
                rest = rest[sent:]
                if of_body and sent:
                    exchange.first_byte_s = exchange.first_byte_s or now_s
                    exchange.body_sent_bytes += sent
                    exchange.body_acked_bytes = exchange.body_sent_bytes
                if ends and not rest:
                    exchange.ending, exchange.ended_s = "complete", now_s

    def _send_what_fits(self, data: memoryview) -> int:
        """How many bytes the kernel took without waiting for the client."""
        if self._tls is not None:
            return self._client.send(data[:_TLS_RECORD_BYTES])
        try:
            return self._client.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def _stall(self, cleared: threading.Event) -> None:
        """Send nothing until the faults are cleared; give up when the client does."""
        while not cleared.wait(_POLL_S):
            if self._client_gone():
                raise ConnectionAbortedError("the client went away from a stalled answer")

    def _client_gone(self) -> bool:
        try:
            return self._client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except ValueError:  # a TLS socket cannot peek: its client is found gone at the next send
            return False

    def _cut(self, *, reset: bool) -> None:
        """Have the connection end by FIN, or, once all that was sent has arrived, by RST."""
        if not reset:
            return
        deadline_s = time.monotonic() + _CLOSE_TIMEOUT_S
        while self._unacked_bytes() and time.monotonic() < deadline_s:
            time.sleep(0.001)
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _unacked_bytes(self) -> int:
        # The kernel counts a FIN as a byte. The state is asked first: what is acknowledged since cannot go below 0.
        state = self._client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        # A client that resets after our FIN leaves it unacknowledged for good.
        fins = state in _FIN_UNACKED or (state == _CLOSED and self._shut_down)
        packed = fcntl.ioctl(self._client.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        return max(0, int(struct.unpack("i", packed)[0]) - fins)

    def _settle(self, exchange: Exchange) -> None:
        """Close the books on an exchange; what a vanished client's kernel never acknowledged is taken off."""
        with self._proxy.books:
            exchange.ended_s = exchange.ended_s or time.monotonic()
            if exchange.ending in ("open", "origin-gone"):
                with contextlib.suppress(OSError):
                    exchange.body_acked_bytes = max(0, exchange.body_sent_bytes - self._unacked_bytes())
            if exchange.ending == "open":
                ending: Ending = "client-gone"
                exchange.ending = ending


def _body_size_bytes(exchange: Exchange, answer: Head) -> int | None:
    """How long the origin says that the body is; None where its end alone tells."""
    if exchange.method == "HEAD" or exchange.status in (204, 304):
        return 0
    length = answer.get("Content-Length")
    return None if length is None else int(length)


def _raise_origin_gone() -> Head:
    raise WireError("the origin closed the connection in place of an answer")


def _origin_body(body: Iterator[bytes]) -> Iterator[bytes]:
    """`body`, with the origin's socket errors told apart from the client's."""
    try:
        yield from body
    except OSError as error:
        raise WireError("the origin's connection broke within a body") from error
