"""How intercepted tunnels end with their mirror: nothing comes to it any more, and nothing of it stays open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from benchmarks.cluster.processes import WAIT_S
from peer.metrics import Metrics
from peer.proxy.forward_policy import ForwardPolicy
from peer.proxy.forward_proxy import ForwardParts, ForwardProxy
from peer.proxy.node_authority import NodeAuthority
from peer.proxy.tunnel import Tunnels
from proto.oci.upstreams import UpstreamConfig, UpstreamTable
from proto.runtime.http_server import QuietRunner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio

HOST = "registry.example.com"
# More than the sockets between can hold.
BODY = bytes(16 << 20)


@dataclass
class Proxy:
    """A forward proxy that answers all that is asked in its tunnels; `asked` is set once something was."""

    authority: NodeAuthority
    forward: ForwardProxy
    runner: QuietRunner
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def tunnel(self) -> socket.socket:
        """A connection after its CONNECT; the TLS inside is still to begin. Blocking."""
        sock = socket.create_connection(self.runner.addresses[0][:2], WAIT_S)
        sock.sendall(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(1)
        assert answer.startswith(b"HTTP/1.1 200 ")
        return sock

    def ask(self, sock: socket.socket) -> ssl.SSLSocket:
        """Ask for something inside. Blocking."""
        context = ssl.create_default_context(cafile=self.authority.certificate_file)
        secured = context.wrap_socket(sock, server_hostname=HOST)
        secured.sendall(f"GET /v2/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        return secured


@contextlib.asynccontextmanager
async def running_proxy(folder: Path) -> AsyncIterator[Proxy]:
    authority, tunnels = NodeAuthority(folder), Tunnels(2, WAIT_S)
    authority.open([HOST])
    table = UpstreamTable([UpstreamConfig(HOST, f"https://{HOST}", configured=True)], HOST)

    async def answer(_: web.Request) -> web.StreamResponse:
        proxy.asked.set()
        return web.Response(body=BODY)

    parts = ForwardParts(ForwardPolicy(), lambda: table, authority, tunnels, Metrics(), frozenset())
    forward = ForwardProxy(parts, answer)
    app = web.Application()
    forward.join(app)
    app.router.add_get("/v2/", answer)
    runner = QuietRunner(app, shutdown_timeout=0.1)
    proxy = Proxy(authority, forward, runner)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield proxy
    finally:
        await runner.cleanup()
        await asyncio.to_thread(tunnels.close)


async def test_a_tunnel_whose_handshake_ends_after_the_mirror_is_not_served(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        with await asyncio.to_thread(proxy.tunnel) as sock:
            await proxy.runner.cleanup()
            with contextlib.suppress(OSError), await asyncio.to_thread(proxy.ask, sock) as inside:
                assert await asyncio.to_thread(inside.recv, 1) == b""
        assert not proxy.asked.is_set()


async def test_a_connection_in_a_tunnel_is_closed_once_the_mirror_has_ended_though_its_client_takes_nothing(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path) as proxy:
        sock = await asyncio.to_thread(proxy.tunnel)
        with await asyncio.to_thread(proxy.ask, sock):
            async with asyncio.timeout(WAIT_S):
                await proxy.asked.wait()
            assert proxy.forward._interception._open
            await proxy.runner.cleanup()
            assert not proxy.forward._interception._open
