"""UploadServer's answers over real sockets, also to clients that speak nonsense."""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.store.base import SignedHashes
from peer.transport.server import UploadServer
from peer.transport.wire import bitfield_path, decode_hashes, format_request, hashes_path, nonce_path, pieces_path
from proto.config.values import HostPort, parse_host_port
from proto.errors import ConfigError, LocalError
from tests.support.blobs import fill, some_blob
from tests.unit.peer.transport.upload_harness import DOWNLOADER, LARGE, SMALL, UPLOADER, Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.store.disk import DiskStore
    from proto.ids import Digest

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
    wait_until(lambda: server.counters.served.get("pieces") == 2)
    wait_until(lambda: server.counters.sent_bytes == 10_000)


def test_a_ticket_is_bound_to_the_connection(serve: Callable[..., UploadServer]) -> None:
    server = serve()
    with Client(server) as seen, Client(server) as thief:
        ticket, proof = seen.ticket()
        assert seen.ask(pieces_path(SMALL.digest, 0, 0), ticket, proof)[0].status == 200
        assert thief.ask(pieces_path(SMALL.digest, 0, 0), ticket, proof)[0].status == 403
        thief.ticket()
        assert thief.ask(pieces_path(SMALL.digest, 0, 0), ticket, proof)[0].status == 403
        assert thief.ask(pieces_path(SMALL.digest, 0, 0), ticket)[0].status == 403


@pytest.mark.usefixtures("large")
def test_a_known_ticket_still_names_one_blob(serve: Callable[..., UploadServer]) -> None:
    with Client(serve()) as client:
        ticket, proof = client.ticket()
        assert client.ask(bitfield_path(SMALL.digest), ticket, proof)[0].status == 200
        assert client.ask(bitfield_path(LARGE.digest), ticket, proof)[0].status == 403


def test_a_ticket_expires_on_an_open_connection(serve: Callable[..., UploadServer]) -> None:
    now_s = time.time()
    with Client(serve(clock=lambda: now_s)) as client:
        ticket, proof = client.ticket()
        assert client.ask(bitfield_path(SMALL.digest), ticket, proof)[0].status == 200
        now_s += 7200
        assert client.ask(bitfield_path(SMALL.digest), ticket, proof)[0].status == 403


def test_who_shows_a_ticket_is_connected_from_then_on_and_whoever_else_connects_is_nobody(
    serve: Callable[..., UploadServer],
) -> None:
    server = serve()
    with Client(server) as stranger, Client(server) as thief, Client(server) as client:
        ticket, proof = client.ticket()
        assert stranger.ask(nonce_path())[0].status == 204
        assert thief.ask(nonce_path())[0].status == 204
        assert thief.ask(nonce_path(), ticket, proof)[0].status == 403
        assert not server.is_connected(DOWNLOADER.peer)
        answer, _ = client.ask(nonce_path(), ticket, proof)
        assert (answer.status, answer.nonce) == (204, client.nonce)
        assert server.is_connected(DOWNLOADER.peer)
    wait_until(lambda: not server.is_connected(DOWNLOADER.peer))


def test_who_was_given_a_piece_is_connected(serve: Callable[..., UploadServer]) -> None:
    server = serve()
    with Client(server) as client:
        client.ask(pieces_path(SMALL.digest, 0, 0), *client.ticket())
        assert server.is_connected(DOWNLOADER.peer)


def test_without_a_ticket_nothing_is_told(serve: Callable[..., UploadServer]) -> None:
    with Client(serve()) as client:
        for path in (pieces_path(SMALL.digest, 0, 0), bitfield_path(SMALL.digest), hashes_path(SMALL.digest)):
            assert client.ask(path)[0].status == 403


def test_without_a_supernode_nothing_is_served(store: DiskStore) -> None:
    server = UploadServer(HostPort("127.0.0.1", 0), store, lambda: None, UPLOADER, slots=1, queue_max=1)
    with Client(server) as client:
        assert client.ask(bitfield_path(SMALL.digest), *client.ticket())[0].status == 503
    server.close()


def test_signed_hashes_are_passed_on(serve: Callable[..., UploadServer]) -> None:
    with Client(serve()) as client:
        _, body = client.ask(hashes_path(SMALL.digest), *client.ticket())
        assert decode_hashes(body) == (SMALL.layout, (SignedHashes(0, SMALL.hashes, bytes(64)),))


