"""Pushes: what a client sends is what its registry gets, as it comes, and what that answers is what the client gets."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from proto.oci.upstreams import UpstreamConfig
from tests.support.http_server import HttpServer, QuietHandler
from tests.unit.peer.proxy.harness import Mirror, running_mirror

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

LARGE = bytes(range(256)) * 40_000
UPLOADS = "/v2/org/app/blobs/uploads/"


@dataclass
class Sent:
    """A request as the registry got it. `whole`: its body came to its end."""

    method: str
    target: str
    lines: list[tuple[str, str]]
    size_bytes: int = 0
    sha256: str = ""
    whole: bool = False

    def all(self, name: str) -> list[str]:
        return [value for line, value in self.lines if line.lower() == name.lower()]


@dataclass
class Answer:
    status: int = 202
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""


@dataclass
class Taker:
    """A registry that takes what it is sent. `unread`: it answers before it has read the body, and closes."""

    answer: Callable[[Sent], Answer]
    # Whether it asks for a body that is held back: None for never a word.
    asks: Callable[[Sent], bool] | None = lambda _: True
    unread: bool = False
    got: list[Sent] = field(default_factory=list)
    may_read: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def upstream(self) -> UpstreamConfig:
        return UpstreamConfig(f"127.0.0.1:{self.port}", f"http://127.0.0.1:{self.port}", configured=True)


class _Handler(QuietHandler):
    taker: ClassVar[Taker]

    def handle_expect_100(self) -> bool:
        sent = Sent(self.command, self.path, list(self.headers.items()))
        if self.taker.asks is None:
            return True
        if self.taker.asks(sent):
            return bool(super().handle_expect_100())
        self.taker.got.append(sent)
        self.close_connection = True
        self._send(self.taker.answer(sent))
        return False

    def _take(self) -> None:
        sent = Sent(self.command, self.path, list(self.headers.items()))
        self.taker.got.append(sent)
        if self.taker.unread:
            self.close_connection = True
        else:
            assert self.taker.may_read.wait(WAIT_S)
            self._read(sent)
            if not sent.whole:
                self.close_connection = True
                return
        with contextlib.suppress(OSError):
            self._send(self.taker.answer(sent))

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET = _take

    def _read(self, sent: Sent) -> None:
        hasher = hashlib.sha256()
        for part in self._parts():
            if part is None:
                return
            sent.size_bytes += len(part)
            hasher.update(part)
        sent.sha256, sent.whole = hasher.hexdigest(), True

    def _parts(self) -> Iterator[bytes | None]:
        """The body; None where it breaks off."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            left = int(self.headers.get("Content-Length", 0))
            while left:
                part = self.rfile.read(min(left, 65536))
                left -= len(part)
                yield part or None
                if not part:
                    return
            return
        while True:
            head = self.rfile.readline()
            size = int(head, 16) if head.strip() else -1
            part = self.rfile.read(size + 2) if size >= 0 else b""
            if len(part) < size + 2 or size < 0:
                yield None
                return
            if size == 0:
                return
            yield part[:-2]

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)


@contextlib.contextmanager
def taking(
    answer: Answer | Callable[[Sent], Answer] | None = None, *, push: bool = True, **how: object
) -> Iterator[tuple[Mirror, Taker]]:
    """A mirror of one registry, and that registry."""
    given = answer or Answer()
    taker = Taker((lambda _: given) if isinstance(given, Answer) else given, **how)  # type: ignore[arg-type]
    taker.may_read.set()
    handler = type("Handler", (_Handler,), {"taker": taker})
    with HttpServer(handler) as server:
        taker.port = server.port
        with running_mirror(taker.upstream, push=push) as mirror:
            yield mirror, taker


