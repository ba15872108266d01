"""Sockets that are connected to origins: to an address that was checked, or through an egress proxy; TLS over them.

Each is attached to a Cancellation, so that another thread can end what waits on it. What sockets raise becomes
UpstreamError here, which never repeats what was asked for: a signed URL is a credential.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from peer.registry.addresses import checked_addresses, is_private_literal
from proto.errors import ConfigError, UpstreamError, UpstreamKind
from proto.oci.routes import HOP_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peer.registry.addresses import Endpoint, Resolver
    from peer.transport.cancellation import Cancellation

# How much of a server's own text goes into our errors: enough to recognise it, too little to fill a log.
REASON_LENGTH_MAX = 200
# So long a cut of the way there is waited out: asked in vain, the origin would be given up.
WAY_DOWN_MAX_S: Final = 90.0
# A connection whose other end is gone without a word, found by the kernel: after 10 s idle, three questions 5 s apart.
KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
# Within a body the kernel asks more often, so that a way that is down is told from an origin that stalls.
KEEP_ALIVE_IN_BODY: Final = (
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * WAY_DOWN_MAX_S)),
)
# Of these questions so many without an answer: none comes.
_UNANSWERED_MIN: Final = 2
# Where TCP_INFO tells their number (tcpi_probes).
_PROBES_AT: Final = 3


@dataclass(frozen=True, slots=True)
class OriginTimeouts:
    """`connect_s` covers TCP, `tls_s` its handshake. `read_s` is the longest silence within a body.

    Who answers by TCP is there: the handshake has as long as Go gives it, by which clients reach registries directly.
    Slow is not dead: registries that scan an image before they send it take a minute for the first byte. So the head
    and the body's first byte have `first_byte_s` each. After that a body must come at `rate_min_bytes_s` over each
    FLOOR_S that are spent waiting for it.
    """

    connect_s: float = 5.0
    tls_s: float = 10.0
    first_byte_s: float = 120.0
    read_s: float = 10.0
    rate_min_bytes_s: int = 1024


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


def open_socket(
    endpoint: Endpoint,
    context: ssl.SSLContext | None,
    timeouts: OriginTimeouts,
    resolver: Resolver,
    cancel: Cancellation,
) -> socket.socket:
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
        return sock if context is None else _start_tls(sock, context, endpoint, timeouts, cancel)
    except BaseException:
        cancel.detach(sock)
        sock.close()
        raise


def way_is_down(sock: socket.socket) -> bool:
    """Whether the kernel asks the other end for a sign of life, and gets none (tcp(7), TCP_INFO)."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _PROBES_AT + 1)[_PROBES_AT] >= _UNANSWERED_MIN


def set_options(sock: socket.socket, options: tuple[tuple[int, int, int], ...]) -> None:
    """Raises OSError."""
    for level, option, value in options:
        sock.setsockopt(level, option, value)


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
        sock.settimeout(timeouts.tls_s)
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


def proxy_credential(proxy_url: str) -> list[tuple[str, str]]:
    """The header line with the user and password of a proxy's URL, where it has them."""
    proxy = urlsplit(proxy_url)
    if proxy.username is None:
        return []
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return [("Proxy-Authorization", f"Basic {base64.b64encode(pair).decode()}")]


def _connect_request(endpoint: Endpoint, proxy_url: str) -> bytes:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    lines = [f"CONNECT {host}:{endpoint.port} HTTP/1.1", f"Host: {host}:{endpoint.port}", f"{HOP_HEADER}: 1"]
    lines += [f"{name}: {value}" for name, value in proxy_credential(proxy_url)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
