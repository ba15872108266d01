"""TLS between members, for pieces: both ends show the certificate that makes them a node of this cluster.

Who is spoken to is read from the certificate, whatever the address. What a member may have is said by tickets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from proto.ids import PeerId
from proto.runtime import tls
from proto.wire.join import node_of_host

if TYPE_CHECKING:
    import ssl


class MemberTls:
    """What this node shows and whom it trusts; nothing until it is a member. Safe to use from any thread."""

    def __init__(self) -> None:
        # For connections that begin now.
        self.server: ssl.SSLContext | None = None
        self.client: ssl.SSLContext | None = None

    def use(self, certificate: bytes, key: bytes, authorities: str) -> None:
        """Show this certificate from now on (PEM, with its chain). Blocking for a moment."""
        self.server = tls.member_server_context(certificate, key, authorities)
        self.client = tls.member_client_context(certificate, key, authorities)


def member_of(sock: ssl.SSLSocket) -> PeerId | None:
    """Whose certificate the other end has shown, which TLS has checked; None if it is no node's."""
    certificate = sock.getpeercert() or {}
    names = cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))
    keys = [node_of_host(name) for kind, name in names if kind == "DNS"]
    return next((PeerId(key) for key in keys if key is not None), None)
