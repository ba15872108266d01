"""A small registry in a thread whose misbehaviour is scripted, and which remembers what it was asked.

It serves blobs by `/v2/NAME/blobs/DIGEST` and nothing else of a registry.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs, urlsplit

from proto.ids import Digest
from proto.oci.ranges import select
from proto.oci.upstreams import UpstreamConfig
from tests.support.http_server import HttpServer, QuietHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

# A stalled answer stands still for longer than any test waits for anything.
STALL_S = 600.0


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


@dataclass
class Fault:
    """What one request meets in place of good service. Fields left alone change nothing."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    # Before the status line.
    delay_s: float = 0.0
    # A byte of the body each so many seconds, until the origin is closed.
    trickle_s: float | None = None
    cut_after_bytes: int | None = None
    stall_after_bytes: int | None = None
    # Replaces the header the body would announce itself by.
    content_length: int | None = None
    content_range: str | None = None
    # Sent after the body, which is then chunked.
    surplus: bytes = b""


@dataclass(repr=False)
class FakeOrigin:
    """Its behaviour; change the fields before asking it."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    # Off: who shares it among tests has nothing open after each.
    keep_alive: bool = True
    chunked: bool = False
    head_status: int | None = None
    # Where blobs are to be had: this URL and the path; the query stands for a signature.
    redirect_to: str | None = None
    # The token that blobs are given for; the server's own /token hands it out.
    token: str | None = None
    realm: str | None = None
    challenge: str | None = None
    faults: list[Fault] = field(default_factory=list)
    # What every request of a method (GET or HEAD) for a blob meets, as long as it stands here.
    always: dict[str, Fault] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    bytes_per_s: float | None = None
    # Answers that stand still by a fault right now; they end, short, when `released` is set.
    stalled: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0

    def add(self, content: bytes) -> Digest:
        """Have this blob."""
        digest = Digest.of(content)
        self.blobs[str(digest)] = content
        return digest

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}"

    @property
    def upstream(self) -> UpstreamConfig:
        return UpstreamConfig(self.authority, self.url, configured=True)

    def blob_requests(self, method: str = "GET") -> list[Asked]:
        """The requests for blobs of one method, in the order of their coming."""
        return [asked for asked in self.asked if asked.method == method and "/blobs/" in asked.target]

    def take_fault(self, method: str) -> Fault:
        with self.lock:
            return self.faults.pop(0) if self.faults else self.always.get(method, Fault())


class _Handler(QuietHandler):
    origin: ClassVar[FakeOrigin]

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):
            self._answer()

    do_HEAD = do_GET

    def end_headers(self) -> None:
        if not self.origin.keep_alive:
            self.send_header("Connection", "close")
        super().end_headers()

    def _answer(self) -> None:
        origin = self.origin
        headers = {name.lower(): value for name, value in self.headers.items()}
        with origin.lock:
            origin.asked.append(Asked(self.command, self.path, headers))
        parts = urlsplit(self.path)
        if parts.path == "/token":
            scopes = parse_qs(parts.query).get("scope", [])
            self._send_json(200, {"token": origin.token, "scope": scopes, "expires_in": 300})
            return
        fault = origin.take_fault(self.command) if "/blobs/" in parts.path else Fault()
        origin.released.wait(fault.delay_s)
        if fault.status is not None:
            self._send_json(fault.status, {"errors": []}, fault.headers)
            return
        if origin.token is not None and headers.get("authorization") != f"Bearer {origin.token}":
            realm = origin.realm or f"{origin.url}/token"
            default = f'Bearer realm="{realm}",service="fake",scope="repository:name:pull"'
            self._send_json(401, {"errors": []}, {"WWW-Authenticate": origin.challenge or default})
            return
        if origin.redirect_to is not None:
            location = f"{origin.redirect_to}{parts.path}?X-Signature=a%2Fb%3D&b=+~"
            self._send_json(307, {}, {"Location": location})
            return
        self._send_blob(parts.path.rpartition("/")[2], headers.get("range"), fault)

    def _send_blob(self, name: str, asked_range: str | None, fault: Fault) -> None:
        origin = self.origin
        content = origin.blobs.get(name)
        if content is None:
            self._send_json(404, {"errors": [{"code": "BLOB_UNKNOWN"}]})
            return
        if self.command == "HEAD" and origin.head_status is not None:
            self._send_json(origin.head_status, {})
            return
        # Of several ranges it knows nothing, as docker-registry.
        several = asked_range is not None and "," in asked_range
        chosen = select(asked_range if origin.ranges and not several else None, len(content))[0]
        body = content[chosen.start : chosen.end]
        self.send_response(chosen.status)
        content_range = fault.content_range or chosen.content_range
        if content_range is not None:
            self.send_header("Content-Range", content_range)
        if origin.chunked or fault.surplus:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            length = len(body) if fault.content_length is None else fault.content_length
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        if chosen.status == 416:
            self.close_connection = True
            return
        if fault.trickle_s is not None:
            self._trickle(body, fault.trickle_s)
        else:
            self._send_body(body, fault, chunked=origin.chunked or bool(fault.surplus))

    def _trickle(self, body: bytes, pause_s: float) -> None:
        self.close_connection = True
        for position in range(len(body)):
            self.wfile.write(body[position : position + 1])
            if self.origin.released.wait(pause_s):
                return

    def _send_body(self, body: bytes, fault: Fault, *, chunked: bool) -> None:
        if fault.cut_after_bytes is not None:
            body = body[: fault.cut_after_bytes]
        if fault.stall_after_bytes is not None:
            body = body[: fault.stall_after_bytes]
        step = 64 * 1024
        for start in range(0, len(body), step):
            self._send_part(body[start : start + step], chunked=chunked)
            if self.origin.bytes_per_s is not None:
                time.sleep(step / self.origin.bytes_per_s)
        if fault.surplus:
            self._send_part(fault.surplus, chunked=True)
        if fault.stall_after_bytes is not None:
            self._stall()
        if fault.cut_after_bytes is not None or fault.stall_after_bytes is not None:
            self.close_connection = True
        elif chunked:
            self.wfile.write(b"0\r\n\r\n")
        if fault.content_length is not None:
            self.close_connection = True

    def _stall(self) -> None:
        origin = self.origin
        with origin.lock:
            origin.stalled += 1
        origin.released.wait(STALL_S)
        with origin.lock:
            origin.stalled -= 1

    def _send_part(self, part: bytes, *, chunked: bool) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)

    def _send_json(self, status: int, answer: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextlib.contextmanager
def fake_origin(host: str = "127.0.0.1") -> Iterator[FakeOrigin]:
    """A running origin on loopback; all its threads end with the block."""
    origin = FakeOrigin()
    handler = type("Handler", (_Handler,), {"origin": origin})
    with HttpServer(handler, host) as server:
        origin.port = server.port
        try:
            yield origin
        finally:
            origin.released.set()
