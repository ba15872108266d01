"""The counting proxy counts what it sends, and misbehaves exactly as told."""

from __future__ import annotations

import fcntl
import http.client
import json
import socket
import struct
import termios
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.faults import Fault
from benchmarks.cluster.image import BlobFile, make_random_image
from benchmarks.cluster.processes import WAIT_S, wait_until
from benchmarks.cluster.proxy_process import CountingProxyProcess
from tests.support.fake_origin import FakeOrigin, fake_origin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.cluster.proxy_process import ProxyControl

SIZE_BYTES = 1_000_000


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> BlobFile:
    return make_random_image(tmp_path_factory.mktemp("image"), [SIZE_BYTES], seed=1).layers[0]


@pytest.fixture(scope="module")
def registry(layer: BlobFile) -> Iterator[FakeOrigin]:
    with fake_origin() as origin:
        origin.add(layer.path.read_bytes())
        yield origin


@pytest.fixture
def proxy(registry: FakeOrigin) -> Iterator[CountingProxy]:
    with CountingProxy(("127.0.0.1", registry.port)) as running:
        yield running


def connect(address: str) -> socket.socket:
    host, _, port = address.partition(":")
    return socket.create_connection((host, int(port)), timeout=WAIT_S)


class Client:
    """One keep-alive client connection."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=WAIT_S)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, method: str, blob: BlobFile, **headers: str) -> http.client.HTTPResponse:
        self._connection.request(method, f"/v2/demo/blobs/{blob.digest}", headers=headers)
        return self._connection.getresponse()

    def get(self, blob: BlobFile, **headers: str) -> bytes:
        return self.ask("GET", blob, **headers).read()


def wait_for_the_end(proxy: ProxyControl) -> None:
    """Wait until the proxy knows of the end of an answer that broke off: of those its client can be first to know."""
    wait_until(lambda: all(exchange.ending != "open" for exchange in proxy.ledger().exchanges), "the end")


def test_it_passes_bodies_on_and_counts_them(proxy: CountingProxy, layer: BlobFile) -> None:
    with Client(proxy.address) as client:
        assert client.get(layer) == layer.path.read_bytes()
        assert client.get(layer, Range="bytes=10-19") == layer.path.read_bytes()[10:20]
        assert client.ask("HEAD", layer).read() == b""
        ledger = proxy.ledger()
    assert (ledger.gets(layer.digest), ledger.heads(layer.digest)) == (2, 1)
    assert ledger.ranges(layer.digest) == [None, (10, 19)]
    assert ledger.blob_bytes(layer.digest) == layer.size_bytes + 10
    assert ledger.repeated_bytes(layer.digest) == 10
    assert {exchange.ending for exchange in ledger.exchanges} == {"complete"}


@pytest.mark.parametrize("chunked", [False, True])
def test_what_a_client_has_is_in_the_ledger_at_once(proxy: CountingProxy, layer: BlobFile, chunked: bool) -> None:
    proxy.add_fault(Fault(chunked=chunked))
    with Client(proxy.address) as client:
        for count in range(1, 201):
            client.get(layer, Range="bytes=0-0")
            ledger = proxy.ledger()
            assert ledger.blob_bytes(layer.digest) == count
            assert ledger.exchanges[-1].ending == "complete"


def test_header_lines_are_passed_on_in_order_and_repeated(proxy: CountingProxy, layer: BlobFile) -> None:
    with connect(proxy.address) as sock:
        path = f"/v2/demo/blobs/{layer.digest}"
        sock.sendall(f"HEAD {path} HTTP/1.1\r\nHost: x\r\nAccept: b\r\nAccept: a\r\n\r\n".encode())
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    (exchange,) = proxy.ledger().exchanges
    assert exchange.request_headers == [("Host", "x"), ("Accept", "b"), ("Accept", "a")]


def test_a_client_that_leaves_is_not_counted_as_served(proxy: CountingProxy, layer: BlobFile) -> None:
    proxy.add_fault(Fault(stall_after_bytes=1000))
    with Client(proxy.address) as client:
        assert len(client.ask("GET", layer).read(1000)) == 1000
    wait_for_the_end(proxy)
    (exchange,) = proxy.ledger().exchanges
    assert (exchange.ending, exchange.interval) == ("client-gone", (0, 1000))


def test_what_a_cut_connection_had_delivered_is_counted_to_the_byte(proxy: CountingProxy, layer: BlobFile) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(WAIT_S)
        host, _, port = proxy.address.partition(":")
        client.connect((host, int(port)))
        client.sendall(f"GET /v2/demo/blobs/{layer.digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        came: list[int] = []

        def no_more_comes() -> bool:
            came.append(waiting_bytes(client))
            sent = sum(each.body_sent_bytes for each in proxy.ledger().exchanges)
            return sent > came[-1] + 100_000 and came[-8:] == [came[-1]] * 8

        wait_until(no_more_comes, "a full buffer")
        proxy.cut()
        head = client.recv(4096, socket.MSG_PEEK).partition(b"\r\n\r\n")[0]
        (exchange,) = proxy.ledger().exchanges
        assert exchange.ending == "client-gone"
        assert exchange.body_acked_bytes == waiting_bytes(client) - len(head) - 4


def waiting_bytes(sock: socket.socket) -> int:
    """What the kernel has taken in for it, not read yet."""
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)))[0])


def test_a_tls_hello_is_hung_up_on_at_once(proxy: CountingProxy) -> None:
    with connect(proxy.address) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert sock.recv(1) == b""


@pytest.mark.parametrize("reset", [False, True])
def test_it_cuts_after_so_many_bytes(proxy: CountingProxy, layer: BlobFile, reset: bool) -> None:
    proxy.add_fault(Fault(cut_after_bytes=5000, reset=reset))
    with Client(proxy.address) as client:
        response = client.ask("GET", layer)
        received = response.read(5000)
        with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
            response.read()
    assert received == layer.path.read_bytes()[:5000]
    wait_for_the_end(proxy)
    assert proxy.ledger().exchanges[0].ending == "cut"


def test_a_stalled_answer_goes_on_when_faults_are_cleared(proxy: CountingProxy, layer: BlobFile) -> None:
    proxy.add_fault(Fault(stall_after_bytes=10))
    with Client(proxy.address) as client:
        response = client.ask("GET", layer)
        assert len(response.read(10)) == 10
        proxy.clear_faults()
        assert len(response.read()) == layer.size_bytes - 10


def test_the_corrupt_byte_is_met_by_a_range_that_covers_it_alone(proxy: CountingProxy, layer: BlobFile) -> None:
    proxy.add_fault(Fault(corrupt_at=500))
    whole = layer.path.read_bytes()
    with Client(proxy.address) as client:
        assert client.get(layer, Range="bytes=0-499") == whole[:500]
        assert client.get(layer, Range="bytes=501-600") == whole[501:601]
        assert client.get(layer, Range="bytes=490-510")[10] == whole[500] ^ 0xFF


def test_a_fault_may_meet_one_request_and_say_when_to_retry(proxy: CountingProxy, layer: BlobFile) -> None:
    proxy.add_fault(Fault(method="GET", times=1, status=429, headers=(("Retry-After", "7"),)))
    with Client(proxy.address) as client:
        assert client.ask("HEAD", layer).read() == b""
        refused = client.ask("GET", layer)
        assert (refused.status, refused.headers["Retry-After"], refused.read()) == (429, "7", b"")
        assert len(client.get(layer)) == layer.size_bytes


def test_a_redirect_names_the_path_asked_for(proxy: CountingProxy, layer: BlobFile) -> None:
    proxy.add_fault(Fault(status=307, headers=(("Location", "http://cdn.example{target}"),)))
    with Client(proxy.address) as client:
        response = client.ask("GET", layer)
        response.read()
    assert response.headers["Location"] == f"http://cdn.example/v2/demo/blobs/{layer.digest}"


@pytest.mark.parametrize("delta_bytes", [-100, 100])
def test_it_lies_about_the_length(proxy: CountingProxy, layer: BlobFile, delta_bytes: int) -> None:
    proxy.add_fault(Fault(length_delta_bytes=delta_bytes))
    with Client(proxy.address) as client:
        response = client.ask("GET", layer)
        assert response.headers["Content-Length"] == str(layer.size_bytes + delta_bytes)
        if delta_bytes > 0:
            with pytest.raises(http.client.IncompleteRead):
                response.read()
        else:
            assert len(response.read()) == layer.size_bytes + delta_bytes


def test_it_hides_ranges_and_lengths(proxy: CountingProxy, layer: BlobFile) -> None:
    proxy.add_fault(Fault(ignore_range=True, chunked=True))
    with Client(proxy.address) as client:
        response = client.ask("GET", layer, Range="bytes=5-9")
        assert (response.status, response.headers["Content-Length"]) == (200, None)
        assert response.read() == layer.path.read_bytes()
        assert proxy.ledger().exchanges[0].ending == "complete"
    assert proxy.ledger().ranges(layer.digest) == [(5, 9)]
    assert proxy.ledger().intervals(layer.digest) == [(0, layer.size_bytes)]


def test_it_refuses_connections_and_accepts_them_again(proxy: CountingProxy, layer: BlobFile) -> None:
    proxy.refuse()
    with Client(proxy.address) as client, pytest.raises(ConnectionRefusedError):
        client.ask("GET", layer)
    proxy.accept()
    with Client(proxy.address) as client:
        assert len(client.get(layer)) == layer.size_bytes


def test_a_rate_and_a_late_first_byte_take_their_time(proxy: CountingProxy, layer: BlobFile) -> None:
    proxy.set_rate(2 * SIZE_BYTES)
    proxy.add_fault(Fault(first_byte_delay_s=0.2))
    begun_s = time.monotonic()
    with Client(proxy.address) as client:
        client.get(layer)
    assert time.monotonic() - begun_s >= 0.6
    (exchange,) = proxy.ledger().exchanges
    assert exchange.first_byte_s - exchange.started_s >= 0.2


def test_a_proxy_in_another_process_is_steered_alike(registry: FakeOrigin, layer: BlobFile) -> None:
    with CountingProxyProcess(("127.0.0.1", registry.port)) as proxy, Client(proxy.address) as client:
        proxy.add_fault(Fault(times=1, status=503, body=json.dumps({}), headers=(("Retry-After", "1"),)))
        refused = client.ask("GET", layer, Range="bytes=0-9")
        assert (refused.status, refused.read()) == (503, b"{}")
        assert len(client.get(layer, Range="bytes=0-9")) == 10
        assert proxy.ledger().ranges(layer.digest) == [(0, 9), (0, 9)]
        assert proxy.ledger().intervals(layer.digest) == [(0, 10)]
        proxy.reset()
        assert proxy.ledger().exchanges == ()


def test_an_origin_that_is_gone_is_told_apart_from_a_client_that_left(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()
    with CountingProxy(address) as proxy, Client(proxy.address) as client:
        blob = BlobFile("sha256:" + "0" * 64, 1, "", tmp_path)
        with pytest.raises(http.client.RemoteDisconnected):
            client.ask("GET", blob)
        wait_for_the_end(proxy)
        assert proxy.ledger().exchanges[0].ending == "origin-gone"
