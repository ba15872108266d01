"""The shaped links of a fan-out: they carry what they shall and cost the senders nothing that real links do not."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.namespaces import enter, inside
from benchmarks.fanout.network import Network
from benchmarks.scenario import equal_links

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.fanout.site import Place

pytestmark = [pytest.mark.root, pytest.mark.client("ip", "tc")]

PIECE_BYTES = 128 << 10
PORT = 9000


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


def test_nodes_send_what_is_urgent_first(network: Network) -> None:
    (node, _) = network.nodes
    shown = inside(
        node.netns,
        lambda: (
            subprocess.run(["tc", "qdisc", "show", "dev", "eth0"], capture_output=True, text=True, check=True).stdout
        ),
    )
    # Of its bands the interactive priority (6) has the first.
    assert "qdisc pfifo_fast" in shown
    assert "priomap 1 2 2 2 1 2 0 0" in shown
