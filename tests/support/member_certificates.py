"""Nodes of one cluster, as far as their certificates go, without a supernode."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from peer.transport.member_tls import MemberTls
from supernode.membership.certificates import certify_node, new_authority, pem

if TYPE_CHECKING:
    from proto.wire.tickets import Identity


class MemberCertificates:
    """A certificate authority, and what its nodes show each other."""

    def __init__(self) -> None:
        self._authority = new_authority(time.time())

    def tls_of(self, identity: Identity) -> MemberTls:
        """Of the node with this key."""
        shown = MemberTls()
        certificate = certify_node(self._authority, identity.peer, time.time())
        shown.use(pem([certificate]).encode(), identity.private_pem(), pem([self._authority.certificate]))
        return shown
