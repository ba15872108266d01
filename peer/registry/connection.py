"""One HTTP/1.1 connection to an origin, and one response on it. Blocking.

On http.client over sockets of our own, because three things are needed together: the address that was checked
is the one connected to, another thread can end a call in any of its phases, and a body is received into the
caller's buffer with no byte lost when the connection stalls. The pool of them is origin_http's.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import logging
import re
import select
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from peer.registry.addresses import checked_addresses, is_private_literal
from peer.registry.base import CutOff
from peer.registry.sent_body import BodySender
from proto.errors import ConfigError, UpstreamError, UpstreamKind
from proto.oci.routes import HOP_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peer.registry.addresses import Endpoint, Resolver
    from peer.registry.base import OriginAnswer, SentBody
    from peer.transport.cancellation import Cancellation

logger = logging.getLogger(__name__)

# Bodies of redirects and refusals are read to keep the connection, up to here; longer ones cost a new one.
DRAIN_BYTES_MAX = 64 * 1024
LENGTH_DIGITS_MAX = 18
# How much of a server's own text goes into our errors: enough to recognise it, too little to fill a log.
REASON_LENGTH_MAX = 200


@dataclass(frozen=True, slots=True)
class OriginTimeouts:
    """`connect_s` covers TCP and, once more, TLS. `read_s` is the longest silence within a body.

    Slow is not dead: registries that scan an image before they send it take a minute for the first byte. So the head
    and the body's first byte have `first_byte_s` each. After that a body must come at `rate_min_bytes_s` over each
    FLOOR_S that are spent waiting for it.
    """

    connect_s: float = 5.0
    first_byte_s: float = 120.0
    read_s: float = 10.0
    rate_min_bytes_s: int = 1024


FLOOR_S: Final = 30.0
# How long an origin has to ask for a body that its client holds back (RFC 9110 section 10.1.1 leaves it open).
CONTINUE_S: Final = 1.0
# So long a cut of the way there is waited out: asked in vain, the origin would be given up.
WAY_DOWN_MAX_S: Final = 90.0
_LOOK_S: Final = 1.0
# A connection whose other end is gone without a word, found by the kernel: after 10 s idle, three questions 5 s apart.
_KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
# Within a body the kernel asks more often, so that a way that is down is told from an origin that stalls.
_KEEP_ALIVE_IN_BODY: Final = (
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * WAY_DOWN_MAX_S)),
)
# Of these questions so many without an answer: none comes.
_UNANSWERED_MIN: Final = 2
# SO_LINGER of no time: what is closed with it is reset.
_RESET: Final = struct.pack("ii", 1, 0)
# Where TCP_INFO tells their number (tcpi_probes).
_PROBES_AT: Final = 3
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# 103 Early Hints and the like, before the answer.
_INTERIM_MAX: Final = 16


@contextlib.contextmanager
def origin_errors(endpoint: Endpoint, cancel: Cancellation, doing: str) -> Iterator[None]:
    """Turn what sockets, TLS and http.client raise into UpstreamError (unavailable), or FetchCancelled."""
    try:
        yield
    except TimeoutError as error:
        cancel.check()
        raise UpstreamError(f"{endpoint.host}: {doing}: timed out", UpstreamKind.UNAVAILABLE) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        # ValueError: http.client reads a connection that was closed, or a header it cannot make a number of.
        cancel.check()
        # These repeat what was asked for, and a signed URL is a credential.
        text = "" if isinstance(error, http.client.InvalidURL | UnicodeError) else str(error)
        reason = (getattr(error, "strerror", None) or text or type(error).__name__)[:REASON_LENGTH_MAX]
        raise UpstreamError(f"{endpoint.host}: {doing}: {reason}", UpstreamKind.UNAVAILABLE) from error


class _Timed(io.RawIOBase):
    """A socket as http.client uses it, which does not close it. Its bytes end at `until_s`, however they trickle.

    `in_body`: silence is waited out where the way to the origin is down.
    """

    def __init__(self, sock: socket.socket, host: str) -> None:
        self._sock = sock
        self._host = host
        self.sendall = sock.sendall
        self.until_s: float | None = None
        self.in_body = False
        # Called, once, when the origin asks for the body.
        self.on_continue: Callable[[], None] | None = None
        # Seconds for which the way was waited for.
        self.down_s = 0.0

    def makefile(self, mode: str) -> io.BufferedReader:
        """What http.client calls, once a response."""
        return io.BufferedReader(self)

    def close(self) -> None:
        """A response is over, the connection may not be."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.until_s is not None:
            left_s = self.until_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._sock.settimeout(left_s)
        try:
            return self._sock.recv_into(buffer)
        except TimeoutError:
            if not self.in_body or not way_is_down(self._sock):
                raise
        return self._wait_for_way(buffer)

    def _wait_for_way(self, buffer: Any) -> int:
        """The way is down since the last bytes came. Raises CutOff when it is back, TimeoutError if it stays down.

        After a long cut the origin's TCP sends again only after as long once more: a new request is sooner.
        """
        silence_s = self._sock.gettimeout() or 0.0
        began_s = time.monotonic() - silence_s
        logger.info("origin_out_of_reach host=%s silent_s=%.0f: the network is waited for", self._host, silence_s)
        self._sock.settimeout(_LOOK_S)
        try:
            while True:
                down = way_is_down(self._sock)
                with contextlib.suppress(TimeoutError):
                    return self._sock.recv_into(buffer)
                if not down:
                    raise CutOff(f"{self._host}: out of reach for {time.monotonic() - began_s:.0f} s")
                if time.monotonic() - began_s > WAY_DOWN_MAX_S:
                    raise TimeoutError
        finally:
            self.down_s += time.monotonic() - began_s
            self._sock.settimeout(silence_s)


