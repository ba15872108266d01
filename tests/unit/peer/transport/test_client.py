"""HttpTransport against servers that lie, stall, cut off and vanish, over real sockets."""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.store.disk import DiskStore
from peer.transport.base import FetchOutcome, PieceFetch, PieceSource
from peer.transport.client import HttpTransport
from peer.transport.rates import RateLimiter
from peer.transport.wire import HEAD_END, format_answer, format_refusal
from proto.errors import ConfigError, PeerBusy, RemoteError, TicketInvalid
from proto.ids import peer_name
from proto.wire.messages import FetchReason
from proto.wire.tickets import Identity, issue_ticket
from tests.support.blobs import some_blob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from peer.store.base import BlobHandle

BLOB = some_blob(100_000, piece_size_bytes=100_000)
DOWNLOADER = Identity.generate()
TICKET = issue_ticket(Identity.generate(), BLOB.digest, DOWNLOADER.peer, time.time() + 3600)
NONCE = format_answer(204, 0, nonce=bytes(32))
GOOD = format_answer(200, 100_000) + BLOB.content
# Longer than any outcome is waited for here.
LONG_S = 10 * WAIT_S


class Script:
    """A server that answers the requests of each connection with the next of these bytes, whatever is asked.

    None stands for "say nothing until the client hangs up"; after the last answer the connection is closed.
    """

    def __init__(self, *connections: list[bytes | None]) -> None:
        self.accepted = 0
        self.sent = 0
        self._connections = connections
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        for answers in self._connections:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            # Beyond what any test waits, so that one that fails comes to its end.
            sock.settimeout(2 * WAIT_S)
            with sock, contextlib.suppress(OSError):
                self._answer(sock, answers)

    def _answer(self, sock: socket.socket, answers: list[bytes | None]) -> None:
        for answer in answers:
            request = b""
            while HEAD_END not in request:
                chunk = sock.recv(4096)
                if not chunk:
                    return
                request += chunk
            if answer is None:
                while sock.recv(4096):
                    pass
                return
            sock.sendall(answer)
            self.sent += 1


class Download:
    """A transport with a store, and one blob in it whose hashes are known. It waits `patience_s` for any answer."""

    def __init__(self, root: Path, patience_s: float = LONG_S) -> None:
        self.store = DiskStore(root / "target", size_limit_bytes=1 << 30, free_floor_bytes=0)
        self.transport = HttpTransport(DOWNLOADER, workers=2, connect_timeout_s=patience_s, slot_wait_s=patience_s)
        self.handle: BlobHandle = self.store.open(BLOB.digest, BLOB.layout)
        self.handle.trust_hashes(0, BLOB.hashes)
        self.outcomes: queue.Queue[FetchOutcome] = queue.Queue()

    def start(self, address: str, *, fetch_id: int = 1, deadline_s: float = LONG_S, ticket: bytes = TICKET) -> None:
        source = PieceSource(peer_name(DOWNLOADER.peer), address)
        self.transport.start(PieceFetch(fetch_id, self.handle, 0, source, ticket, deadline_s), self.outcomes.put)

    def outcome(self) -> FetchOutcome:
        return self.outcomes.get(timeout=WAIT_S)

    def close(self) -> None:
        self.transport.close()
        self.handle.close()
        self.store.close()


@pytest.fixture
def download(tmp_path: Path) -> Iterator[Download]:
    download = Download(tmp_path)
    yield download
    download.close()


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Download]:
    download = Download(tmp_path, patience_s=0.5)
    yield download
    download.close()


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    scripts: list[Script] = []

    def start(*connections: list[bytes | None]) -> Script:
        scripts.append(Script(*connections))
        return scripts[-1]

    yield start
    for each in scripts:
        each.close()


