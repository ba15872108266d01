"""UploadServer against clients that are slow, greedy, or speak nonsense, over real sockets."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from peer.store.base import SignedHashes
from peer.store.disk import DiskStore
from peer.transport.http_server import UploadServer
from peer.transport.http_wire import (
    HEAD_END,
    bitfield_path,
    decode_hashes,
    format_request,
    hashes_path,
    nonce_path,
    parse_answer,
    pieces_path,
)
from proto.errors import ConfigError, LocalError
from proto.tickets import Identity, issue_ticket, prove_connection
from tests.support.blobs import fill, some_blob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from peer.transport.http_wire import Answer
    from proto.ids import Digest

SUPERNODE = Identity.generate()
DOWNLOADER = Identity.generate()
SMALL = some_blob(10_000, piece_size_bytes=4096)
# More than the sockets between can hold: its sender must wait for its receiver.
LARGE = some_blob(16 << 20, piece_size_bytes=16 << 20, seed=2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    store = DiskStore(tmp_path / "store", size_limit_bytes=1 << 30, free_floor_bytes=0)
    handle = fill(store, SMALL)
    handle.learn_hashes(SignedHashes(0, SMALL.hashes, bytes(64)))
    handle.close()
    fill(store, LARGE).close()
    yield store
    store.close()


@pytest.fixture
def serve(store: DiskStore) -> Iterator[Callable[..., UploadServer]]:
    servers: list[UploadServer] = []

    def start(**options: float) -> UploadServer:
        settings = {"slots": 2, "queue_max": 2, **options}
        servers.append(UploadServer("127.0.0.1:0", store, lambda: SUPERNODE.peer, **settings))  # type: ignore[arg-type]  # ints and floats alike
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class Client:
    """A few lines of HTTP, so that a test can say exactly what is on the wire."""

    def __init__(self, server: UploadServer, *, receive_buffer_bytes: int = 0) -> None:
        host, port = server.address.split(":")
        self.sock = socket.socket()
        if receive_buffer_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.sock.settimeout(20)
        self.sock.connect((host, int(port)))
        self.rest = b""
        self.nonce = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, raw: bytes) -> None:
        self.sock.sendall(raw)

    def ask(self, path: str, ticket: bytes = b"", proof: bytes = b"") -> tuple[Answer, bytes]:
        self.send(format_request(path, "test", ticket, proof))
        return self.answer()

    def answer(self) -> tuple[Answer, bytes]:
        while HEAD_END not in self.rest:
            self.rest += self.receive()
        head, _, self.rest = self.rest.partition(HEAD_END)
        answer = parse_answer(head)
        while len(self.rest) < answer.length_bytes:
            self.rest += self.receive()
        body, self.rest = self.rest[: answer.length_bytes], self.rest[answer.length_bytes :]
        return answer, body

    def receive(self) -> bytes:
        chunk = self.sock.recv(1 << 20)
        if not chunk:
            raise EOFError
        return chunk

    def is_closed(self) -> bool:
        """Wait for the end of the connection."""
        with contextlib.suppress(ConnectionResetError):
            while self.sock.recv(1 << 20):
                pass
        return True

    def ticket(self, blob_digest: object = SMALL.digest) -> tuple[bytes, bytes]:
        """A ticket and its proof for this connection."""
        if not self.nonce:
            self.nonce = self.ask(nonce_path())[0].nonce
        ticket = issue_ticket(SUPERNODE, blob_digest, DOWNLOADER.peer, time.time() + 60)  # type: ignore[arg-type]  # a Digest
        return ticket, prove_connection(DOWNLOADER, self.nonce, ticket)

    def begin_large(self) -> None:
        """Take up a slot: ask for the large piece and read nothing of it."""
        self.send(format_request(pieces_path(LARGE.digest, 0, 0), "test", *self.ticket(LARGE.digest)))


def wait_for(condition: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


# --- answers ---------------------------------------------------------------------------------------------------


def test_pieces_come_as_asked(serve: Callable[..., UploadServer]) -> None:
    server = serve()
    with Client(server) as client:
        ticket, proof = client.ticket()
        answer, body = client.ask(pieces_path(SMALL.digest, 1, 2), ticket, proof)
        assert (answer.status, body) == (200, SMALL.content[4096:])
        # Known on this connection now: the proof is not needed again.
        answer, body = client.ask(pieces_path(SMALL.digest, 0, 0), ticket)
        assert (answer.status, body) == (200, SMALL.content[:4096])
    wait_for(lambda: server.counters.served().get("pieces") == 2)
    assert server.counters.sent_bytes == 10_000


def test_a_ticket_is_bound_to_the_connection(serve: Callable[..., UploadServer]) -> None:
    server = serve()
    with Client(server) as seen, Client(server) as thief:
        ticket, proof = seen.ticket()
        assert seen.ask(pieces_path(SMALL.digest, 0, 0), ticket, proof)[0].status == 200
        assert thief.ask(pieces_path(SMALL.digest, 0, 0), ticket, proof)[0].status == 403
        thief.ticket()
        assert thief.ask(pieces_path(SMALL.digest, 0, 0), ticket, proof)[0].status == 403
        assert thief.ask(pieces_path(SMALL.digest, 0, 0), ticket)[0].status == 403


def test_a_known_ticket_still_names_one_blob(serve: Callable[..., UploadServer]) -> None:
    with Client(serve()) as client:
        ticket, proof = client.ticket()
        assert client.ask(bitfield_path(SMALL.digest), ticket, proof)[0].status == 200
        assert client.ask(bitfield_path(LARGE.digest), ticket, proof)[0].status == 403


def test_a_ticket_expires_on_an_open_connection(
    serve: Callable[..., UploadServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(serve()) as client:
        ticket, proof = client.ticket()
        assert client.ask(bitfield_path(SMALL.digest), ticket, proof)[0].status == 200
        later_s = time.time() + 3600
        monkeypatch.setattr("peer.transport.http_serve.time.time", lambda: later_s)
        assert client.ask(bitfield_path(SMALL.digest), ticket, proof)[0].status == 403


def test_without_a_ticket_nothing_is_told(serve: Callable[..., UploadServer]) -> None:
    with Client(serve()) as client:
        for path in (pieces_path(SMALL.digest, 0, 0), bitfield_path(SMALL.digest), hashes_path(SMALL.digest)):
            assert client.ask(path)[0].status == 403


def test_without_a_supernode_nothing_is_served(store: DiskStore) -> None:
    server = UploadServer("127.0.0.1:0", store, lambda: None, slots=1, queue_max=1)
    with Client(server) as client:
        assert client.ask(bitfield_path(SMALL.digest), *client.ticket())[0].status == 503
    server.close()


def test_signed_hashes_are_passed_on(serve: Callable[..., UploadServer]) -> None:
    with Client(serve()) as client:
        _, body = client.ask(hashes_path(SMALL.digest), *client.ticket())
        assert decode_hashes(body) == (SMALL.layout, (SignedHashes(0, SMALL.hashes, bytes(64)),))


@pytest.mark.parametrize("pieces", [(0, 3), (3, 3), (2, 60_000)])
def test_pieces_beyond_the_blob_are_not_held(serve: Callable[..., UploadServer], pieces: tuple[int, int]) -> None:
    with Client(serve()) as client:
        assert client.ask(pieces_path(SMALL.digest, *pieces), *client.ticket())[0].status == 404


def test_curl_can_ask(serve: Callable[..., UploadServer]) -> None:
    done = subprocess.run(
        ["curl", "--silent", "--include", f"http://{serve().address}/v1/nonce"],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert "204 No Content" in done.stdout
    assert "Layercast-Nonce: " in done.stdout


# --- nonsense --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PUT /v1/nonce HTTP/1.1\r\n\r\n",
        b"GET /v1/nonce HTTP/1.1\r\n\r\nGET /v1/nonce HTTP/1.1\r\n\r\n",
        b"GET /v1/nonce HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody",
    ],
)
def test_nonsense_gets_400_and_the_connection_ends(serve: Callable[..., UploadServer], raw: bytes) -> None:
    server = serve()
    with Client(server) as client:
        client.send(raw)
        answer, body = client.answer()
        assert (answer.status, answer.keep_alive, body.count(b"\n")) == (400, False, 1)
        assert client.is_closed()
    assert server.counters.refused() == {"malformed": 1}
    wait_for(lambda: server.connections == 0)


def test_a_head_without_end_is_cut_off(serve: Callable[..., UploadServer]) -> None:
    server = serve()
    with Client(server) as client:
        with contextlib.suppress(OSError):
            for _ in range(1000):
                client.send(b"A" * 1024)
        assert client.is_closed()
    assert server.counters.refused() == {"malformed": 1}


def test_a_head_that_comes_a_byte_at_a_time_is_understood(serve: Callable[..., UploadServer]) -> None:
    with Client(serve()) as client:
        for byte in format_request(nonce_path(), "test"):
            client.send(bytes([byte]))
        assert client.answer()[0].status == 204


def test_who_never_finishes_a_request_is_dropped(serve: Callable[..., UploadServer]) -> None:
    server = serve(idle_s=0.5)
    with Client(server) as client:
        client.send(b"GET /v1/nonce HTTP/1.1\r\n")
        assert client.is_closed()
    wait_for(lambda: server.connections == 0)


# --- limits ----------------------------------------------------------------------------------------------------


def test_beyond_slots_and_queue_it_is_busy_and_the_connection_stays(serve: Callable[..., UploadServer]) -> None:
    server = serve(slots=1, queue_max=1)
    with Client(server) as first, Client(server) as second, Client(server) as third:
        third_ticket = third.ticket()
        first.begin_large()
        second.begin_large()
        wait_for(lambda: server.active == 2)
        answer, _ = third.ask(bitfield_path(SMALL.digest), *third_ticket)
        assert (answer.status, answer.keep_alive) == (503, True)
        assert first.answer()[1] == LARGE.content
        assert second.answer()[1] == LARGE.content
        wait_for(lambda: server.active == 0)
        assert third.ask(bitfield_path(SMALL.digest), *third_ticket)[0].status == 200
    assert server.counters.refused() == {"busy": 1}


def test_slots_are_given_in_the_order_of_asking(serve: Callable[..., UploadServer]) -> None:
    server = serve(slots=1, queue_max=2)
    with Client(server) as first, Client(server) as second, Client(server) as third:
        first.begin_large()
        wait_for(lambda: server.active == 1)
        second.begin_large()
        wait_for(lambda: server.active == 2)
        ticket, proof = third.ticket()
        third.send(format_request(pieces_path(SMALL.digest, 0, 0), "test", ticket, proof))
        wait_for(lambda: server.active == 3)
        third.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            third.answer()
        third.sock.settimeout(20)
        assert first.answer()[0].status == second.answer()[0].status == 200
        assert third.answer()[0].status == 200


def test_a_request_granted_ahead_waits_for_the_end_of_a_transfer_though_a_slot_is_free(
    serve: Callable[..., UploadServer],
) -> None:
    server = serve(slots=2, queue_max=2)
    with Client(server) as first, Client(server) as second:
        ticket, proof = second.ticket()
        first.begin_large()
        wait_for(lambda: server.active == 1)
        second.send(format_request(pieces_path(SMALL.digest, 0, 0), "test", ticket, proof, ahead=True))
        wait_for(lambda: server.active == 2)
        second.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            second.answer()
        second.sock.settimeout(20)
        assert first.answer()[0].status == 200
        assert second.answer()[0].status == 200


def test_a_request_granted_ahead_begins_at_once_where_nothing_is_under_way(serve: Callable[..., UploadServer]) -> None:
    with Client(serve(slots=1, queue_max=1)) as client:
        ticket, proof = client.ticket()
        client.send(format_request(pieces_path(SMALL.digest, 0, 0), "test", ticket, proof, ahead=True))
        assert client.answer()[0].status == 200


def test_who_hangs_up_while_waiting_takes_no_slot(serve: Callable[..., UploadServer]) -> None:
    server = serve(slots=1, queue_max=1)
    with Client(server) as first:
        first.begin_large()
        wait_for(lambda: server.active == 1)
        with Client(server) as second:
            second.begin_large()
            wait_for(lambda: server.active == 2)
        assert first.answer()[0].status == 200
        wait_for(lambda: server.active == 0 and server.connections == 1)
    assert server.counters.served()["pieces"] == 1


def test_a_receiver_that_takes_nothing_loses_its_slot(serve: Callable[..., UploadServer]) -> None:
    server = serve(slots=1, send_timeout_s=0.5)
    with Client(server, receive_buffer_bytes=4096) as stuck:
        stuck.begin_large()
        wait_for(lambda: server.active == 1)
        wait_for(lambda: server.active == 0)
        assert server.counters.refused() == {"gone": 1}


def test_more_connections_than_allowed_are_refused(serve: Callable[..., UploadServer]) -> None:
    server = serve(connections_max=1)
    with Client(server) as first, Client(server) as second:
        assert second.is_closed()
        assert first.ask(nonce_path())[0].status == 204
    assert server.counters.refused() == {"connections": 1}


def test_the_rate_limit_is_over_all_connections(serve: Callable[..., UploadServer]) -> None:
    server = serve(slots=4, rate_limit_bytes_s=32 << 20)
    started_s = time.monotonic()
    with Client(server) as first, Client(server) as second:
        first.begin_large()
        second.begin_large()
        assert first.answer()[1] == second.answer()[1] == LARGE.content
    assert time.monotonic() - started_s > 0.8
    server.set_rate_limit(0)


# --- switches --------------------------------------------------------------------------------------------------


def test_switched_off_it_serves_nothing_until_switched_on(serve: Callable[..., UploadServer]) -> None:
    server = serve()
    with Client(server) as client:
        ticket = client.ticket()
        server.set_enabled(False)
        assert client.ask(bitfield_path(SMALL.digest), *ticket)[0].status == 404
        server.set_enabled(True)
        assert client.ask(bitfield_path(SMALL.digest), *ticket)[0].status == 200


def test_closing_cuts_transfers_off(serve: Callable[..., UploadServer]) -> None:
    server = serve()
    with Client(server, receive_buffer_bytes=4096) as stuck, Client(server) as idle:
        stuck.begin_large()
        idle.ask(nonce_path())
        wait_for(lambda: server.active == 1)
        server.close()
        assert stuck.is_closed()
        assert idle.is_closed()


def test_an_address_in_use_is_a_configuration_error(serve: Callable[..., UploadServer], store: DiskStore) -> None:
    with pytest.raises(ConfigError, match="upload address"):
        UploadServer(serve().address, store, lambda: None)


@pytest.mark.parametrize("listen", ["", "localhost", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000"])
def test_an_address_that_makes_no_sense_is_a_configuration_error(store: DiskStore, listen: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        UploadServer(listen, store, lambda: None)


def test_a_client_that_sends_nonsense_for_ever_does_not_fill_the_log(
    serve: Callable[..., UploadServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    with caplog.at_level("INFO"):
        for _ in range(70):
            with Client(server) as client:
                client.send(b"NONSENSE\r\n\r\n")
                assert client.answer()[0].status == 400
    assert len(caplog.messages) == 60


@pytest.mark.parametrize("error", [LocalError("disk"), RuntimeError("a bug")], ids=["disk", "bug"])
def test_a_store_in_trouble_costs_no_thread(
    serve: Callable[..., UploadServer], store: DiskStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(digest: Digest) -> None:
        raise error

    server = serve(slots=1, queue_max=0)
    with monkeypatch.context() as patch:
        patch.setattr(store, "get", broken)
        for _ in range(3):
            with Client(server) as client, contextlib.suppress(EOFError):
                assert client.ask(pieces_path(SMALL.digest, 0, 0), *client.ticket())[0].status == 503
    with Client(server) as client:
        assert client.ask(pieces_path(SMALL.digest, 0, 0), *client.ticket())[0].status == 200