@pytest.mark.parametrize("wanted", [True, False])
def test_the_hash_comes_with_the_piece_where_it_is_wanted(serve: Callable[..., UploadServer], wanted: bool) -> None:
    with Client(serve()) as client:
        client.send(format_request(pieces_path(SMALL.digest, 1, 1), "test", *client.ticket(), hash_wanted=wanted))
        answer, body = client.answer()
        assert (answer.status, body) == (200, SMALL.content[4096:8192])
        assert answer.hashes == (SignedHashes(0, SMALL.hashes, bytes(64)) if wanted else None)


def test_a_long_run_of_hashes_does_not_come_with_each_piece(
    store: DiskStore, serve: Callable[..., UploadServer]
) -> None:
    blob = some_blob(5 * 4096, piece_size_bytes=4096, seed=3)
    handle = fill(store, blob)
    handle.learn_hashes(SignedHashes(0, blob.hashes, bytes(64)))
    handle.close()
    with Client(serve()) as client:
        client.send(
            format_request(pieces_path(blob.digest, 1, 1), "test", *client.ticket(blob.digest), hash_wanted=True)
        )
        answer, _ = client.answer()
        assert (answer.status, answer.hashes) == (200, None)


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
        timeout=WAIT_S,
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
    wait_until(lambda: server.counters.refused == {"malformed": 1})
    wait_until(lambda: server.connections == 0)


def test_a_head_without_end_is_cut_off(serve: Callable[..., UploadServer]) -> None:
    server = serve()
    with Client(server) as client:
        with contextlib.suppress(OSError):
            for _ in range(1000):
                client.send(b"A" * 1024)
        assert client.is_closed()
    wait_until(lambda: server.counters.refused == {"malformed": 1})


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
    wait_until(lambda: server.connections == 0)


# --- switches --------------------------------------------------------------------------------------------------


def test_switched_off_it_serves_nothing_until_switched_on(serve: Callable[..., UploadServer]) -> None:
    server = serve()
    with Client(server) as client:
        ticket = client.ticket()
        server.enabled = False
        assert client.ask(bitfield_path(SMALL.digest), *ticket)[0].status == 404
        server.enabled = True
        assert client.ask(bitfield_path(SMALL.digest), *ticket)[0].status == 200


@pytest.mark.usefixtures("large")
def test_closing_cuts_transfers_off(serve: Callable[..., UploadServer]) -> None:
    server = serve()
    with Client(server, receive_buffer_bytes=4096) as stuck, Client(server) as idle:
        stuck.begin_large()
        idle.ask(nonce_path())
        wait_until(lambda: server.active == 1)
        server.close()
        assert stuck.is_closed()
        assert idle.is_closed()


def test_an_address_in_use_is_a_configuration_error(serve: Callable[..., UploadServer], store: DiskStore) -> None:
    with pytest.raises(ConfigError, match="--upload-listen"):
        UploadServer(parse_host_port(serve().address), store, lambda: None, UPLOADER)


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
            wait_until(lambda: server.active == 0)
    with Client(server) as client:
        assert client.ask(pieces_path(SMALL.digest, 0, 0), *client.ticket())[0].status == 200


def test_a_bug_with_one_request_costs_nobody_else_the_server(
    serve: Callable[..., UploadServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(digest: Digest) -> bool:
        raise RuntimeError("a bug")

    server = serve()
    with monkeypatch.context() as patch:
        patch.setattr(server._answerer, "_encrypted_alone", broken)
        with Client(server) as client, pytest.raises((EOFError, ConnectionError)):
            client.ask(pieces_path(SMALL.digest, 0, 0), *client.ticket())
    with Client(server) as client:
        assert client.ask(pieces_path(SMALL.digest, 0, 0), *client.ticket())[0].status == 200


def test_nor_does_a_bug_with_one_that_waits_for_its_turn_keep_its_place(
    serve: Callable[..., UploadServer], large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(turn: object) -> bool:
        raise RuntimeError("a bug")

    server = serve(slots=1, queue_max=1)
    with Client(server) as first:
        first.begin_large()
        first.wait_for_bytes()
        monkeypatch.setattr(server._turns, "waits", broken)
        with Client(server) as second:
            second.begin_large()
            assert second.is_closed()
        assert server.active == 1
        assert first.answer()[0].status == 200