# --- servers that lie ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (format_answer(200, 100_000) + bytes(100_000), FetchReason.CORRUPT),
        (format_answer(200, 99_999) + BLOB.content[:-1], FetchReason.PROTOCOL),
        (format_answer(200, 100_001) + BLOB.content + b"!", FetchReason.PROTOCOL),
        (format_answer(200, 100_000) + BLOB.content[:50_000], FetchReason.CONNECTION),
        (format_answer(204, 0), FetchReason.PROTOCOL),
        (format_refusal(400, "nonsense", keep_alive=False), FetchReason.PROTOCOL),
        (format_refusal(403, "no", keep_alive=True), FetchReason.TICKET),
        (format_refusal(404, "no", keep_alive=True), FetchReason.NOT_HELD),
        (format_refusal(503, "no", keep_alive=True), FetchReason.BUSY),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", FetchReason.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\n\r\n", FetchReason.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", FetchReason.PROTOCOL),
        (b"\x00" * 20_000, FetchReason.PROTOCOL),
        (b"HTTP/1.1 200", FetchReason.CONNECTION),
        (b"", FetchReason.CONNECTION),
    ],
)
def test_what_a_bad_answer_means(download: Download, script: Callable[..., Script], answer: bytes, reason: str) -> None:
    download.start(script([NONCE, answer]).address)
    assert download.outcome().reason == reason
    assert download.handle.held == 0


def test_a_fetch_that_asked_for_nothing_waited_for_no_answer(download: Download) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    download.start(address)
    outcome = download.outcome()
    assert (outcome.reason, outcome.answered_s) == (FetchReason.CONNECTION, 0.0)


@pytest.mark.parametrize("nonce", [b"HTTP/1.1 204 No Content\r\n\r\n", format_answer(204, 0, nonce=b"short")])
def test_a_server_without_a_nonce_fails_the_fetch(
    download: Download, script: Callable[..., Script], nonce: bytes
) -> None:
    download.start(script([nonce, GOOD]).address)
    assert download.outcome().reason in (FetchReason.PROTOCOL, FetchReason.CONNECTION)


@pytest.mark.parametrize("address", ["", "nowhere", "127.0.0.1:99999", "[::1:5", "a..b:80", "localhost:80"])
def test_an_address_that_makes_no_sense_is_the_remotes_fault(download: Download, address: str) -> None:
    download.start(address)
    assert download.outcome().reason == FetchReason.PROTOCOL


def test_a_corrupt_piece_can_be_fetched_elsewhere(download: Download, script: Callable[..., Script]) -> None:
    download.start(script([NONCE, format_answer(200, 100_000) + bytes(100_000)]).address)
    assert download.outcome().reason == FetchReason.CORRUPT
    download.start(script([NONCE, GOOD]).address)
    assert download.outcome().reason == ""
    assert download.handle.check_digest()


# --- servers that are slow -------------------------------------------------------------------------------------


def test_the_deadline_counts_from_the_first_byte(download: Download, script: Callable[..., Script]) -> None:
    download.start(script([NONCE, GOOD[:60_000], None]).address, deadline_s=0.3)
    # The script waits for a second request that never comes.
    assert download.outcome().reason == FetchReason.TIMEOUT


def test_a_server_that_never_answers_is_given_up(impatient: Download, script: Callable[..., Script]) -> None:
    impatient.start(script([NONCE, None]).address)
    assert impatient.outcome().reason == FetchReason.TIMEOUT


def test_a_server_that_never_gives_a_nonce_is_given_up(impatient: Download, script: Callable[..., Script]) -> None:
    impatient.start(script([None]).address)
    assert impatient.outcome().reason == FetchReason.TIMEOUT


def test_a_cancel_ends_a_stalled_transfer_now(download: Download, script: Callable[..., Script]) -> None:
    server = script([NONCE, GOOD[:60_000], None])
    download.start(server.address)
    wait_until(lambda: server.sent == 2)
    download.transport.cancel(1)
    assert download.outcome().reason == FetchReason.CANCELLED


def test_a_cancel_before_its_turn_is_told_too(download: Download, script: Callable[..., Script]) -> None:
    stalled = [script([NONCE, None]) for _ in range(2)]
    for fetch_id in (1, 2):
        download.start(stalled[fetch_id - 1].address, fetch_id=fetch_id)
    download.start(stalled[0].address, fetch_id=3)
    for fetch_id in (3, 2, 1):
        download.transport.cancel(fetch_id)
    outcomes = [download.outcome() for _ in range(3)]
    assert {outcome.reason for outcome in outcomes} == {FetchReason.CANCELLED}
    assert {outcome.fetch_id for outcome in outcomes} == {1, 2, 3}


