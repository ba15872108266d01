"""The far end of a tunnel: a connection to a host that is no upstream, which a client named. Blocking.

The address that was checked is the one connected to. Nothing is known of what goes through it.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Final

from peer.registry.addresses import is_public_address
from peer.registry.sockets import connect, resolve
from proto.errors import RemoteError, UpstreamError, UpstreamKind

if TYPE_CHECKING:
    from collections.abc import Collection

    from peer.registry.addresses import Resolver
    from peer.transport.cancellation import Cancellation

CONNECT_S: Final = 10.0


class TunnelLoop(RemoteError):
    """The client asked for a tunnel to the proxy that it asked."""


def open_tunnel_end(
    host: str,
    port: int,
    *,
    trusted: bool,
    own_ports: Collection[int],
    cancel: Cancellation,
    resolver: Resolver = resolve,
) -> socket.socket:
    """Connect to the first address of the host that may be connected to and answers.

    Where the operator did not name it (`trusted`), only public addresses may. `own_ports` are where this process
    listens. Raises UpstreamError (denied, or unavailable), TunnelLoop and FetchCancelled.
    """
    try:
        addresses = resolver(host, port)
    except OSError as error:
        reason = error.strerror or error
        raise UpstreamError(f"name of {host} cannot be resolved: {reason}", UpstreamKind.UNAVAILABLE) from error
    allowed = addresses if trusted else [address for address in addresses if is_public_address(address)]
    if not allowed:
        raise UpstreamError(f"{host} has no public address: allow it with tunnel_hosts", UpstreamKind.DENIED)
    if port in own_ports and any(_is_of_this_machine(address) for address in allowed):
        raise TunnelLoop(f"a tunnel to {host}:{port} would lead back to this proxy")
    try:
        sock = connect(allowed, port, CONNECT_S, cancel)
    except OSError as error:
        cancel.check()
        reason = error.strerror or error
        raise UpstreamError(f"{host}:{port} cannot be reached: {reason}", UpstreamKind.UNAVAILABLE) from error
    cancel.detach(sock)
    sock.settimeout(0)
    return sock


def _is_of_this_machine(address: str) -> bool:
    """Whether one can bind to it, as the kernel allows for its own addresses alone."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
