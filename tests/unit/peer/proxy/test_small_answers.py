"""Answers that wait in memory for clients that read nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from peer.proxy import mirror as mirror_module
from peer.proxy.small_answers import SmallAnswers
from tests.unit.peer.proxy.harness import Reply, Seen, running_mirror, scripted_origin

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.unit.peer.proxy.harness import Mirror

# More than the sockets of a client that does not read take.
LONG = bytes(16 << 20)
TAGS = "/v2/team/app/tags/list"


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """There is room for one such answer."""
    monkeypatch.setattr(mirror_module, "SmallAnswers", lambda: SmallAnswers(len(LONG)))

    def answer(seen: Seen) -> Reply:
        return Reply(200, body=LONG if seen.target == TAGS else b"short")

    with scripted_origin(answer) as origin, running_mirror(origin.upstream) as running:
        yield running


def ask_and_not_read(mirror: Mirror) -> socket.socket:
    client = mirror.connect()
    client.sendall(f"GET {TAGS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    # Its answer has begun, so it is in memory here.
    assert client.recv(1) == b"H"
    return client


def test_beyond_the_limit_an_answer_is_refused_until_others_were_taken(mirror: Mirror) -> None:
    with ask_and_not_read(mirror):
        response, body = mirror.request(TAGS)
        assert (response.status, b"wait for clients that are slow" in body) == (503, True)
        # Short ones wait for nobody.
        assert mirror.request("/v2/")[1] == b"short"
    wait_until(lambda: mirror.request(TAGS)[0].status == 200)


def test_a_long_answer_comes_whole_and_its_connection_goes_on(mirror: Mirror) -> None:
    with mirror.connect() as client:
        for _ in range(2):
            client.sendall(f"GET {TAGS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            with client.makefile("rb") as reader:
                length = 0
                while (line := reader.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                assert reader.read(length) == LONG
