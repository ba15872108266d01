"""Bytes between two sockets: all of them, both ways at once, to the end that each side says; and how tunnels end."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.proxy.tunnel import Tunnels, send_all
from peer.registry.tunnel_ends import TunnelLoop, open_tunnel_end
from peer.transport.cancellation import Cancellation
from proto.errors import UpstreamError, UpstreamKind

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE_BYTES = 5_000_000


@contextmanager
def tunnel(idle_s: float = WAIT_S) -> Iterator[tuple[socket.socket, socket.socket, Tunnels]]:
    """A client, the server at the far end, and the tunnel between them."""
    client, near = socket.socketpair()
    far, server = socket.socketpair()
    for each in (near, far):
        each.settimeout(0)
    for each in (client, server):
        each.settimeout(WAIT_S)
    tunnels = Tunnels(1, idle_s)
    tunnels.threads.submit(tunnels.carry, near, far)
    with client, server:
        try:
            yield client, server, tunnels
        finally:
            tunnels.close()


def receive_all(sock: socket.socket) -> bytes:
    content = bytearray()
    while part := sock.recv(65536):
        content += part
    return bytes(content)


def test_both_directions_go_on_at_once_and_end_by_themselves() -> None:
    up, down = b"u" * SIZE_BYTES, b"d" * SIZE_BYTES
    received: dict[str, bytes] = {}

    def talk(name: str, sock: socket.socket, content: bytes) -> None:
        def send() -> None:
            sock.sendall(content)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        received[name] = receive_all(sock)
        sender.join(WAIT_S)

    with tunnel() as (client, server, _):
        other = threading.Thread(target=talk, args=("server", server, down))
        other.start()
        talk("client", client, up)
        other.join(WAIT_S)
    assert received == {"client": down, "server": up}


def test_an_end_that_has_said_all_still_hears_the_other() -> None:
    with tunnel() as (client, server, _):
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == b"question"
        server.sendall(b"answer")
        server.close()
        assert receive_all(client) == b"answer"


def test_a_tunnel_without_a_byte_ends() -> None:
    with tunnel(idle_s=0.05) as (client, server, _):
        assert receive_all(client) == b""
        assert receive_all(server) == b""


def test_all_tunnels_end_with_the_node() -> None:
    with tunnel() as (client, server, tunnels):
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        tunnels.close()
        assert receive_all(client) == b""


def test_there_are_no_more_than_the_limit() -> None:
    tunnels = Tunnels(2, WAIT_S)
    assert [tunnels.admit(client) for client in ("a", "b", "c")] == [True, True, False]
    tunnels.release("a")
    assert tunnels.admit("c")
    tunnels.close()


def test_one_client_gets_half_of_them_at_most() -> None:
    tunnels = Tunnels(4, WAIT_S)
    assert [tunnels.admit("a") for _ in range(3)] == [True, True, False]
    assert tunnels.admit("b")
    tunnels.release("a")
    assert tunnels.admit("a")
    tunnels.close()


def test_what_the_other_end_does_not_take_is_given_up() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)
        with pytest.raises(TimeoutError):
            send_all(ours, bytes(SIZE_BYTES), 0.05)


# --- the far end ------------------------------------------------------------------------------------------------


@contextmanager
def listener() -> Iterator[socket.socket]:
    """On loopback; nobody is to come."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def connections_of(server: socket.socket) -> int:
    server.settimeout(0)
    count = 0
    try:
        while True:
            server.accept()[0].close()
            count += 1
    except BlockingIOError:
        return count


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.1.1", "::1", "::ffff:127.0.0.1", "fd00::1", "0.0.0.0"],
)
def test_a_name_that_leads_to_an_address_that_is_not_public_is_not_connected_to(address: str) -> None:
    with listener() as server:
        port = server.getsockname()[1]
        with pytest.raises(UpstreamError) as refused:
            open_tunnel_end(
                "evil.example.com",
                port,
                trusted=False,
                own_ports=(),
                cancel=Cancellation(),
                resolver=lambda host, port: [address],
            )
        assert refused.value.kind is UpstreamKind.DENIED
        assert connections_of(server) == 0


def test_a_name_is_asked_for_once_and_what_was_checked_is_connected_to() -> None:
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    with listener() as server:
        end = open_tunnel_end(
            "named.example.com",
            server.getsockname()[1],
            trusted=True,
            own_ports=(),
            cancel=Cancellation(),
            resolver=lambda host, port: next(answers),
        )
        end.close()
        wait_until(lambda: connections_of(server) == 1)
    assert next(answers) == ["10.0.0.1"]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "0.0.0.0", "::1"])
def test_a_tunnel_to_the_proxy_itself_is_seen(address: str) -> None:
    with listener() as server:
        port = server.getsockname()[1]
        with pytest.raises(TunnelLoop):
            open_tunnel_end(
                "me.example.com",
                port,
                trusted=True,
                own_ports={port},
                cancel=Cancellation(),
                resolver=lambda host, port: [address],
            )
        assert connections_of(server) == 0


def test_a_name_that_cannot_be_resolved_is_the_origins_trouble() -> None:
    def resolver(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(UpstreamError) as refused:
        open_tunnel_end(
            "nowhere.example.com", 443, trusted=False, own_ports=(), cancel=Cancellation(), resolver=resolver
        )
    assert refused.value.kind is UpstreamKind.UNAVAILABLE