def test_closing_cancels_all(tmp_path: Path, script: Callable[..., Script]) -> None:
    download = Download(tmp_path)
    stalled = script([NONCE, None])
    for fetch_id in range(5):
        download.start(stalled.address, fetch_id=fetch_id)
    download.close()
    assert {download.outcome().reason for _ in range(5)} == {FetchReason.CANCELLED}


# --- keep-alive ------------------------------------------------------------------------------------------------


def test_a_connection_is_used_again(download: Download, script: Callable[..., Script]) -> None:
    server = script([NONCE, format_refusal(503, "busy", keep_alive=True), GOOD])
    download.start(server.address)
    assert download.outcome().reason == FetchReason.BUSY
    download.start(server.address)
    assert download.outcome().reason == ""
    assert server.accepted == 1


def test_a_request_goes_before_what_else_waits_at_the_interface(
    download: Download, script: Callable[..., Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []

    class Recorded(socket.socket):
        def connect(self, address: object) -> None:
            super().connect(address)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr("peer.transport.connection.socket.socket", Recorded)
    download.start(script([NONCE, GOOD]).address)
    assert download.outcome().reason == ""
    # linux/pkt_sched.h: interactive.
    assert [sock.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) for sock in made] == [6]


def test_a_warm_connection_that_was_closed_is_replaced(download: Download, script: Callable[..., Script]) -> None:
    server = script([NONCE, format_refusal(503, "busy", keep_alive=True)], [NONCE, GOOD])
    download.start(server.address)
    assert download.outcome().reason == FetchReason.BUSY
    download.start(server.address)
    assert download.outcome().reason == ""
    assert server.accepted == 2


# --- questions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (format_refusal(503, "no", keep_alive=True), PeerBusy),
        (format_refusal(403, "no", keep_alive=True), TicketInvalid),
        (format_refusal(404, "no", keep_alive=True), RemoteError),
        (format_refusal(400, "no", keep_alive=False), RemoteError),
        (format_answer(200, 10**9), RemoteError),
        (format_answer(200, 100) + b"short", RemoteError),
        (b"nonsense" + HEAD_END, RemoteError),
        (None, RemoteError),
    ],
)
def test_what_a_bad_answer_to_a_question_means(
    download: Download, script: Callable[..., Script], answer: bytes | None, error: type[RemoteError]
) -> None:
    source = PieceSource(peer_name(DOWNLOADER.peer), script([NONCE, answer]).address)
    with pytest.raises(error):
        download.transport.hashes(source, BLOB.digest, TICKET, 0.5 if answer is None else LONG_S)


# --- the rest --------------------------------------------------------------------------------------------------


def test_buffers_beyond_the_limit_are_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="at most"):
        HttpTransport(DOWNLOADER, workers=129, buffer_bytes=256 * 1024)


def test_a_download_limit_slows_the_receiver(tmp_path: Path, script: Callable[..., Script]) -> None:
    download = Download(tmp_path)
    download.transport.close()
    download.transport = HttpTransport(DOWNLOADER, workers=1, buffer_bytes=16 * 1024, limiter=RateLimiter(200_000))
    started_s = time.monotonic()
    download.start(script([NONCE, GOOD]).address)
    assert download.outcome().reason == ""
    assert time.monotonic() - started_s > 0.2
    download.close()


class CountingLimiter(RateLimiter):
    """So fast that nobody waits; it knows what was taken of it."""

    def __init__(self) -> None:
        super().__init__(10**12)
        self.taken_bytes = 0

    def take(self, size_bytes: int) -> None:
        self.taken_bytes += size_bytes
        super().take(size_bytes)


def test_what_comes_with_an_answers_head_counts_against_the_limit(
    tmp_path: Path, script: Callable[..., Script]
) -> None:
    download = Download(tmp_path)
    download.transport.close()
    limiter = CountingLimiter()
    download.transport = HttpTransport(DOWNLOADER, workers=1, buffer_bytes=256 * 1024, limiter=limiter)
    download.start(script([NONCE, GOOD]).address)
    assert download.outcome().reason == ""
    assert limiter.taken_bytes == BLOB.layout.size_bytes
    download.close()


