"""Who is logged in at the console: by a cookie that an operator's token was shown for. In memory alone."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import TYPE_CHECKING, Final

from proto.bounded_dict import BoundedDict

if TYPE_CHECKING:
    from collections.abc import Callable

# Browsers take a cookie of this name by TLS alone, from this host alone, for all its paths.
COOKIE: Final = "__Host-layercast"
LIFE_S: Final = 12 * 3600.0
# The oldest goes first.
LOGINS_MAX: Final = 256


class Logins:
    """On the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # By the cookie's hash: until when.
        self._until_s: BoundedDict[bytes, float] = BoundedDict(LOGINS_MAX)

    def begin(self) -> str:
        """A new cookie's value, good for LIFE_S."""
        value = secrets.token_urlsafe(32)
        self._until_s[_hash(value)] = self._clock() + LIFE_S
        return value

    def holds(self, value: str) -> bool:
        """Whether somebody is logged in with it."""
        return self._clock() < self._until_s.get(_hash(value), 0.0)

    def end(self, value: str) -> None:
        """It is good for nothing any more. Idempotent."""
        self._until_s.pop(_hash(value), None)


def _hash(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).digest()
