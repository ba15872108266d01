"""The near end of an intercepted tunnel: its TLS ends here, and the mirror reads on as from a connection of its own.

Between the two is a pair of sockets: the mirror sends into it by sendfile as into any other, and the tunnel's thread
encrypts. So payload bytes do not pass the event loop here either. What is asked in the tunnel is not seen here. A
mirror that ends is given no more connections, and those that it was given end before its event loop does.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Final

from peer.transport.cancellation import FetchCancelled

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from peer.proxy.forward_policy import Intercepted
    from peer.proxy.node_authority import NodeAuthority
    from peer.proxy.tunnel import Tunnels
    from proto.runtime.http_server import QuietProtocol

HANDSHAKE_S: Final = 10.0
_PAIR_BYTES: Final = 1 << 20


class Interception:
    """Of all tunnels of a mirror, which calls give_no_more() when it begins to end, and close() once it has ended."""

    def __init__(self, authority: NodeAuthority, tunnels: Tunnels) -> None:
        self._authority = authority
        self._tunnels = tunnels
        # The event loop's own: connections on their way to the mirror, and those that it has, by what tells their end.
        self._ending = False
        self._given: set[asyncio.Task[object]] = set()
        self._open: dict[asyncio.Future[None], asyncio.Transport] = {}

    def carry(
        self,
        client: socket.socket,
        decided: Intercepted,
        protocol: Callable[[], QuietProtocol],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """In a thread, to the tunnel's end.

        Raises OSError where the client does not take the certificate, and FetchCancelled.
        """
        context = self._authority.context(decided.host)
        client.settimeout(HANDSHAKE_S)
        with context.wrap_socket(client, server_side=True, do_handshake_on_connect=False) as secured:
            self._shake_hands(secured)
            secured.settimeout(0)
            ours, mirrors = socket.socketpair()
            with contextlib.closing(ours):
                for each in (ours, mirrors):
                    each.settimeout(0)
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PAIR_BYTES)
                self._give(mirrors, protocol, loop)
                self._tunnels.carry(secured, ours)

    def _shake_hands(self, secured: ssl.SSLSocket) -> None:
        """Raises OSError, and FetchCancelled once all tunnels end: who stops does not wait for a silent client."""
        cancel = self._tunnels.cancel
        cancel.attach(secured)
        try:
            secured.do_handshake()
        except OSError:
            cancel.check()
            raise
        finally:
            cancel.detach(secured)

    def _give(
        self, mirrors: socket.socket, protocol: Callable[[], QuietProtocol], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Have the mirror serve this end. Raises OSError, and FetchCancelled where the mirror ends."""
        giving = self._connect(mirrors, protocol, loop)
        try:
            given = asyncio.run_coroutine_threadsafe(giving, loop)
        except RuntimeError:
            # The loop has ended, and begins nothing any more.
            giving.close()
            mirrors.close()
            raise FetchCancelled from None
        try:
            given.result(HANDSHAKE_S)
        except (CancelledError, TimeoutError) as error:
            given.cancel()
            if inspect.getcoroutinestate(giving) in (inspect.CORO_CREATED, inspect.CORO_CLOSED):
                # It does not begin any more. Between the two the socket is its own.
                mirrors.close()
            if isinstance(error, TimeoutError):
                raise
            raise FetchCancelled from None

    # --- on the event loop ---------------------------------------------------------------------------------------

    async def _connect(
        self, mirrors: socket.socket, protocol: Callable[[], QuietProtocol], loop: asyncio.AbstractEventLoop
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._given.add(task)
        try:
            if self._ending:
                raise FetchCancelled
            transport, served = await loop.connect_accepted_socket(protocol, mirrors)
        except BaseException:
            mirrors.close()
            raise
        finally:
            self._given.discard(task)
        self._open[served.lost] = transport
        served.lost.add_done_callback(self._open.pop)

    async def give_no_more(self) -> None:
        """The mirror ends: it knows by now all connections that it was given."""
        self._ending = True
        await asyncio.gather(*self._given, return_exceptions=True)

    async def close(self) -> None:
        """End what the mirror did not end, say because a client takes nothing, and wait until all are closed."""
        for transport in self._open.values():
            transport.abort()
        await asyncio.gather(*self._open)
