"""HttpTransport, one fetch behind another: it connects at once and asks when the one before it is nearly over."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.store.disk import DiskStore
from peer.transport.base import FetchOutcome, PieceFetch, PieceSource
from peer.transport.client import HttpTransport
from peer.transport.wire import HEAD_END, format_answer, nonce_path
from proto.ids import peer_name
from proto.wire.messages import FetchReason
from proto.wire.tickets import Identity, issue_ticket
from tests.support.blobs import some_blob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PIECE_BYTES = 100_000
BLOB = some_blob(3 * PIECE_BYTES, piece_size_bytes=PIECE_BYTES)
DOWNLOADER = Identity.generate()
TICKET = issue_ticket(Identity.generate(), BLOB.digest, DOWNLOADER.peer, time.time() + 3600)
# Requests over a connection: the first asks for the nonce, the second for the piece. One that is opened ahead of use
# says whose it is between the two.
CONNECTED, ASKED = 1, 2
INTRODUCED, ASKED_AFTER_THAT = 2, 3
# Longer than anything is waited for here.
LONG_S = 10 * WAIT_S


class Source:
    """One connection; it counts the requests and sends of its piece what it is told to."""

    def __init__(self, piece: int) -> None:
        self.requests = 0
        self._piece = BLOB.content[piece * PIECE_BYTES : (piece + 1) * PIECE_BYTES]
        self._sends: queue.Queue[tuple[int, int] | None] = queue.Queue()
        self._sock: socket.socket | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def send(self, first: int, last: int) -> None:
        """These bytes of the piece, the head before byte 0."""
        self._sends.put((first, last))

    def hang_up(self) -> None:
        self._sends.put(None)

    def close(self) -> None:
        self.hang_up()
        for sock in (self._listener, self._sock):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            self._sock, _ = self._listener.accept()
            with self._sock as sock:
                sock.settimeout(WAIT_S)
                while nonce_path().encode() in self._read_request(sock):
                    sock.sendall(format_answer(204, 0, nonce=bytes(32)))
                while (part := self._sends.get()) is not None:
                    first, last = part
                    head = b"" if first else format_answer(200, PIECE_BYTES)
                    sock.sendall(head + self._piece[first:last])

    def _read_request(self, sock: socket.socket) -> bytes:
        request = b""
        while HEAD_END not in request:
            chunk = sock.recv(4096)
            if not chunk:
                raise OSError
            request += chunk
        self.requests += 1
        return request


class Node:
    """A transport with a store; fetch 1 gets piece 0 and so on, each from a source of its own."""

    def __init__(self, root: Path, slot_wait_s: float) -> None:
        self.store = DiskStore(root / f"store-{slot_wait_s}", size_limit_bytes=1 << 30, free_floor_bytes=0)
        self.transport = HttpTransport(DOWNLOADER, workers=3, connect_timeout_s=LONG_S, slot_wait_s=slot_wait_s)
        self.handle = self.store.open(BLOB.digest, BLOB.layout)
        self.handle.trust_hashes(0, BLOB.hashes)
        self.sources = [Source(piece) for piece in range(BLOB.layout.count)]
        self.outcomes: queue.Queue[FetchOutcome] = queue.Queue()

    def start(self, fetch_id: int, *, behind: int = 0) -> None:
        source = PieceSource(peer_name(DOWNLOADER.peer), self.sources[fetch_id - 1].address)
        fetch = PieceFetch(fetch_id, self.handle, fetch_id - 1, source, TICKET, LONG_S, behind=behind)
        self.transport.start(fetch, self.outcomes.put)

    def outcome(self) -> tuple[int, str]:
        outcome = self.outcomes.get(timeout=WAIT_S)
        return outcome.fetch_id, outcome.reason

    def close(self) -> None:
        for source in self.sources:
            source.close()
        self.transport.close()
        self.handle.close()
        self.store.close()


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def make(slot_wait_s: float = LONG_S) -> Node:
        nodes.append(Node(tmp_path, slot_wait_s))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


def started(node: Node) -> tuple[Source, Source]:
    """Fetch 1 has most of its piece, fetch 2 its connection."""
    first, second, _ = node.sources
    node.start(1)
    wait_until(lambda: first.requests == ASKED)
    node.start(2, behind=1)
    wait_until(lambda: second.requests >= CONNECTED)
    first.send(0, 80_000)
    return first, second


def test_it_connects_at_once_and_asks_when_the_one_before_is_nearly_over(make_node: Callable[..., Node]) -> None:
    node = make_node()
    first, second = started(node)
    # One that is behind nobody asks meanwhile.
    node.start(3)
    wait_until(lambda: node.sources[2].requests == ASKED)
    assert second.requests == CONNECTED
    first.send(80_000, 95_000)
    wait_until(lambda: second.requests == ASKED)
    second.send(0, PIECE_BYTES)
    assert node.outcome() == (2, "")
    first.send(95_000, PIECE_BYTES)
    assert node.outcome() == (1, "")


def test_it_asks_when_the_one_before_has_failed(make_node: Callable[..., Node]) -> None:
    node = make_node()
    first, second = started(node)
    first.hang_up()
    assert node.outcome() == (1, FetchReason.CONNECTION)
    wait_until(lambda: second.requests == ASKED)


def test_it_asks_at_once_when_the_one_before_is_over_already(make_node: Callable[..., Node]) -> None:
    node = make_node()
    node.start(2, behind=1)
    wait_until(lambda: node.sources[1].requests == ASKED)


def test_cancelled_while_it_waits_it_ends_without_asking(make_node: Callable[..., Node]) -> None:
    node = make_node()
    _, second = started(node)
    node.transport.cancel(2)
    assert node.outcome() == (2, FetchReason.CANCELLED)
    assert second.requests == CONNECTED


def test_it_waits_no_longer_than_for_a_slot(make_node: Callable[..., Node]) -> None:
    node = make_node(slot_wait_s=0.3)
    _, second = started(node)
    wait_until(lambda: second.requests == ASKED)


def test_a_connection_opened_beforehand_is_used_by_the_fetch(make_node: Callable[..., Node]) -> None:
    node = make_node()
    first = node.sources[0]
    node.transport.connect(PieceSource(peer_name(DOWNLOADER.peer), first.address), TICKET)
    wait_until(lambda: node.transport._pool.has(first.address))
    assert first.requests == INTRODUCED
    node.start(1)
    wait_until(lambda: first.requests == ASKED_AFTER_THAT)
    first.send(0, PIECE_BYTES)
    assert node.outcome() == (1, "")


def test_nobody_answers_beforehand_and_the_fetch_tells(make_node: Callable[..., Node]) -> None:
    node = make_node()
    node.sources[0].close()
    node.transport.connect(PieceSource(peer_name(DOWNLOADER.peer), node.sources[0].address), TICKET)
    node.start(1)
    assert node.outcome() == (1, FetchReason.CONNECTION)
