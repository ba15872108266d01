"""The forward proxy: CONNECT and requests with a whole URL, on the mirror's own port.

A tunnel to a registry of the allow-list ends here (peer.proxy.interception), and what is asked in it is the mirror's
to answer, as is a whole URL of such a registry. Other tunnels go on unread. Who gets what is the word of
peer.proxy.forward_policy. A refusal is one line in the log: who, to where, why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from peer.proxy.forward_policy import ForwardRefused, Intercepted, Tunnelled, registry_of
from peer.proxy.heads import refused
from peer.proxy.interception import Interception
from peer.proxy.named_upstream import NAMED, Misdirected, NamedUpstream, check_inside, split_absolute
from peer.proxy.runner import is_own_name
from peer.proxy.tunnel import send_all
from peer.registry.tunnel_ends import TunnelLoop, open_tunnel_end
from peer.transport.cancellation import FetchCancelled
from proto.errors import LayercastError, UpstreamError, UpstreamKind
from proto.oci.registry_errors import Refusal
from proto.oci.routes import HOP_HEADER
from proto.runtime.http_server import QuietProtocol
from proto.runtime.logs import LogLimit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Future

    from aiohttp.typedefs import Middleware

    from peer.metrics import Metrics
    from peer.proxy.forward_policy import ForwardPolicy
    from peer.proxy.node_authority import NodeAuthority
    from peer.proxy.tunnel import Tunnels
    from proto.oci.upstreams import UpstreamTable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
    TunnelEnd = Callable[..., socket.socket]

logger = logging.getLogger(__name__)

_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
_ANSWER_S: Final = 10.0


@dataclass(slots=True)
class ForwardParts:
    """What the forward proxy needs. `policy` may be replaced while it runs; `own_ports` are where this node listens."""

    policy: ForwardPolicy
    upstreams: Callable[[], UpstreamTable]
    authority: NodeAuthority
    tunnels: Tunnels
    metrics: Metrics
    own_ports: frozenset[int]
    names: tuple[str, ...] = ()
    open_end: TunnelEnd = open_tunnel_end


class ForwardProxy:
    """One a mirror, before whose routes it stands as a middleware; `answer` is how the mirror answers a request."""

    def __init__(self, parts: ForwardParts, answer: Handler) -> None:
        self._parts = parts
        self._answer = answer
        self._interception = Interception(parts.authority, parts.tunnels)
        self._log_limit = LogLimit()

    def join(self, app: web.Application) -> None:
        """The application of the mirror, whose first middleware this becomes, and whose end it keeps to."""
        app.middlewares.insert(0, self._middleware())
        app.on_shutdown.append(lambda _: self._interception.give_no_more())
        app.on_cleanup.append(lambda _: self._interception.close())

    def _middleware(self) -> Middleware:
        @web.middleware
        async def forward(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await self._forward(request, handler)
            except (ForwardRefused, Misdirected, TunnelLoop, UpstreamError) as error:
                return self._refused(request, error)

        return forward

    async def _forward(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Raises ForwardRefused, Misdirected, TunnelLoop, and UpstreamError of a tunnel's end."""
        protocol = request.protocol
        inside = protocol.authority if isinstance(protocol, QuietProtocol) else None
        if request.method == "CONNECT":
            if inside is not None:  # it would count for no client
                raise Misdirected(f"this connection is for {inside}, and no proxy")
            return await self._connect(request)
        absolute = split_absolute(request.raw_path)
        if inside is not None:
            check_inside(absolute[0] if absolute is not None else request.headers.get("Host"), inside)
            target = absolute[1] if absolute is not None else request.raw_path
            authority = inside
        elif absolute is not None and not self._is_ours(request, absolute[0]):
            authority, target = absolute
        else:
            return await handler(request)
        upstream = self._parts.policy.absolute(authority, self._parts.upstreams())
        request[NAMED] = NamedUpstream(upstream, target)
        return await self._answer(request)

    def _is_ours(self, request: web.Request, authority: str) -> bool:
        """Whether a whole URL is one of the mirror itself, as some clients write them."""
        names = [name for name in self._parts.names if name != "*"]
        return is_own_name(request, authority, names) and registry_of(authority, self._parts.upstreams()) is None

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        parts = self._parts
        if HOP_HEADER in request.headers:
            raise TunnelLoop("this tunnel came through Layercast already: an egress proxy leads back to it")
        decided = parts.policy.connect(request.raw_path, parts.upstreams())
        remote = request.remote or ""
        if not parts.tunnels.admit(remote):
            raise ForwardRefused("too many tunnels are open", 503)
        with contextlib.ExitStack() as given_back:
            given_back.callback(parts.tunnels.release, remote)
            if isinstance(decided, Tunnelled):
                server = await self._far_end(decided)
                given_back.callback(server.close)
                work = self._tunnel_work(server)
            else:
                work = self._interception_work(request, decided)
            client, early = _take_socket(request)
            given_back.callback(client.close)
            carrying = parts.tunnels.threads.submit(_carry, work, client, early)
            afterwards = given_back.pop_all()
        # Also where all tunnels end before this one begins.
        carrying.add_done_callback(lambda carried: _end(carried, afterwards))
        parts.metrics.connects.labels("tunnelled" if isinstance(decided, Tunnelled) else "intercepted").inc()
        # To nobody: the connection is the tunnel's now.
        return web.Response()

    async def _far_end(self, decided: Tunnelled) -> socket.socket:
        """Raises UpstreamError, TunnelLoop and FetchCancelled."""
        parts = self._parts
        opening = parts.tunnels.threads.submit(
            parts.open_end,
            decided.host,
            decided.port,
            trusted=decided.trusted,
            own_ports=parts.own_ports,
            cancel=parts.tunnels.cancel,
        )
        try:
            return await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_late)
            raise

    def _tunnel_work(self, server: socket.socket) -> Callable[[socket.socket, bytes], None]:
        def carry(client: socket.socket, early: bytes) -> None:
            send_all(server, early, _ANSWER_S)
            self._parts.tunnels.carry(client, server)

        return carry

    def _interception_work(self, request: web.Request, decided: Intercepted) -> Callable[[socket.socket, bytes], None]:
        protocol, loop, remote = request.protocol, asyncio.get_running_loop(), request.remote
        assert isinstance(protocol, QuietProtocol)

        def carry(client: socket.socket, early: bytes) -> None:
            if early:  # no client of a registry does so; its first bytes would be missing from the handshake
                raise OSError("the client did not wait for its tunnel")
            self._interception.carry(client, decided, lambda: protocol.beside(decided.authority, remote), loop)

        def told(client: socket.socket, early: bytes) -> None:
            try:
                carry(client, early)
            except OSError as error:
                self._log_limit.log(
                    logger,
                    logging.INFO,
                    "interception_failed client=%s host=%s reason=%s: does the client have this node's %s?",
                    remote,
                    decided.authority,
                    getattr(error, "reason", None) or error,
                    self._parts.authority.certificate_file.name,
                )

        return told

    def _refused(self, request: web.Request, error: LayercastError) -> web.Response:
        status, protocol = _status(error), request.protocol
        inside = protocol.client if isinstance(protocol, QuietProtocol) else None
        target = request.raw_path if request.method == "CONNECT" else (split_absolute(request.raw_path) or ("",))[0]
        self._parts.metrics.connects.labels("refused").inc()
        self._log_limit.log(
            logger,
            logging.INFO,
            "forward_refused client=%s method=%s host=%s status=%d reason=%s",
            inside or request.remote,
            request.method,
            _loggable(target or request.headers.get("Host", "")),
            status,
            error,
        )
        code = "UNAVAILABLE" if status in (502, 503) else "DENIED" if status == 403 else "UNSUPPORTED"
        response = refused(Refusal(status, code, str(error)))
        # Whatever follows is for another host, or was sent by a client that took it for a tunnel.
        response.force_close()
        return response


