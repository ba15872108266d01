"""The near end of an intercepted tunnel: its TLS ends here, and the mirror reads on as from a connection of its own.

Between the two is a pair of sockets: the mirror sends into it by sendfile as into any other, and the tunnel's thread
encrypts. So payload bytes do not pass the event loop here either. What is asked in the tunnel is not seen here.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from peer.proxy.forward_policy import Intercepted
    from peer.proxy.node_authority import NodeAuthority
    from peer.proxy.tunnel import Tunnels

HANDSHAKE_S: Final = 10.0
_PAIR_BYTES: Final = 1 << 20


class Interception:
    """Of all tunnels of a mirror."""

    def __init__(self, authority: NodeAuthority, tunnels: Tunnels) -> None:
        self._authority = authority
        self._tunnels = tunnels

    def carry(
        self,
        client: socket.socket,
        decided: Intercepted,
        protocol: Callable[[], asyncio.Protocol],
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
                self._adopt(mirrors, protocol, loop)
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

    def _adopt(
        self, mirrors: socket.socket, protocol: Callable[[], asyncio.Protocol], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Have the mirror serve this end. Raises OSError."""

        async def adopt() -> None:
            await loop.connect_accepted_socket(protocol, mirrors)

        adopting = adopt()
        try:
            asyncio.run_coroutine_threadsafe(adopting, loop).result(HANDSHAKE_S)
        except BaseException:
            if inspect.getcoroutinestate(adopting) == inspect.CORO_CREATED:
                # The loop has ended, and begins nothing any more.
                adopting.close()
            mirrors.close()
            raise
