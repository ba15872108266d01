"""A running mirror for tests: real aiohttp server on its own event loop in a thread, and a node that is scripted.

Clients are plain sockets and http.client; origins are real servers in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, cast

import uvloop
from aiohttp import web

from benchmarks.cluster.processes import WAIT_S
from peer.metrics import Metrics
from peer.node.blobs import Allowed, BlobFailed, DigestMismatch, NotShared
from peer.permission.credentials import CredentialKeys
from peer.permission.gate import PermissionGate
from peer.permission.last_answers import LastAnswers
from peer.proxy.client_request import ProxyContext, ProxyLimits
from peer.proxy.mirror import build_app
from peer.proxy.runner import refuse_nonsense
from peer.registry.client import OriginHttp
from peer.registry.origins import Origins
from peer.registry.retry import RetrySettings
from peer.registry.sockets import OriginTimeouts
from proto.oci.routes import HEADER_LIMIT_BYTES
from proto.oci.upstreams import UpstreamConfig, UpstreamTable
from proto.pieces import PieceLayout
from proto.runtime.http_server import QuietRunner
from tests.support.http_server import HttpServer, QuietHandler

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Sequence

    from aiohttp.typedefs import Middleware
    from prometheus_client import CollectorRegistry

    from peer.proxy.forward_proxy import ForwardParts
    from peer.store.base import BlobHandle
    from proto.ids import Digest
    from proto.oci.ranges import ByteRange
    from proto.wire.messages import Source

# libuv opens one pipe a process with its first loop and keeps it: before a test looks what it leaves behind.
uvloop.new_event_loop().close()

PERMISSION_S = 60.0
PATIENT = ProxyLimits(
    relay_s=WAIT_S,
    open_s=WAIT_S,
    headers_s=0.5,
    hangup_check_s=0.05,
    tag_s=60.0,
    retry=RetrySettings(0.01, 0.05, without_progress_s=WAIT_S),
)


class ScriptedBlob:
    """One blob of the scripted node: a file of which a growing part may be sent. Any thread may move it on."""

    def __init__(self, content: bytes, *, available: int | None = None, complete: bool = True) -> None:
        self.content = content
        self.available = len(content) if available is None else available
        self.complete = complete
        self.fresh = False
        # Sent from memory, each piece as `read_checked` gives it.
        self.checked_every_time = False
        self.read_checked: Callable[[int], memoryview | None] = self.piece
        self.failure: BlobFailed | None = None
        self.readers = 0
        self.waited_for: list[int] = []
        # Masks of pieces that were to be read again.
        self.checked: list[int] = []
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the node
        self.file.write(content)
        self.file.flush()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._moved = asyncio.Event()

    def move(self, available: int | None = None, *, failure: BlobFailed | None = None) -> None:
        """More may be sent, or the swarm has failed."""
        if available is not None:
            self.available = available
        self.failure = failure
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._moved.set)

    def piece(self, index: int) -> memoryview:
        """As it is in the file."""
        layout = PieceLayout.of(len(self.content))
        return memoryview(os.pread(self.file.fileno(), layout.length(index), layout.offset(index)))

    async def wait_available(self, offset: int) -> int:
        self._loop = asyncio.get_running_loop()
        self.waited_for.append(offset)
        while self.available <= offset:
            if self.failure is not None:
                raise self.failure
            self._moved.clear()
            await self._moved.wait()
        return self.available


class _Handle:
    """What the proxy uses of a store's handle."""

    def __init__(self, blob: ScriptedBlob) -> None:
        self._blob = blob

    @property
    def fresh(self) -> bool:
        return self._blob.fresh

    @property
    def checked_every_time(self) -> bool:
        return self._blob.checked_every_time

    @property
    def layout(self) -> PieceLayout:
        return PieceLayout.of(len(self._blob.content))

    def read_checked(self, piece: int) -> memoryview | None:
        return self._blob.read_checked(piece)

    def check_pieces(self, pieces: int, found_by: str) -> int:
        self._blob.checked.append(pieces)
        return pieces

    def fileno(self) -> int:
        return self._blob.file.fileno()

    def available_from(self, offset: int) -> int:
        return max(offset, self._blob.available)


