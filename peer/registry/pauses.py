"""What origins asked not to be asked for a while (Retry-After, RateLimit), blob by blob and caller by caller.

An origin that limits one blob may give another, so each is asked for by itself; one that limited several in a row
limits the caller, and is asked for none. It decides nothing else: who waits and who gives up is peer.registry.retry's.
"""

from __future__ import annotations

import secrets
import threading
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from peer.registry.base import OriginRefused
from proto.bounded_dict import BoundedDict
from proto.errors import UpstreamError, UpstreamKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.registry.base import Caller
    from proto.ids import Digest

    Key = tuple[str, str, Digest, bytes]
    # An upstream and a caller of it.
    Group = tuple[str, bytes]

PAUSES_MAX: Final = 10_000
# So many different blobs that were limited, and none given in between, mean all.
LIMITED_MIN: Final = 3
# Then one of them is asked for after so long, if the origin did not say sooner: it may mean them alone after all.
GROUP_PAUSE_MAX_S: Final = 60.0


class Pauses:
    """Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # A credential is remembered as nothing that could be tried against a list of guesses.
        self._secret = secrets.token_bytes(32)
        # Until when, and the answer that asked for it; the oldest first.
        self._pauses: BoundedDict[Key, tuple[float, UpstreamError]] = BoundedDict(PAUSES_MAX)
        # What was limited since something was given last, and until when nothing is asked for therefore.
        self._limited: BoundedDict[Group, frozenset[Key]] = BoundedDict(PAUSES_MAX)
        self._groups: BoundedDict[Group, float] = BoundedDict(PAUSES_MAX)

    def key(self, host: str, repository: str, digest: Digest, caller: Caller) -> Key:
        """What a pause is for."""
        text = "operator" if caller.operator else caller.authorization or ""
        credential = text.encode("utf-8", "surrogateescape")
        return host, repository, digest, blake2b(credential, key=self._secret, digest_size=16).digest()

    def check(self, key: Key) -> None:
        """Raises the UpstreamError that asked for a pause, with the seconds that are left, while it lasts."""
        with self._lock:
            until_s, error = self._pauses.get(key, (0.0, None))
            group_until_s = self._groups.get(_group(key), 0.0)
        now = self._clock()
        if error is not None and until_s > now:
            raise again(error, until_s - now)
        if group_until_s > now:
            message = f"origin {key[0]} limits how often it is asked"
            raise UpstreamError(message, UpstreamKind.RATE_LIMITED, status=429, retry_after_s=group_until_s - now)

    def heed(self, key: Key, error: UpstreamError) -> None:
        """A request failed. If its answer asked for a pause, none is sent for that time."""
        if not error.retry_after_s:
            return
        now = self._clock()
        with self._lock:
            self._pauses[key] = (now + error.retry_after_s, error)
            if error.kind is UpstreamKind.RATE_LIMITED:
                self._limit(key, now + min(error.retry_after_s, GROUP_PAUSE_MAX_S))

    def _limit(self, key: Key, until_s: float) -> None:
        group = _group(key)
        limited = self._limited.get(group, frozenset())
        if len(limited) < LIMITED_MIN:
            limited |= {key}
        self._limited[group] = limited
        if len(limited) >= LIMITED_MIN:
            self._groups[group] = until_s

    def given(self, key: Key) -> None:
        """The origin gave what was asked for."""
        if self._limited:
            with self._lock:
                self._limited.pop(_group(key), None)
                self._groups.pop(_group(key), None)

    def limited(self) -> dict[str, float]:
        """For how many seconds each upstream that limits us wants no questions about some blob, or about any."""
        found: dict[str, float] = {}
        now = self._clock()
        with self._lock:
            for key, (until_s, error) in self._pauses.items():
                if until_s > now and error.kind is UpstreamKind.RATE_LIMITED:
                    found[key[0]] = max(found.get(key[0], 0.0), until_s - now)
        return found


def _group(key: Key) -> Group:
    return key[0], key[3]


def again(error: UpstreamError, left_s: float) -> UpstreamError:
    """The same error, told later."""
    if isinstance(error, OriginRefused):
        return OriginRefused(str(error), error.kind, error.answer, status=error.status, retry_after_s=left_s)
    return UpstreamError(str(error), error.kind, status=error.status, retry_after_s=left_s)
