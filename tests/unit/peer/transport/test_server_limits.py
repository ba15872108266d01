"""UploadServer's limits: slots, the queue for them, connections, rates; against clients that take their time."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks.cluster.processes import wait_until
from peer.transport.wire import bitfield_path, format_request, nonce_path, pieces_path
from proto.wire.tickets import Identity
from tests.unit.peer.transport.upload_harness import LARGE, SMALL, Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.transport.server import UploadServer

pytestmark = pytest.mark.usefixtures("large")

# linux/sockios.h: bytes of a socket that have not been sent at all.
_SIOCOUTQNSD: Final = 0x894B


def test_beyond_slots_and_queue_it_is_busy_and_the_connection_stays(serve: Callable[..., UploadServer]) -> None:
    server = serve(slots=1, queue_max=1)
    with Client(server) as first, Client(server) as second, Client(server) as third:
        third_ticket = third.ticket()
        first.begin_large()
        second.begin_large()
        wait_until(lambda: server.active == 2)
        answer, _ = third.ask(pieces_path(SMALL.digest, 0, 0), *third_ticket)
        assert (answer.status, answer.keep_alive) == (503, True)
        # A question is answered all the same.
        assert third.ask(bitfield_path(SMALL.digest), *third_ticket)[0].status == 200
        assert first.answer()[1] == LARGE.content
        assert second.answer()[1] == LARGE.content
        wait_until(lambda: server.active == 0)
        assert third.ask(pieces_path(SMALL.digest, 0, 0), *third_ticket)[0].status == 200
    wait_until(lambda: server.counters.refused == {"busy": 1})


def test_slots_are_given_in_the_order_of_asking(serve: Callable[..., UploadServer]) -> None:
    server = serve(slots=1, queue_max=2)
    with Client(server) as first, Client(server) as second, Client(server) as third:
        first.begin_large()
        wait_until(lambda: server.active == 1)
        second.begin_large()
        wait_until(lambda: server.active == 2)
        ticket, proof = third.ticket()
        third.send(format_request(pieces_path(SMALL.digest, 0, 0), "test", ticket, proof))
        wait_until(lambda: server.active == 3)
        assert first.answer()[0].status == 200
        second.wait_for_bytes()
        assert not third.has_bytes()
        assert second.answer()[0].status == 200
        assert third.answer()[0].status == 200


def test_a_request_granted_ahead_waits_for_the_end_of_a_transfer_though_a_slot_is_free(
    serve: Callable[..., UploadServer],
) -> None:
    server = serve(slots=2, queue_max=2)
    with Client(server) as first, Client(server) as second:
        ticket, proof = second.ticket()
        first.begin_large()
        wait_until(lambda: server.active == 1)
        second.send(format_request(pieces_path(SMALL.digest, 0, 0), "test", ticket, proof, ahead=True))
        wait_until(lambda: len(server._turns._ahead) == 1)
        assert not second.has_bytes()
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
        wait_until(lambda: server.active == 1)
        with Client(server) as second:
            second.begin_large()
            wait_until(lambda: server.active == 2)
        assert first.answer()[0].status == 200
        wait_until(lambda: server.active == 0 and server.connections == 1)
    wait_until(lambda: server.counters.served.get("pieces") == 1)


def test_a_receiver_that_takes_nothing_loses_its_slot(serve: Callable[..., UploadServer]) -> None:
    server = serve(slots=1, send_timeout_s=0.5)
    with Client(server, receive_buffer_bytes=4096) as stuck:
        stuck.begin_large()
        wait_until(lambda: server.counters.refused["gone"] == 1)
        wait_until(lambda: server.active == 0)


def test_more_connections_than_allowed_are_refused(serve: Callable[..., UploadServer]) -> None:
    server = serve(connections_max=1)
    with Client(server) as first:
        first.begin_large()
        wait_until(lambda: server.active == 1)
        with Client(server) as second:
            assert second.is_closed()
        assert first.answer()[0].status == 200
    wait_until(lambda: server.counters.refused == {"connections": 1})


def test_the_connection_idle_the_longest_makes_room_for_a_new_one(serve: Callable[..., UploadServer]) -> None:
    server = serve(connections_max=2)
    with Client(server) as first, Client(server) as second:
        assert first.ask(nonce_path())[0].status == second.ask(nonce_path())[0].status == 204
        assert first.ask(nonce_path())[0].status == 204
        with Client(server) as third:
            assert third.ask(nonce_path())[0].status == 204
            assert second.is_closed()
            assert first.ask(nonce_path())[0].status == 204
    wait_until(lambda: server.counters.refused == {})


def test_the_rate_limit_is_over_all_connections(serve: Callable[..., UploadServer]) -> None:
    server = serve(slots=4, rate_limit_bytes_s=32 << 20)
    started_s = time.monotonic()
    with Client(server) as first, Client(server) as second:
        first.begin_large()
        second.begin_large()
        assert first.answer()[1] == second.answer()[1] == LARGE.content
    assert time.monotonic() - started_s > 0.8
    server.set_rate_limit(0)


def settled(read: Callable[[], int]) -> int:
    """What is read once it has become more than nothing and grows no more."""
    seen = [0]

    def still() -> bool:
        seen.append(read())
        return 0 < seen[-1] == seen[-2]

    wait_until(still)
    return seen[-1]


def test_an_upload_is_over_only_when_little_of_it_is_left_unsent(serve: Callable[..., UploadServer]) -> None:
    server = serve()
    with Client(server, receive_buffer_bytes=4096) as slow:
        slow.begin_large()
        wait_until(lambda: server.active == 1)
        (connection,) = server._connections.values()

        def unsent_at_most() -> int:
            return connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)

        # It is set when the upload begins, which counts as active a moment before.
        wait_until(lambda: unsent_at_most() > 0)
        unsent_max = unsent_at_most()
        assert unsent_max <= LARGE.layout.length(0) / 16
        unsent = settled(lambda: struct.unpack("i", fcntl.ioctl(connection.sock, _SIOCOUTQNSD, bytes(4)))[0])
        # One more buffer of the kernel's may be added while less than that is unsent.
        assert 0 < unsent < 2 * unsent_max + 64 * 1024


def trickle(client: Client, over: threading.Event, size_bytes: int = 4096) -> None:
    """Take a little ten times a second. 4 KiB are more than the floor, and less than any link carries."""
    client.sock.settimeout(0.1)
    while not over.wait(0.1):
        with contextlib.suppress(OSError):
            client.sock.recv(size_bytes)


@pytest.mark.usefixtures("slow_soon")
def test_one_address_with_a_trickle_and_requests_ahead_keeps_nobody_from_a_slot(
    serve: Callable[..., UploadServer],
) -> None:
    server = serve(slots=2, queue_max=2)
    stranger = Identity.generate()
    over = threading.Event()
    with contextlib.ExitStack() as closing:

        def attacker() -> Client:
            return closing.enter_context(
                Client(server, receive_buffer_bytes=4096, downloader=stranger, address="127.0.0.2")
            )

        slow = attacker()
        slow.begin_large()
        wait_until(lambda: server.active == 1)
        thread = threading.Thread(target=trickle, args=(slow, over))
        thread.start()
        for _ in range(15):
            ahead = attacker()
            ahead.send(format_request(pieces_path(LARGE.digest, 0, 0), "test", *ahead.ticket(LARGE.digest), ahead=True))
        wait_until(lambda: server.active >= 4)
        with Client(server) as honest:
            for _ in range(5):
                assert honest.ask(pieces_path(SMALL.digest, 0, 0), *honest.ticket())[0].status == 200
        over.set()
        thread.join()


@pytest.mark.usefixtures("slow_soon")
def test_a_receiver_that_lets_its_transfer_trickle_keeps_nobody_from_a_slot(serve: Callable[..., UploadServer]) -> None:
    server = serve(slots=1, queue_max=1)
    over = threading.Event()
    with Client(server, receive_buffer_bytes=4096) as slow, Client(server) as other:
        slow.begin_large()
        wait_until(lambda: server.active == 1)
        thread = threading.Thread(target=trickle, args=(slow, over))
        thread.start()
        assert other.ask(pieces_path(SMALL.digest, 0, 0), *other.ticket())[0].status == 200
        assert server.counters.refused == {}
        over.set()
        thread.join()


def test_a_transfer_below_the_floor_is_cut_off(serve: Callable[..., UploadServer]) -> None:
    server = serve(slots=1, send_timeout_s=1.0)
    over = threading.Event()
    with Client(server, receive_buffer_bytes=4096) as slow:
        slow.begin_large()
        thread = threading.Thread(target=trickle, args=(slow, over, 512))
        thread.start()
        wait_until(lambda: server.counters.refused["stalled"] + server.counters.refused["gone"] >= 1)
        wait_until(lambda: server.active == 0)
        over.set()
        thread.join()


def test_who_hangs_up_while_waiting_gives_its_place_back_at_once(serve: Callable[..., UploadServer]) -> None:
    server = serve(slots=1, queue_max=1)
    with Client(server) as first:
        first.begin_large()
        wait_until(lambda: server.active == 1)
        with Client(server) as second:
            second.begin_large()
            wait_until(lambda: server.active == 2)
        wait_until(lambda: server.active == 1 and server.connections == 1)
        assert first.answer()[0].status == 200


def test_connections_of_one_address_make_room_for_another(serve: Callable[..., UploadServer]) -> None:
    server = serve(connections_max=3)
    with Client(server) as mine, Client(server, address="127.0.0.2") as first, Client(server, address="127.0.0.2"):
        assert mine.ask(nonce_path())[0].status == 204
        assert first.ask(nonce_path())[0].status == 204
        with Client(server, address="127.0.0.3") as third:
            assert third.ask(nonce_path())[0].status == 204
            assert mine.ask(nonce_path())[0].status == 204