class _Opened:
    def __init__(self, blob: ScriptedBlob) -> None:
        self._blob = blob
        self._closed = False
        blob.readers += 1

    @property
    def size_bytes(self) -> int:
        return len(self._blob.content)

    @property
    def handle(self) -> BlobHandle:
        return cast("BlobHandle", _Handle(self._blob))

    @property
    def stored(self) -> bool:
        return self._blob.complete

    @property
    def wrong(self) -> bool:
        return isinstance(self._blob.failure, DigestMismatch)

    def begin(self, offset: int) -> None:
        """Here no piece is checked."""

    def available(self, offset: int) -> int:
        return len(self._blob.content) if self._blob.complete else offset

    async def wait_available(self, offset: int) -> int:
        return await self._blob.wait_available(offset)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._blob.readers -= 1


@dataclass
class ScriptedNode:
    """The provider: what it has is shared, all else is passed through."""

    blobs: dict[Digest, ScriptedBlob] = field(default_factory=dict)
    asked: list[tuple[Digest, Source]] = field(default_factory=list)
    # Which each reads and nothing else.
    ranges: list[tuple[ByteRange, ...]] = field(default_factory=list)
    reason: str = "limit"
    stalls: bool = False
    # Blobs that are given to those alone whom the origin allows, and with what clients came for any.
    private: set[Digest] = field(default_factory=set)
    allowed: list[Allowed] = field(default_factory=list)

    async def open(
        self, digest: Digest, source: Source, allowed: Allowed | None = None, ranges: tuple[ByteRange, ...] = ()
    ) -> _Opened:
        self.ranges.append(ranges)
        self.asked.append((digest, source))
        if allowed is not None:
            self.allowed.append(allowed)
        if self.stalls:
            await asyncio.Event().wait()
        if digest not in self.blobs or (digest in self.private and not (allowed is not None and allowed.proven)):
            raise NotShared(self.reason, "scripted")
        return _Opened(self.blobs[digest])

    def known_size(self, digest: Digest, source: Source) -> int | None:
        blob = self.blobs.get(digest)
        return len(blob.content) if blob is not None else None

    def close(self) -> None:
        for blob in self.blobs.values():
            blob.file.close()


