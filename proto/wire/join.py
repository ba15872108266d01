"""Join tokens and the proof of one: how a node asks for a certificate, and the token's secret crosses no wire. Pure.

A token is `lc1.ID.SECRET.FINGERPRINT`. The fingerprint pins the supernode's certificate authority, so the node knows
whom it speaks to before it says anything. The secret admits: the node sends an HMAC of its certificate request, made
with a key that is derived from it, and the supernode keeps that key alone. A proof is good for this one request, which
its key has signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final

# Who the supernode's certificate is for, whatever its address: peers ask for this name.
SUPERNODE_NAME: Final = "supernode.layercast"
# A node's certificate is for `NAME.node.layercast`: NAME is its key in base32, since a label takes 63 characters.
NODE_DOMAIN: Final = "node.layercast"
SECRET_BYTES: Final = 32
# A certificate request and its proof take about 700 bytes.
REQUEST_BYTES_MAX: Final = 16 * 1024
# An answer is a certificate and up to three of authorities.
ANSWER_BYTES_MAX: Final = 64 * 1024
# In a refused upgrade or request: why, one line.
REFUSAL_HEADER: Final = "Layercast-Refusal"

_VERSION = "lc1"
_ID = re.compile(r"[a-z2-7]{8}")
_KEY = b"layercast join key 1\0"
_PROOF = b"layercast join 1\0"
_EXPECTED: Final = "expected a join token, lc1.ID.SECRET.FINGERPRINT, as `layercast-supernode token create` prints it"


@dataclass(frozen=True, slots=True, repr=False)
class JoinToken:
    """`fingerprint` is fingerprint_of() the authority's public key. `repr()` shows the id alone."""

    id: str
    secret: bytes
    fingerprint: str

    @classmethod
    def generate(cls, fingerprint: str) -> JoinToken:
        """A new random one."""
        return cls(_encode32(secrets.token_bytes(5)), secrets.token_bytes(SECRET_BYTES), fingerprint)

    @property
    def text(self) -> str:
        """The token itself: for the operator's eyes, and for no log."""
        return f"{_VERSION}.{self.id}.{_encode64(self.secret)}.{self.fingerprint}"

    @property
    def proof_key(self) -> bytes:
        """What the supernode keeps."""
        return hashlib.sha256(_KEY + self.secret).digest()

    def __repr__(self) -> str:
        return f"JoinToken({self.id})"


def parse_join_token(text: str) -> JoinToken:
    """Raises ValueError, which never shows the text."""
    parts = text.strip().split(".")
    if len(parts) != 4 or parts[0] != _VERSION or not _ID.fullmatch(parts[1]):
        raise ValueError(_EXPECTED)
    secret, fingerprint = _decode64(parts[2]), _decode64(parts[3])
    if len(secret) != SECRET_BYTES or len(fingerprint) != hashlib.sha256().digest_size:
        raise ValueError(_EXPECTED)
    return JoinToken(parts[1], secret, parts[3])


def prove_join(proof_key: bytes, request: bytes) -> bytes:
    """32 bytes: whoever knows the token's secret sent this certificate request (DER)."""
    return hmac.digest(proof_key, _PROOF + request, "sha256")


def check_join(proof_key: bytes, request: bytes, proof: bytes) -> bool:
    """Whether the proof is of this request, by this key."""
    return hmac.compare_digest(prove_join(proof_key, request), proof)


def fingerprint_of(public_key: bytes) -> str:
    """Of a public key (DER, SubjectPublicKeyInfo): its SHA-256 in base64url."""
    return _encode64(hashlib.sha256(public_key).digest())


def node_host(peer: bytes) -> str:
    """The name that the certificate of the node with this key is for."""
    return f"{_encode32(peer)}.{NODE_DOMAIN}"


def node_of_host(name: str) -> bytes | None:
    """Inverse of node_host(); None for any other name."""
    label, _, domain = name.partition(".")
    if domain != NODE_DOMAIN or not re.fullmatch(r"[a-z2-7]{52}", label):
        return None
    return base64.b32decode(label.upper() + "=" * (-len(label) % 8))


def _encode32(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()


def _encode64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(_EXPECTED) from None
