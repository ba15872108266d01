"""Who gets a certificate: a node that proves a token, or one that has a certificate already. Blocking, in one thread.

It knows no HTTP: refusals have a code and one line that says what the node's operator is to do.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proto.errors import RemoteError
from proto.wire.join import check_join
from supernode.membership.certificates import RequestInvalid, certify_node, pem, read_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.ids import PeerId
    from supernode.membership.authorities import Authorities
    from supernode.membership.database import MemberDatabase

_NEW_TOKEN = "make a new one with `layercast-supernode token create` and put it where --join-file or --join looks"


class JoinRefused(RemoteError):
    """No certificate. `code`: malformed, unknown, revoked, expired, used_up, node_revoked."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Admitted:
    """A node's new certificate and the authorities that it is to trust, PEM."""

    peer: PeerId
    certificate: str
    authorities: str


class Admission:
    """`authorities` gives those of now."""

    def __init__(
        self,
        authorities: Callable[[], Authorities],
        database: MemberDatabase,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authorities = authorities
        self._database = database
        self._clock = clock

    def join(self, body: bytes, address: str) -> Admitted:
        """For a node that proves a token. Raises JoinRefused, DatabaseError."""
        token_id, request, proof = _parse(body)
        now_s = self._clock()
        found = self._database.token(token_id)
        if found is None or not check_join(found[1], request, proof):
            raise JoinRefused("unknown", f"this supernode has made no such join token: {_NEW_TOKEN}")
        state = found[0].state(now_s)
        peer = self._requested(request)
        again = state == "used up" and self._joined_by(peer, token_id)
        if state != "open" and not again:
            said = {"expired": _ago(now_s - found[0].expires_unix_s)}.get(state, "")
            raise JoinRefused(state.replace(" ", "_"), f"the join token {token_id} is {state}{said}: {_NEW_TOKEN}")
        admitted, expires_unix_s = self._certify(peer, now_s)
        if not self._database.admit(peer, token_id, expires_unix_s, address):
            raise JoinRefused("used_up", f"the join token {token_id} is used up: {_NEW_TOKEN}")
        return admitted

    def renew(self, peer: PeerId, body: bytes) -> Admitted:
        """For the member with this key. Raises JoinRefused, DatabaseError."""
        _, request, _ = _parse(body)
        if self._requested(request) != peer:
            raise JoinRefused("malformed", "the certificate request is for another key than the certificate")
        admitted, expires_unix_s = self._certify(peer, self._clock())
        self._database.renew(peer, expires_unix_s)
        return admitted

    def _requested(self, request: bytes) -> PeerId:
        try:
            peer = read_request(request)
        except RequestInvalid as error:
            raise JoinRefused("malformed", str(error)) from None
        node = self._database.node(peer)
        if node is not None and node.revoked_unix_s is not None:
            raise JoinRefused("node_revoked", revoked_text(peer))
        return peer

    def _joined_by(self, peer: PeerId, token_id: str) -> bool:
        """A node whose answer was lost asks again, and takes no second use."""
        node = self._database.node(peer)
        return node is not None and node.token == token_id

    def _certify(self, peer: PeerId, now_s: float) -> tuple[Admitted, float]:
        authorities = self._authorities()
        certificate = certify_node(authorities.current, peer, now_s)
        admitted = Admitted(peer, pem([certificate]), pem(authorities.trusted))
        return admitted, certificate.not_valid_after_utc.timestamp()


def revoked_text(peer: PeerId) -> str:
    """What a revoked node is told."""
    return (
        f"node {peer.hex()[:12]} was revoked: to admit this machine again, stop its peer, delete identity.key and "
        "membership.json in its --data-dir and give it a new join token"
    )


def _parse(body: bytes) -> tuple[str, bytes, bytes]:
    """(token id, request, proof); the first and last are empty where a node renews. Raises JoinRefused."""
    try:
        fields = json.loads(body)
        token_id, request, proof = fields.get("token", ""), fields["request"], fields.get("proof", "")
        if not isinstance(token_id, str) or not token_id.isascii():
            raise TypeError
        return token_id, base64.b64decode(request, validate=True), base64.b64decode(proof, validate=True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise JoinRefused("malformed", "expected JSON with token, request and proof") from None


def _ago(elapsed_s: float) -> str:
    if elapsed_s < 3600:
        return f" since {max(1, round(elapsed_s / 60))} min"
    return f" since {elapsed_s / 3600:.0f} h"