@dataclass
class Mirror:
    """What tests see of the running mirror."""

    port: int
    node: ScriptedNode
    registry: CollectorRegistry
    # How many seconds later it is for what the mirror remembers of origins.
    later_s: list[float]

    def pass_time(self) -> None:
        """All that is remembered of origins' answers has to be asked again."""
        self.later_s[0] += 2 * PERMISSION_S

    def request(
        self, target: str, *, method: str = "GET", headers: Sequence[tuple[str, str]] = (), body: bytes = b""
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """One request on a connection of its own. The body is what came, also of a response that was cut."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        with contextlib.closing(connection):
            send(connection, method, target, headers)
            if body:
                connection.send(body)
            response = connection.getresponse()
            try:
                return response, response.read()
            except http.client.IncompleteRead as short:
                return response, short.partial

    @contextlib.contextmanager
    def answering(self, target: str, headers: Sequence[tuple[str, str]] = ()) -> Iterator[http.client.HTTPResponse]:
        """A GET whose answer has begun; its body is the caller's to read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        with contextlib.closing(connection):
            send(connection, "GET", target, headers)
            yield connection.getresponse()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def send(connection: http.client.HTTPConnection, method: str, target: str, headers: Sequence[tuple[str, str]]) -> None:
    """A request with exactly these header lines."""
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()


@contextlib.contextmanager
def running_mirror(
    default: UpstreamConfig,
    *others: UpstreamConfig,
    node: ScriptedNode | None = None,
    limits: ProxyLimits = PATIENT,
    hosts: tuple[str, ...] = (),
    uv: bool = True,
    forward: Callable[[Origins, Metrics], ForwardParts] | None = None,
    push: bool = True,
    stale_s: float = 0.0,
    first: Sequence[Middleware] = (),
) -> Iterator[Mirror]:
    """A mirror whose default upstream is the first; ends with every thread and socket of its own."""
    node = node or ScriptedNode()
    metrics = Metrics()
    table = UpstreamTable([default, *others], default.host)
    origins = Origins(lambda: table, http=OriginHttp(OriginTimeouts(connect_s=WAIT_S, read_s=WAIT_S)))
    pool = ThreadPoolExecutor(2, "sendfile")
    keys = CredentialKeys()
    later_s = [0.0]

    def clock() -> float:
        return time.monotonic() + later_s[0]

    answers = LastAnswers(keys, stale_s, clock=clock)
    gate = PermissionGate(origins, PERMISSION_S, keys=keys, on_asked=metrics.permission_asked, clock=clock)
    context = ProxyContext(
        provider=node,
        origins=origins,
        permissions=gate,
        answers=answers,
        pool=pool,
        metrics=metrics,
        limits=limits,
        hosts=hosts,
        push_allowed=lambda: push,
    )
    parts = forward(origins, metrics) if forward is not None else None
    ready: list[int] = []
    started = threading.Event()
    loop = uvloop.new_event_loop() if uv else asyncio.SelectorEventLoop()
    stop = asyncio.Event()

    async def serve() -> None:
        runner = QuietRunner(
            build_app(context, parts, first),
            refuse=refuse_nonsense,
            max_line_size=HEADER_LIMIT_BYTES,
            max_field_size=HEADER_LIMIT_BYTES,
            shutdown_timeout=0.1,
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ready.append(runner.addresses[0][1])
        started.set()
        await stop.wait()
        await runner.cleanup()
        # A connection whose client hung up before its body was read is given up after the time for that.
        if lingering := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(lingering, timeout=WAIT_S)

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, name="mirror")
    thread.start()
    try:
        assert started.wait(WAIT_S)
        yield Mirror(ready[0], node, metrics.registry, later_s)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(WAIT_S)
        if parts is not None:
            parts.tunnels.close()
        gate.close()
        pool.shutdown()
        origins.close()
        node.close()


@dataclass
class Seen:
    """A request as an origin got it: header lines in order."""

    method: str
    target: str
    lines: list[tuple[str, str]]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for line, value in self.lines if line.lower() == name.lower()]


@dataclass
class Reply:
    """What a scripted origin answers. `declared` replaces the true Content-Length; None leaves it out and closes."""

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    declared: int | None = -1


@dataclass
class ScriptedOrigin:
    """An origin whose answers a function gives."""

    answer: Callable[[Seen], Reply]
    seen: list[Seen] = field(default_factory=list)
    port: int = 0

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def upstream(self) -> UpstreamConfig:
        return UpstreamConfig(self.authority, f"http://{self.authority}", configured=True)


class _Handler(QuietHandler):
    origin: ClassVar[ScriptedOrigin]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        seen = Seen(self.command, self.path, list(self.headers.items()), body)
        self.origin.seen.append(seen)
        reply = self.origin.answer(seen)
        with contextlib.suppress(OSError):
            self._send(reply)

    do_HEAD = do_POST = do_DELETE = do_GET

    def _send(self, reply: Reply) -> None:
        self.send_response_only(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        if reply.declared is not None:
            self.send_header("Content-Length", str(len(reply.body) if reply.declared < 0 else reply.declared))
        if reply.declared is None or reply.declared > len(reply.body):
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)


@contextlib.contextmanager
def scripted_origin(
    answer: Callable[[Seen], Reply], *, context: ssl.SSLContext | None = None
) -> Iterator[ScriptedOrigin]:
    """A running origin on loopback, with TLS if given a context; its threads end with the block."""
    origin = ScriptedOrigin(answer)
    handler = type("Handler", (_Handler,), {"origin": origin})
    with HttpServer(handler, context=context) as server:
        origin.port = server.port
        yield origin