class _Response(http.client.HTTPResponse):
    """Passes over every interim answer, as http.client does with 100 alone."""

    _interim = 0

    def __init__(self, sock: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        self._timed: _Timed = sock

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        if status == http.client.CONTINUE and self._timed.on_continue is not None:
            self._timed.on_continue()
        if 100 < status < 200 and status != http.client.SWITCHING_PROTOCOLS:
            status = http.client.CONTINUE
        self._interim += status == http.client.CONTINUE
        if self._interim > _INTERIM_MAX:
            raise http.client.HTTPException(f"more than {_INTERIM_MAX} interim answers")
        return version, status, reason


class OriginConnection:
    """One connection; between exchanges it is idle in the pool."""

    def __init__(self, endpoint: Endpoint, sock: socket.socket, timeouts: OriginTimeouts) -> None:
        self.endpoint = endpoint
        self.sock = sock
        self.timeouts = timeouts
        self.idle_since_s = 0.0
        self._http = http.client.HTTPConnection(endpoint.host, endpoint.port)
        self._http.auto_open = 0  # it must never connect by itself, to an address nobody checked
        self._http.response_class = _Response
        self._timed = _Timed(sock, endpoint.host)
        self._http.sock = self._timed
        # A proxy is sent the whole URL of a plain-http request.
        proxy = endpoint.egress_proxy if endpoint.scheme == "http" else None
        self._target_prefix = f"http://{endpoint.authority}" if proxy is not None else ""
        self._proxy_lines = _proxy_credential(proxy) if proxy is not None else []

    @classmethod
    def open(
        cls,
        endpoint: Endpoint,
        context: ssl.SSLContext | None,
        timeouts: OriginTimeouts,
        resolver: Resolver,
        cancel: Cancellation,
    ) -> OriginConnection:
        """Connect, through the egress proxy if there is one; the socket is attached to `cancel`.

        Raises UpstreamError: unavailable, or denied for an address that may not be connected to.
        """
        if endpoint.egress_proxy is not None:
            sock = _connect_through(endpoint.egress_proxy, endpoint, timeouts, resolver, cancel)
        else:
            addresses = checked_addresses(endpoint, resolver)
            with origin_errors(endpoint, cancel, "connecting"):
                sock = connect(addresses, endpoint.port, timeouts.connect_s, cancel)
        try:
            if context is not None:
                sock = _start_tls(sock, context, endpoint, timeouts, cancel)
        except BaseException:
            cancel.detach(sock)
            sock.close()
            raise
        return cls(endpoint, sock, timeouts)

    def send(
        self, method: str, target: str, headers: list[tuple[str, str]], body: SentBody | None = None
    ) -> http.client.HTTPResponse:
        """Send a request and read the head of its response. Raises what http.client and the body raise."""
        # The target goes out byte for byte: a signature may cover it.
        self._http.putrequest(method, self._target_prefix + target, skip_host=True, skip_accept_encoding=True)
        self._http.putheader("Host", self.endpoint.authority)
        for name, value in [*self._proxy_lines, *headers]:
            self._http.putheader(name, value)
        self._timed.in_body = False
        set_options(self.sock, _KEEP_ALIVE)
        self.sock.settimeout(self.timeouts.read_s)
        self._http.endheaders()
        response = self._answer(self.timeouts.first_byte_s) if body is None else self._answer_to(body)
        if not 200 <= response.status <= 599:
            raise http.client.BadStatusLine(f"{response.status}")
        self._timed.until_s = None
        self.sock.settimeout(self.timeouts.first_byte_s)
        return response

    def _answer(self, within_s: float) -> http.client.HTTPResponse:
        self._timed.until_s = time.monotonic() + within_s
        return self._http.getresponse()

    def _answer_to(self, body: SentBody) -> http.client.HTTPResponse:
        """Send the body and read the head of what is answered. An origin that answers before is not sent the rest."""
        sender = BodySender(self.sock, body)
        response = self._when_asked(sender) if body.expects_continue else None
        if response is None:
            response = self._unasked(sender)
        if not sender.ended:
            response.will_close = True
        return response

    def _when_asked(self, sender: BodySender) -> http.client.HTTPResponse | None:
        """Where the client expects to be asked for the body, so does the origin. None where that says nothing."""

        def asked() -> None:
            self._timed.on_continue = self._timed.until_s = None
            sender.send()
            self._timed.until_s = time.monotonic() + self.timeouts.first_byte_s

        self._timed.on_continue = asked
        try:
            return self._answer(CONTINUE_S)
        except TimeoutError:
            if sender.begun:
                raise
            return None
        finally:
            self._timed.on_continue = None

    def _unasked(self, sender: BodySender) -> http.client.HTTPResponse:
        try:
            sender.send()
        except ConnectionError as error:
            return self._early_answer(error)
        return self._answer(self.timeouts.first_byte_s)

    def _early_answer(self, error: ConnectionError) -> http.client.HTTPResponse:
        """What an origin said that then took no more. Raises the error where it said nothing."""
        try:
            return self._answer(CONTINUE_S)
        except (OSError, http.client.HTTPException):
            raise error from None

    def body_began(self) -> None:
        """From now on silence of `read_s` ends it, but where the way to the origin is down."""
        self._timed.in_body = True
        set_options(self.sock, _KEEP_ALIVE_IN_BODY)
        self.sock.settimeout(self.timeouts.read_s)

    def take_down_s(self) -> float:
        """For how long the way was down since this was last asked, as far as anything was waited for."""
        down_s, self._timed.down_s = self._timed.down_s, 0.0
        return down_s

    def is_dropped(self) -> bool:
        """Whether the server closed it while idle, or sent what nobody asked for."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close the socket."""
        self._http.close()
        self.sock.close()

    def abort(self) -> None:
        """Close it in the middle of an answer: the origin is told at once, and sends no more of it."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()


class Exchange:
    """One response whose body is being read. Used by one thread."""

    def __init__(
        self,
        connection: OriginConnection,
        response: http.client.HTTPResponse,
        cancel: Cancellation,
        give_back: Callable[[OriginConnection], None],
        *,
        head: bool,
    ) -> None:
        # Whether it answers a HEAD, and so has no words of its own.
        self.head = head
        self.status = response.status
        self.reason = _one_line(response.reason)
        self.endpoint = connection.endpoint
        self._connection = connection
        self._response = response
        self._cancel = cancel
        self._give_back = give_back
        # The first redirect that led here.
        self.redirect: OriginAnswer | None = None
        self._chunked = bool(response.chunked)
        # None: the body ends with its last chunk, or with the connection.
        self._remaining = response.length
        self._finished = self._remaining == 0
        self._closed = False
        # Since when it is looked whether the body comes at its least rate: bytes, and seconds of waiting for them.
        self._floor_bytes, self._floor_waited_s = 0, 0.0
        self._began = False
        # Whether bytes may wait in the response's own buffer.
        self._buffered = True

    @property
    def content_length(self) -> int | None:
        """The announced length of the body; of a HEAD's answer, that of the body a GET would have."""
        text = self._response.getheader("Content-Length", "")
        # No blob has more digits, and Python refuses to read very many.
        is_length = text.isascii() and text.isdigit() and len(text) <= LENGTH_DIGITS_MAX
        return int(text) if is_length and not self._chunked else None

    def header(self, name: str) -> str | None:
        """One header's value; several of the name are joined by commas."""
        return self._response.getheader(name)

    def headers(self, name: str) -> list[str]:
        """All lines of that name."""
        return self._response.headers.get_all(name, [])

    @property
    def lines(self) -> list[tuple[str, str]]:
        """All header lines in their order that make sense, read as UTF-8 where http.client reads Latin-1.

        Without the length, which is told anew of a body; of a HEAD's answer as far as it is one.
        """
        lines = [
            (name, _one_line(value).encode("latin-1").decode("utf-8", "surrogateescape"))
            for name, value in self._response.headers.items()
            if _HEADER_NAME.fullmatch(name) and name.lower() != "content-length"
        ]
        if self.head and self.content_length is not None:
            lines.append(("Content-Length", str(self.content_length)))
        return lines

    def readinto(self, view: memoryview) -> int:
        """Receive what is there, at least one byte; 0 at the end of the body.

        Raises UpstreamError (unavailable) for silence, a cut, or a body shorter than announced: what came before
        has been returned. Raises FetchCancelled.
        """
        if self._finished or self._closed or not len(view):
            return 0
        self._cancel.check()
        with origin_errors(self.endpoint, self._cancel, "receiving"):
            self._check_rate()
            asked_s = time.monotonic()
            count = self._receive(view)
            self._floor_waited_s += time.monotonic() - asked_s - self._connection.take_down_s()
            self._floor_bytes += count
        if not self._began:
            self._began, self._floor_waited_s = True, 0.0
            self._connection.body_began()
        if count == 0:
            self._finished = True
            if self._remaining:
                self._cancel.check()
                raise UpstreamError(
                    f"{self.endpoint.host}: connection ended {self._remaining} bytes early",
                    UpstreamKind.UNAVAILABLE,
                )
        elif self._remaining is not None:
            self._remaining -= count
            self._finished = self._remaining == 0
        return count

    def _check_rate(self) -> None:
        if self._floor_waited_s < FLOOR_S:
            return
        rate = self._floor_bytes / self._floor_waited_s
        self._floor_bytes, self._floor_waited_s = 0, 0.0
        if rate < self._connection.timeouts.rate_min_bytes_s:
            raise OSError(f"{rate:.0f} bytes a second are fewer than origin_rate_min")

    def _receive(self, view: memoryview) -> int:
        if self._chunked:
            received = self._response.read1(len(view))
            view[: len(received)] = received
            return len(received)
        if self._remaining is not None:
            view = view[: self._remaining]
        # What came with the head waits in a buffer, and readinto1 into a larger view would copy it and then wait for
        # more: until that buffer is known to be empty, take no more at a time than it holds.
        if self._buffered:
            view = view[: io.DEFAULT_BUFFER_SIZE]
        self._buffered = len(view) < io.DEFAULT_BUFFER_SIZE
        # Not the response's own readinto: that fills the whole view, and what it had is lost on a timeout.
        return self._response.fp.readinto1(view)

    def read_all(self, limit_bytes: int) -> bytes:
        """The whole body. Raises UpstreamError (content) where it is longer than the limit."""
        body, view = bytearray(), memoryview(bytearray(DRAIN_BYTES_MAX))
        while count := self.readinto(view):
            body += view[:count]
            if len(body) > limit_bytes:
                raise UpstreamError(
                    f"{self.endpoint.host}: sent more than {limit_bytes} bytes where less was due", UpstreamKind.CONTENT
                )
        return bytes(body)

    def drain(self) -> bytes:
        """The whole of a short body, so that the connection can be used again; then close. Empty for a longer one."""
        body = b""
        self._began = True  # the head is there: no more is to be waited for than within a body
        self._connection.sock.settimeout(self._connection.timeouts.read_s)
        if not self._finished and (self._remaining or 0) <= DRAIN_BYTES_MAX:
            with contextlib.suppress(UpstreamError):
                body = self.read_all(DRAIN_BYTES_MAX)
        self.close()
        return body

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        keep = self._finished and not self._remaining and not self._response.will_close
        self._cancel.detach(self._connection.sock)
        self._response.close()
        if keep and not self._cancel.cancelled:
            self._give_back(self._connection)
        else:
            self._connection.abort()


def way_is_down(sock: socket.socket) -> bool:
    """Whether the kernel asks the other end for a sign of life, and gets none (tcp(7), TCP_INFO)."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _PROBES_AT + 1)[_PROBES_AT] >= _UNANSWERED_MIN


def set_options(sock: socket.socket, options: tuple[tuple[int, int, int], ...]) -> None:
    """Raises OSError."""
    for level, option, value in options:
        sock.setsockopt(level, option, value)


def _one_line(text: str) -> str:
    """Folded lines are joined; what no header may have is left out."""
    return "".join(
        char for char in " ".join(re.split("[\r\n]+", text)) if char == "\t" or (char >= " " and char != "\x7f")
    )


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """The system's authorities, and the operator's CA and client certificate. Raises ConfigError."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    # As Go does, by which clients reach these registries directly.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        if endpoint.ca_file is not None:
            context.load_verify_locations(endpoint.ca_file)
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate alone will do, too
        if endpoint.client_cert is not None:
            context.load_cert_chain(endpoint.client_cert, endpoint.client_key)
    except OSError as error:
        raise ConfigError(
            f"upstream {endpoint.host}: ca_file, client_cert or client_key cannot be used: {error}"
        ) from error
    return context


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name, in the order of the system. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def connect(addresses: list[str], port: int, timeout_s: float, cancel: Cancellation) -> socket.socket:
    """Connect to the first of these addresses that answers; each gets its share of the timeout. Raises OSError.

    The socket is attached to `cancel`.
    """
    failure = OSError("no address")
    for address in addresses:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            cancel.attach(sock)
            sock.settimeout(timeout_s / len(addresses))
            sock.connect((address, port))
        except OSError as error:
            cancel.detach(sock)
            sock.close()
            cancel.check()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


def _start_tls(
    sock: socket.socket,
    context: ssl.SSLContext,
    endpoint: Endpoint,
    timeouts: OriginTimeouts,
    cancel: Cancellation,
) -> socket.socket:
    with origin_errors(endpoint, cancel, "TLS"):
        sock.settimeout(timeouts.connect_s)
        secured = context.wrap_socket(sock, server_hostname=endpoint.host, do_handshake_on_connect=False)
        # wrap_socket moved the descriptor into a new object: the one to shut down from now on.
        cancel.detach(sock)
        try:
            cancel.attach(secured)
            secured.do_handshake()
        except BaseException:
            cancel.detach(secured)
            secured.close()
            raise
    return secured


def _connect_through(
    proxy_url: str, endpoint: Endpoint, timeouts: OriginTimeouts, resolver: Resolver, cancel: Cancellation
) -> socket.socket:
    """A connection to the proxy; for https a tunnel through it. The proxy resolves the name, so only a literal address
    can be checked here."""
    proxy = urlsplit(proxy_url)
    host, port = proxy.hostname or "", proxy.port or 3128
    if not endpoint.trusted and is_private_literal(endpoint.host):
        raise UpstreamError(f"{endpoint.host} is no public address: not followed", UpstreamKind.DENIED)
    with origin_errors(endpoint, cancel, f"connecting to egress proxy {host}:{port}"):
        sock = connect(resolver(host, port), port, timeouts.connect_s, cancel)
        if endpoint.scheme == "http":
            return sock
        try:
            sock.sendall(_connect_request(endpoint, proxy_url))
            response = http.client.HTTPResponse(sock, method="CONNECT")
            response.begin()
            response.close()
            if response.status != 200:
                raise OSError(f"CONNECT answered {response.status}")
        except BaseException:
            cancel.detach(sock)
            sock.close()
            raise
    return sock


def _proxy_credential(proxy_url: str) -> list[tuple[str, str]]:
    """The header line with the user and password of a proxy's URL, where it has them."""
    proxy = urlsplit(proxy_url)
    if proxy.username is None:
        return []
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return [("Proxy-Authorization", f"Basic {base64.b64encode(pair).decode()}")]


def _connect_request(endpoint: Endpoint, proxy_url: str) -> bytes:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    lines = [f"CONNECT {host}:{endpoint.port} HTTP/1.1", f"Host: {host}:{endpoint.port}", f"{HOP_HEADER}: 1"]
    lines += [f"{name}: {value}" for name, value in _proxy_credential(proxy_url)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
