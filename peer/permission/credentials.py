"""By what a client's requests are told from those of others, and for how long a credential is known to be good. Pure.

A credential itself is kept nowhere: its key is an HMAC under a random key of this process, so that it is of no use to
anybody who reads memory, and of none at all after the process, unless the operator has answers outlive it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from peer.registry.base import Caller

KEY_BYTES: Final = 32
# Header lines that no origin decides by. By any other (User-Agent, Private-Token, ...) some do.
_SAYS_NOTHING: Final = frozenset(
    {
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "pragma",
        "traceparent",
        "tracestate",
        "x-request-id",
    }
)
# Tokens have a few KiB; longer ones are not looked into, but stay good for as long as the origin says.
_TOKEN_CHARACTERS_MAX: Final = 64 * 1024


class CredentialKeys:
    """Those of one process, or of one node where its key is kept (peer.permission.answer_file)."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(KEY_BYTES)
        # Stands for whoever asks, where that makes no difference.
        self.anyone = hmac.digest(self._key, b"anyone", "sha256")

    def key_of(self, caller: Caller) -> bytes:
        """Equal for two requests that an origin cannot tell apart by who asks."""
        mac = hmac.new(self._key, digestmod=hashlib.sha256)
        lines = sorted((name.lower(), value) for name, value in caller.lines if name.lower() not in _SAYS_NOTHING)
        if caller.authorization is not None:
            lines.append(("authorization", caller.authorization))
        for text in (part for line in lines for part in line):
            raw = text.encode("utf-8", "surrogateescape")
            mac.update(len(raw).to_bytes(8, "big") + raw)
        return mac.digest()


def expires_unix_s(authorization: str | None) -> float | None:
    """When a Bearer token ends that is a JWT and says so (`exp`, RFC 7519 section 4.1.4); None where nothing is known.

    Nothing of it is believed but that end: whether the token is good is the origin's to say.
    """
    scheme, _, token = (authorization or "").partition(" ")
    parts = token.strip().split(".")
    if scheme.lower() != "bearer" or len(parts) != 3 or len(token) > _TOKEN_CHARACTERS_MAX:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    ends = claims.get("exp") if isinstance(claims, dict) else None
    if not isinstance(ends, int | float) or isinstance(ends, bool) or not abs(ends) < 1e15:
        return None
    return float(ends)
