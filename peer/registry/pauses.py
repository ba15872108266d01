"""What origins asked not to be asked for a while (Retry-After), blob by blob and caller by caller.

An origin that limits one blob may give another, so each is asked for by itself. It decides nothing else: who waits and
who gives up is peer.registry.retry's.
"""

from __future__ import annotations

import secrets
import threading
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from peer.registry.base import OriginRefused
from proto.bounded_dict import BoundedDict
from proto.errors import UpstreamError

if TYPE_CHECKING:
    from peer.registry.base import Caller
    from proto.ids import Digest

    Key = tuple[str, str, Digest, bytes]

PAUSES_MAX: Final = 10_000


class Pauses:
    """Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # A credential is remembered as nothing that could be tried against a list of guesses.
        self._secret = secrets.token_bytes(32)
        # Until when, and the answer that asked for it; the oldest first.
        self._pauses: BoundedDict[Key, tuple[float, UpstreamError]] = BoundedDict(PAUSES_MAX)

    def key(self, host: str, repository: str, digest: Digest, caller: Caller) -> Key:
        """What a pause is for."""
        credential = (caller.authorization or "").encode("utf-8", "surrogateescape")
        return host, repository, digest, blake2b(credential, key=self._secret, digest_size=16).digest()

    def check(self, key: Key) -> None:
        """Raises the UpstreamError that asked for a pause, with the seconds that are left, while it lasts."""
        with self._lock:
            until_s, error = self._pauses.get(key, (0.0, None))
        left_s = until_s - time.monotonic()
        if error is not None and left_s > 0:
            raise again(error, left_s)

    def heed(self, key: Key, error: UpstreamError) -> None:
        """A request failed. If its answer asked for a pause, none is sent for that time."""
        if not error.retry_after_s:
            return
        with self._lock:
            self._pauses[key] = (time.monotonic() + error.retry_after_s, error)


def again(error: UpstreamError, left_s: float) -> UpstreamError:
    """The same error, told later."""
    if isinstance(error, OriginRefused):
        return OriginRefused(str(error), error.kind, error.answer, status=error.status, retry_after_s=left_s)
    return UpstreamError(str(error), error.kind, status=error.status, retry_after_s=left_s)