def request(
    mirror: Mirror, method: str, target: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", mirror.port, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request(method, target, body, headers or {}, encode_chunked=not isinstance(body, bytes | None))  # type: ignore[arg-type]
        response = connection.getresponse()
        return response, response.read()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- bodies -----------------------------------------------------------------------------------------------------


def test_a_body_of_known_length_arrives_with_its_headers(tmp_path: Path) -> None:
    answer = Answer(201, [("Docker-Content-Digest", "sha256:x"), ("Location", "/v2/org/app/blobs/sha256:x")])
    with taking(answer) as (mirror, taker):
        target = f"{UPLOADS}1-2?_state=s%2Bt&digest=sha256:{sha256(LARGE)}"
        headers = {"Authorization": "Bearer t", "Content-Type": "application/octet-stream"}
        response, _ = request(mirror, "PUT", target, LARGE, headers)
        assert (response.status, response.getheader("Location")) == (201, "/v2/org/app/blobs/sha256:x")
        (sent,) = taker.got
        assert (sent.method, sent.target, sent.size_bytes, sent.sha256) == ("PUT", target, len(LARGE), sha256(LARGE))
        assert sent.all("Content-Length") == [str(len(LARGE))]
        assert sent.all("Authorization") == ["Bearer t"]
        assert mirror.counted("layercast_pushed_bytes_total") == len(LARGE)


def test_a_chunked_body_arrives_in_chunks() -> None:
    with taking() as (mirror, taker):
        parts = (LARGE[start : start + 100_000] for start in range(0, len(LARGE), 100_000))
        response, _ = request(mirror, "PATCH", f"{UPLOADS}1", parts, {"Transfer-Encoding": "chunked"})
        assert response.status == 202
        (sent,) = taker.got
        assert sent.all("Transfer-Encoding") == ["chunked"]
        assert sent.all("Content-Length") == []
        assert (sent.size_bytes, sent.sha256) == (len(LARGE), sha256(LARGE))


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_request_without_a_body_has_length_0(method: str) -> None:
    with taking() as (mirror, taker):
        assert request(mirror, method, UPLOADS if method == "POST" else f"{UPLOADS}1?digest=sha256:x")[0].status == 202
        assert taker.got[0].all("Content-Length") == ["0"]


def test_a_body_goes_on_while_its_end_is_not_there_yet() -> None:
    first = b"first" * 1000

    def parts() -> Iterator[bytes]:
        yield first
        wait_until(lambda: bool(taker.got))  # the head and these bytes have left, and the rest has not
        yield b"last"

    with taking() as (mirror, taker):
        response, _ = request(mirror, "PATCH", f"{UPLOADS}1", parts(), {"Transfer-Encoding": "chunked"})
        assert response.status == 202
        assert taker.got[0].sha256 == sha256(first + b"last")


def test_a_client_sends_no_faster_than_the_registry_takes() -> None:
    with taking() as (mirror, taker), mirror.connect() as sock:
        taker.may_read.clear()
        size = 512 << 20
        sock.sendall(f"PUT {UPLOADS}1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        sock.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < size:
                sent += sock.send(LARGE)
        assert sent < 64 << 20
        taker.may_read.set()


def test_a_client_that_hangs_up_leaves_no_whole_body_behind() -> None:
    for head, part in (
        (f"Content-Length: {len(LARGE)}", LARGE[:100_000]),
        ("Transfer-Encoding: chunked", b"%x\r\n%b\r\n" % (100_000, LARGE[:100_000])),
    ):
        with taking() as (mirror, taker):
            with mirror.connect() as sock:
                sock.sendall(f"PUT {UPLOADS}1 HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode() + part)
                wait_until(partial(bool, taker.got))
            counted = partial(mirror.counted, "layercast_requests_total", kind="upload", status="499")
            wait_until(lambda counted=counted: counted() == 1)  # type: ignore[misc]
            assert [sent.whole for sent in taker.got] == [False]


def test_an_answer_that_comes_before_the_body_was_read_is_the_clients() -> None:
    with taking(Answer(413, body=b"too large"), unread=True) as (mirror, _), mirror.connect() as sock:
        sock.sendall(f"PUT {UPLOADS}1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc".encode())
        assert sock.recv(12) == b"HTTP/1.1 413"


# --- Expect ------------------------------------------------------------------------------------------------------


def ask(sock: socket.socket, size: int) -> bytes:
    """A PUT that waits to be asked for its body; the status line that comes."""
    lines = [f"PUT {UPLOADS}1 HTTP/1.1", "Host: localhost", f"Content-Length: {size}", "Expect: 100-continue"]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    return sock.recv(65536)


def test_a_body_that_is_held_back_is_asked_for_when_the_registry_asks() -> None:
    with taking(Answer(201)) as (mirror, taker), mirror.connect() as sock:
        assert ask(sock, 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert sock.recv(12) == b"HTTP/1.1 201"
        assert taker.got[0].all("Expect") == ["100-continue"]
        assert taker.got[0].sha256 == sha256(b"hello")


def test_a_registry_that_refuses_is_not_sent_the_body() -> None:
    refusal = Answer(401, [("WWW-Authenticate", 'Basic realm="r"')])
    with taking(refusal, asks=lambda _: False) as (mirror, taker), mirror.connect() as sock:
        answer = ask(sock, 5)
        while part := sock.recv(65536):  # the connection ends with it
            answer += part
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b'WWW-Authenticate: Basic realm="r"' in answer
        assert taker.got[0].size_bytes == 0


def test_a_registry_that_does_not_know_expect_gets_the_body_after_a_while() -> None:
    with taking(Answer(201), asks=None) as (mirror, taker), mirror.connect() as sock:
        assert ask(sock, 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert sock.recv(12) == b"HTTP/1.1 201"
        assert taker.got[0].whole


# --- what is passed on, and what is not --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", f"{UPLOADS}?mount=sha256:{'a' * 64}&from=org/base"),
        ("GET", f"{UPLOADS}1-2"),
        ("DELETE", f"{UPLOADS}1-2"),
        ("PUT", "/v2/org/app/manifests/1.0"),
        ("DELETE", f"/v2/org/app/manifests/sha256:{'a' * 64}"),
        ("DELETE", "/v2/org/app/manifests/1.0"),
        ("DELETE", f"/v2/org/app/blobs/sha256:{'a' * 64}"),
    ],
)
def test_each_write_of_the_api_is_the_registrys_to_answer(method: str, target: str) -> None:
    with taking(Answer(404, body=b"its own words")) as (mirror, taker):
        response, body = request(mirror, method, target, b"{}" if method == "PUT" else None)
        assert (response.status, body) == (404, b"its own words")
        assert [(sent.method, sent.target) for sent in taker.got] == [(method, target)]


def test_uploads_stay_with_the_mirror_as_the_client_named_the_registry() -> None:
    with taking(lambda sent: Answer(202, [("Location", f"http://127.0.0.1:{taker.port}{sent.target}1")])) as (
        mirror,
        taker,
    ):
        host = f"127.0.0.1:{taker.port}"
        assert request(mirror, "POST", UPLOADS)[0].getheader("Location") == f"{UPLOADS}1"
        prefixed = f"/v2/{host}/org/app/blobs/uploads/"
        assert request(mirror, "POST", prefixed)[0].getheader("Location") == f"{prefixed}1"


def test_a_refused_push_by_prefix_asks_for_the_right_scope() -> None:
    challenge = 'Bearer realm="https://auth.example.com/token",service="s",scope="repository:org/app:pull,push"'
    with taking(Answer(401, [("WWW-Authenticate", challenge)])) as (mirror, taker):
        name = f"127.0.0.1:{taker.port}/org/app"
        told = request(mirror, "POST", f"/v2/{name}/blobs/uploads/")[0].getheader("WWW-Authenticate") or ""
        assert f'scope="repository:{name}:pull,push",error="insufficient_scope"' in told


@pytest.mark.parametrize("target", ["/v2/", "/v2/org/app/tags/list", f"/v2/org/app/referrers/sha256:{'a' * 64}"])
def test_what_the_api_does_not_have_is_not_passed_on(target: str) -> None:
    with taking() as (mirror, taker):
        assert request(mirror, "POST", target, b"x")[0].status == 405
        assert request(mirror, "OPTIONS", target)[0].status == 405
        assert taker.got == []


def test_a_web_page_may_not_write() -> None:
    with taking() as (mirror, taker):
        response, body = request(mirror, "POST", UPLOADS, b"x", {"Origin": "https://evil.example.com"})
        assert (response.status, b"DENIED" in body) == (403, True)
        assert taker.got == []


def test_a_mirror_that_takes_no_pushes_says_so_and_asks_nobody() -> None:
    with taking(push=False) as (mirror, taker):
        for method, target in (("POST", UPLOADS), ("PUT", "/v2/org/app/manifests/1"), ("PATCH", f"{UPLOADS}1")):
            response, body = request(mirror, method, target, b"x")
            assert (response.status, b'"DENIED"' in body) == (403, True)
        assert taker.got == []