def _carry(work: Callable[[socket.socket, bytes], None], client: socket.socket, early: bytes) -> None:
    """In a thread, to the tunnel's end."""
    with contextlib.suppress(OSError, FetchCancelled):
        send_all(client, _ESTABLISHED, _ANSWER_S)
        work(client, early)


def _end(carried: Future[None], given_back: contextlib.ExitStack) -> None:
    """A tunnel has ended, or never began: what it had is closed."""
    given_back.close()
    if not carried.cancelled() and carried.exception() is not None:
        logger.error("tunnel_failed", exc_info=carried.exception())


def _close_late(opening: Future[socket.socket]) -> None:
    """Nobody waits for this connection any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _loggable(authority: str) -> str:
    """A client's word as the log may have it: one line, and no user and password."""
    return ascii(authority.rpartition("@")[2])[1:-1][:100]


def _status(error: LayercastError) -> int:
    if isinstance(error, ForwardRefused):
        return error.status
    if isinstance(error, Misdirected):
        return 421
    if isinstance(error, TunnelLoop):
        return 508
    return 403 if isinstance(error, UpstreamError) and error.kind is UpstreamKind.DENIED else 502


class _Early:
    """Keeps what came after the head of a CONNECT; the web server feeds it."""

    def __init__(self) -> None:
        self.content = b""

    def feed_data(self, content: bytes) -> tuple[bool, bytes]:
        self.content += content
        return False, b""

    def feed_eof(self) -> None:
        """The client has gone; its socket says so again."""


def _take_socket(request: web.Request) -> tuple[socket.socket, bytes]:
    """The connection from the web server, which then has none: a socket, non-blocking, and what was read already.

    Raises ConnectionError.
    """
    transport, early = request.transport, _Early()
    original = transport.get_extra_info("socket") if transport is not None else None
    if transport is None or original is None or transport.is_closing():
        raise ConnectionResetError("the client hung up before its tunnel")
    request.protocol.set_parser(early)  # type: ignore[arg-type]  # what it calls of a WebSocketReader, this has
    transport.pause_reading()
    taken = socket.socket(original.family, original.type, original.proto, fileno=os.dup(original.fileno()))
    taken.settimeout(0)
    transport.abort()
    return taken, early.content