SERVER = """
import sys, time
from pathlib import Path
from peer.store.disk import DiskStore
from peer.transport.server import UploadServer
from proto.config.values import HostPort
from proto.ids import PeerName
from tests.support.blobs import fill, some_blob
store = DiskStore(Path(sys.argv[1]), size_limit_bytes=1 << 30, free_floor_bytes=0)
fill(store, some_blob(8 << 20, piece_size_bytes=1 << 20)).close()
key = bytes.fromhex(sys.argv[2])
name, rate = PeerName(bytes.fromhex(sys.argv[4])), int(sys.argv[3])
server = UploadServer(HostPort("127.0.0.1", 0), store, lambda: key, name, slots=2, rate_limit_bytes_s=rate)
print(server.address, flush=True)
while not (server.active or server.counters.served["pieces"]):
    time.sleep(0.01)
print("sending", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_two_processes_and_one_of_them_killed_in_mid_piece(tmp_path: Path, killed: bool) -> None:
    supernode = Identity.generate()
    blob = some_blob(8 << 20, piece_size_bytes=1 << 20)
    ticket = issue_ticket(supernode, blob.digest, DOWNLOADER.peer, time.time() + 3600)
    # A piece would take a minute.
    rate, uploader = str(16 << 10 if killed else 0), peer_name(Identity.generate().peer)
    command = [sys.executable, "-c", SERVER, str(tmp_path / "source"), supernode.peer.hex(), rate, uploader.hex()]
    store = DiskStore(tmp_path / "target", size_limit_bytes=1 << 30, free_floor_bytes=0)
    transport = HttpTransport(DOWNLOADER, workers=2, connect_timeout_s=LONG_S, slot_wait_s=LONG_S)
    handle = store.open(blob.digest, blob.layout)
    handle.trust_hashes(0, blob.hashes)
    outcomes: queue.Queue[FetchOutcome] = queue.Queue()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        source = PieceSource(uploader, process.stdout.readline().strip())
        for piece in range(blob.layout.count):
            transport.start(PieceFetch(piece, handle, piece, source, ticket, LONG_S), outcomes.put)
        if killed:
            assert process.stdout.readline() == "sending\n"
            process.kill()
        reasons = {outcomes.get(timeout=WAIT_S).reason for _ in range(blob.layout.count)}
        process.kill()
    if killed:
        assert reasons == {FetchReason.CONNECTION}
        assert handle.held == 0
    else:
        assert reasons == {""}
        assert handle.check_digest()
    transport.close()
    handle.close()
    store.close()


# --- connections opened ahead of use ---------------------------------------------------------------------------


def connect_ahead(download: Download, address: str) -> None:
    download.transport.connect(PieceSource(peer_name(DOWNLOADER.peer), address), TICKET)


def test_a_node_that_nobody_reaches_takes_one_thread_from_fetches_however_often_it_is_named(
    download: Download, script: Callable[..., Script]
) -> None:
    silent = script([None], [None], [None])
    for _ in range(4):
        connect_ahead(download, silent.address)
    wait_until(lambda: silent.accepted == 1)
    download.start(script([NONCE, GOOD]).address)
    assert download.outcome().reason == ""
    download.transport.close()


def test_where_connecting_ahead_failed_it_is_left_to_fetches(download: Download, script: Callable[..., Script]) -> None:
    source = script([], [NONCE, GOOD])
    connect_ahead(download, source.address)
    wait_until(lambda: source.accepted == 1 and not download.transport._ahead)
    connect_ahead(download, source.address)
    download.start(source.address)
    assert download.outcome().reason == ""
    assert source.accepted == 2


def test_closing_does_not_wait_for_what_is_opened_ahead(tmp_path: Path, script: Callable[..., Script]) -> None:
    download, silent = Download(tmp_path), script([None])
    connect_ahead(download, silent.address)
    wait_until(lambda: silent.accepted == 1)
    closing = threading.Thread(target=download.close)
    closing.start()
    closing.join(WAIT_S)
    assert not closing.is_alive()
