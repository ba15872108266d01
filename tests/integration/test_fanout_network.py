"""The shaped links of a fan-out: they carry what they shall and cost the senders nothing that real links do not."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.namespaces import enter, inside
from benchmarks.fanout.network import Network
from benchmarks.scenario import equal_links
from peer.transport.sockets import set_urgent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.fanout.site import Place

pytestmark = [pytest.mark.root, pytest.mark.client("ip", "tc")]

PIECE_BYTES = 128 << 10
PORT = 9000
# asm-generic/socket.h
SO_SNDBUFFORCE = 32


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    # 4 Mbit/s.
    with Network(equal_links(2, (PIECE_BYTES,), 500_000.0), "own", 1500, tmp_path) as made:
        yield made


def listen(place: Place) -> socket.socket:
    return inside(place.netns, lambda: socket.create_server((place.host, PORT)))


def send_one(listener: socket.socket) -> None:
    with listener.accept()[0] as connection:
        connection.sendall(bytes(PIECE_BYTES))


def receive_one(place: Place, host: str) -> int:
    enter(str(place.netns))
    received = 0
    with socket.create_connection((host, PORT)) as connection:
        while part := connection.recv(1 << 16):
            received += len(part)
    return received


def segments_sent_again(place: Place) -> int:
    """By TCP in this namespace so far."""

    def read() -> int:
        lines = [line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()]
        names, values = (line for line in lines if line[0] == "Tcp:")
        return int(values[names.index("RetransSegs")])

    return inside(place.netns, read)


def test_two_transfers_that_share_an_uplink_send_nothing_twice(network: Network) -> None:
    source, receiver = network.nodes
    with listen(source) as listener:
        senders = [threading.Thread(target=send_one, args=(listener,)) for _ in range(2)]
        counts: list[int] = []
        receivers = [
            threading.Thread(target=lambda: counts.append(receive_one(receiver, source.host))) for _ in range(2)
        ]
        for thread in [*senders, *receivers]:
            thread.start()
        for thread in [*senders, *receivers]:
            thread.join()
    assert counts == [PIECE_BYTES, PIECE_BYTES]
    # The receiver's own queue may drop a few while both begin.
    assert segments_sent_again(source) <= PIECE_BYTES // 1448 // 8


def test_a_request_goes_before_pieces_that_wait_at_the_same_end(network: Network) -> None:
    source, receiver = network.nodes
    datagrams = 700

    def send_all() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as pieces, socket.socket(type=socket.SOCK_DGRAM) as request:
            # Room for all of them: 2 s of the link.
            pieces.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 4 << 20)
            set_urgent(request)
            for _ in range(datagrams):
                pieces.sendto(bytes(1400), (receiver.host, PORT))
            request.sendto(b"request", (receiver.host, PORT))

    def open_receiver() -> socket.socket:
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.bind((receiver.host, PORT))
        return sock

    with inside(receiver.netns, open_receiver) as sock:
        inside(source.netns, send_all)
        before = 0
        while sock.recv(2000) != b"request":
            before += 1
    assert before < datagrams // 2
