"""Connections to origins: egress proxies, client certificates, which connections are used again."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.registry.addresses import Endpoint, is_public_address, upstream_endpoint
from peer.registry.base import CutOff
from peer.registry.client import OriginHttp
from peer.registry.retry import retry_after_s
from peer.registry.sockets import OriginTimeouts
from peer.transport.cancellation import Cancellation, FetchCancelled
from proto.errors import ConfigError, UpstreamError, UpstreamKind
from proto.oci.upstreams import UpstreamConfig
from tests.support.tls import Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.contextmanager
def serving(*connections: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server whose n-th connection is handled by the n-th function; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            for handle in connections:
                with contextlib.suppress(OSError), listener.accept()[0] as sock:
                    sock.settimeout(WAIT_S)
                    handle(sock)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def read_head(sock: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        received = sock.recv(1)
        if not received:
            raise ConnectionError
        head += received
    return head


def get(http: OriginHttp, endpoint: Endpoint) -> bytes:
    exchange = http.send(endpoint, "GET", "/path?a=%2F", [("X-Test", "1")], Cancellation())
    try:
        return exchange.read_all(100)
    finally:
        exchange.close()


@pytest.fixture
def http() -> Iterator[OriginHttp]:
    opened = OriginHttp(OriginTimeouts(connect_s=WAIT_S, tls_s=WAIT_S, read_s=WAIT_S))
    yield opened
    opened.close()


def test_a_plain_http_origin_behind_an_egress_proxy_is_asked_for_by_its_whole_url(http: OriginHttp) -> None:
    heads: list[bytes] = []

    def proxy(sock: socket.socket) -> None:
        heads.append(read_head(sock))
        sock.sendall(ANSWER)

    with serving(proxy) as port:
        upstream = UpstreamConfig(
            "registry.example", "http://registry.example", egress_proxy=f"http://127.0.0.1:{port}"
        )
        assert get(http, upstream_endpoint(upstream, anonymous=True)) == b"ok"
    assert heads[0].startswith(b"GET http://registry.example/path?a=%2F HTTP/1.1\r\nHost: registry.example\r\n")


def test_an_https_origin_is_reached_through_a_tunnel_with_the_proxys_own_password(
    http: OriginHttp, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    context = authority.issue(["registry.example"]).server_context()
    heads: list[bytes] = []

    def proxy(sock: socket.socket) -> None:
        heads.append(read_head(sock))
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with context.wrap_socket(sock, server_side=True) as secured:
            heads.append(read_head(secured))
            secured.sendall(ANSWER)

    with serving(proxy) as port:
        upstream = UpstreamConfig(
            "registry.example",
            "https://registry.example",
            ca_file=authority.certificate_file,
            egress_proxy=f"http://user:p%40ss@127.0.0.1:{port}",
        )
        assert get(http, upstream_endpoint(upstream, anonymous=True)) == b"ok"
    assert heads[0].startswith(b"CONNECT registry.example:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjpwQHNz\r\n" in heads[0]
    assert b"Proxy-Authorization" not in heads[1]


def test_a_handshake_may_take_longer_than_a_connection(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.issue(["127.0.0.1"]).server_context()
    http = OriginHttp(OriginTimeouts(connect_s=0.2, tls_s=WAIT_S))

    def server(sock: socket.socket) -> None:
        # Longer than a connection may take, which stands already.
        time.sleep(0.3)
        with context.wrap_socket(sock, server_side=True) as secured:
            read_head(secured)
            secured.sendall(ANSWER)

    with serving(server) as port, contextlib.closing(http):
        address = f"127.0.0.1:{port}"
        upstream = UpstreamConfig(address, f"https://{address}", ca_file=authority.certificate_file)
        assert get(http, upstream_endpoint(upstream, anonymous=True)) == b"ok"


def test_a_tunnel_that_is_refused_is_unavailable(http: OriginHttp) -> None:
    def proxy(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with serving(proxy) as port:
        upstream = UpstreamConfig(
            "registry.example", "https://registry.example", egress_proxy=f"http://127.0.0.1:{port}"
        )
        with pytest.raises(UpstreamError, match="CONNECT answered 403") as caught:
            get(http, upstream_endpoint(upstream, anonymous=True))
    assert caught.value.kind is UpstreamKind.UNAVAILABLE


def test_the_client_certificate_is_shown_unless_the_question_is_who_anyone_is(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue(["client"])
    context = authority.issue(["127.0.0.1"]).server_context()
    context.load_verify_locations(authority.certificate_file)
    context.verify_mode = ssl.CERT_OPTIONAL
    shown: list[bool] = []

    def server(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secured:
            read_head(secured)
            shown.append(bool(secured.getpeercert()))
            secured.sendall(ANSWER)

    http = OriginHttp()
    with serving(server, server) as port:
        upstream = UpstreamConfig(
            f"127.0.0.1:{port}",
            f"https://127.0.0.1:{port}",
            ca_file=authority.certificate_file,
            client_cert=own.certificate_file,
            client_key=own.key_file,
        )
        get(http, upstream_endpoint(upstream, anonymous=False))
        get(http, upstream_endpoint(upstream, anonymous=True))
        http.close()
    assert shown == [True, False]


def test_a_ca_file_that_cannot_be_read_is_the_operators_to_mend(http: OriginHttp, tmp_path: Path) -> None:
    endpoint = Endpoint("https", "127.0.0.1", 1, trusted=True, ca_file=tmp_path / "missing.crt")
    with pytest.raises(ConfigError, match="ca_file"):
        get(http, endpoint)


def test_a_connection_that_the_server_closed_while_idle_is_replaced(http: OriginHttp) -> None:
    def once(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(ANSWER)

    with serving(once, once) as port:
        endpoint = Endpoint("http", "127.0.0.1", port, trusted=True)
        assert [get(http, endpoint), get(http, endpoint)] == [b"ok", b"ok"]


def test_a_request_that_met_silence_is_not_sent_again() -> None:
    requests: list[bytes] = []

    def twice(sock: socket.socket) -> None:
        requests.append(read_head(sock))
        sock.sendall(ANSWER)
        requests.append(read_head(sock))
        with contextlib.suppress(OSError):
            sock.recv(1)

    timeouts = OriginTimeouts(connect_s=WAIT_S, read_s=WAIT_S)
    with serving(twice) as port, contextlib.closing(OriginHttp(timeouts)) as http:
        endpoint = Endpoint("http", "127.0.0.1", port, trusted=True)
        get(http, endpoint)
        # From now on.
        object.__setattr__(timeouts, "first_byte_s", 0.5)
        with pytest.raises(UpstreamError, match="timed out"):
            get(http, endpoint)
    assert len(requests) == 2


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"\x15\x03\x01\x00"]
)
def test_an_answer_that_is_no_http_is_unavailable(http: OriginHttp, answer: bytes) -> None:
    def server(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(answer)

    with serving(server) as port, pytest.raises(UpstreamError) as caught:
        get(http, Endpoint("http", "127.0.0.1", port, trusted=True))
    assert caught.value.kind is UpstreamKind.UNAVAILABLE


def test_a_refusal_that_is_cancelled_before_its_words_came_leaves_no_connection_open(http: OriginHttp) -> None:
    """Its client has hung up meanwhile. Found by nonsense at the mirror, beside a load."""
    ended = threading.Event()

    def server(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n")
        ended.wait(WAIT_S)

    cancel = Cancellation()
    with serving(server) as port:
        exchange = http.send(upstream_at(port), "GET", "/", [], cancel)
        cancel.cancel()
        with pytest.raises(FetchCancelled):
            exchange.drain()
        ended.set()
    # Nothing is to be read from it any more: else it would say once more that it was cancelled.
    assert exchange.readinto(memoryview(bytearray(1))) == 0


def test_a_part_that_is_cancelled_leaves_the_whole_alone_and_ends_with_it() -> None:
    whole = Cancellation()
    with whole.child() as first, whole.child() as second:
        first.cancel()
        assert (first.cancelled, second.cancelled, whole.cancelled) == (True, False, False)
        whole.cancel()
        assert second.cancelled
    with pytest.raises(FetchCancelled), whole.child():
        pass


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2600::1", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::808:808", True),
        ("2002:a00:1::1", False),
        ("2001:0:1::1", False),
    ],
)
def test_public_addresses_are_told_from_all_others(address: str, public: bool) -> None:
    assert is_public_address(address) is public


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", None),
        ("Mon, 01 Jan 99999999999999 00:00:00 GMT", None),
        ("7", 7.0),
        ("999999999999999999", 3600.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, wall_time_s=60.0) == seconds


def test_an_endpoint_is_its_whole_configuration() -> None:
    plain = Endpoint("https", "a.example", 443, trusted=True)
    assert plain != dataclasses.replace(plain, egress_proxy="http://proxy.example:3128")
    assert plain.same_server(dataclasses.replace(plain, trusted=False))


# --- the way to the origin is down ------------------------------------------------------------------------------------

READ_S = 0.2


def answer_in_two_parts(
    way_is_up: threading.Event, sent: threading.Event | None = None
) -> Callable[[socket.socket], None]:
    """The second when the way is up again; `sent` is set once it has left."""

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        way_is_up.wait(WAIT_S)
        sock.sendall(b"-two")
        if sent is not None:
            sent.set()

    return handle


def upstream_at(port: int) -> Endpoint:
    return upstream_endpoint(UpstreamConfig("registry.example", f"http://127.0.0.1:{port}"), anonymous=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[OriginHttp]:
    monkeypatch.setattr("peer.registry.connection._LOOK_S", READ_S)
    with contextlib.closing(OriginHttp(OriginTimeouts(read_s=READ_S))) as http:
        yield http


def down_for(looks: int, monkeypatch: pytest.MonkeyPatch, then: Callable[[], None] = lambda: None) -> None:
    """The way is found down so often; at the last look `then` happens."""
    left = [looks]

    def way_is_down(_: socket.socket) -> bool:
        left[0] -= 1
        if not left[0]:
            then()
        return left[0] >= 0

    monkeypatch.setattr("peer.registry.connection.way_is_down", way_is_down)


def test_bytes_that_a_cut_network_holds_up_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, impatient: OriginHttp
) -> None:
    way_is_up, sent = threading.Event(), threading.Event()

    def let_through() -> None:
        way_is_up.set()
        assert sent.wait(WAIT_S)

    down_for(3, monkeypatch, let_through)
    with serving(answer_in_two_parts(way_is_up, sent)) as port:
        assert get(impatient, upstream_at(port)) == b"half-two"


def test_when_the_network_is_back_and_nothing_comes_the_rest_is_to_be_asked_for(
    monkeypatch: pytest.MonkeyPatch, impatient: OriginHttp
) -> None:
    down_for(3, monkeypatch)
    never = threading.Event()
    with serving(answer_in_two_parts(never)) as port:
        with pytest.raises(CutOff):
            get(impatient, upstream_at(port))
        never.set()


def test_a_network_that_does_not_come_back_ends_the_answer(
    monkeypatch: pytest.MonkeyPatch, impatient: OriginHttp
) -> None:
    down_for(1000, monkeypatch)
    monkeypatch.setattr("peer.registry.connection.WAY_DOWN_MAX_S", 2 * READ_S)
    never = threading.Event()
    with serving(answer_in_two_parts(never)) as port:
        with pytest.raises(UpstreamError, match="timed out"):
            get(impatient, upstream_at(port))
        never.set()
