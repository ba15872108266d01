"""What origins answered last to each credential, of what is small: heads of manifests, `/v2/`, that a blob is there.

For a short time it stands in for a question (an answer is `fresh`). For a longer one, if the operator allows it, it
stands in for an origin that is down (`last`), for exactly the same question with exactly the same credential: nobody
has more of it than the origin gave them before. It asks nothing, and knows no bytes of manifests or blobs.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from peer.permission.credentials import expires_unix_s
from proto.bounded_dict import BoundedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peer.permission.credentials import CredentialKeys
    from peer.registry.base import Caller

logger = logging.getLogger(__name__)

# The oldest goes first, and is asked for again. About 1 KiB each, and never more than 8.
REMEMBERED_MAX: Final = 16_384
# An answer with more in its header lines is of use to the client that asked, and is not kept.
LINES_CHARACTERS_MAX: Final = 4096
# What the answer to `/v2/` may have; nothing else keeps a body here.
BODY_BYTES_MAX: Final = 4096
# Where a last answer can stand in for an origin, that one is waited for no longer; and once it did, not asked for so
# long, since a client asks for ten things in a row.
DOWN_AFTER_S: Final = 10.0
DOWN_S: Final = 10.0
# Of use to one client, once.
_NOT_KEPT: Final = frozenset({"set-cookie", "set-cookie2", "date", "age", "connection", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """A question: of which upstream, for which path there, with which Accept and by whom (CredentialKeys)."""

    upstream: str
    path: str
    accept: str
    credential: bytes = field(repr=False)

    @property
    def name(self) -> bytes:
        """What stands for it in a file: it tells nothing of what was asked."""
        mac = hashlib.blake2b(key=self.credential, digest_size=32)
        for text in (self.upstream, self.path, self.accept):
            raw = text.encode("utf-8", "surrogateescape")
            mac.update(len(raw).to_bytes(8, "big") + raw)
        return mac.digest()


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """An origin's answer, and when it was asked (Unix seconds)."""

    status: int
    lines: tuple[tuple[str, str], ...]
    asked_unix_s: float
    body: bytes = b""

    def line(self, name: str) -> str | None:
        """The first header line of that name."""
        return next((value for each, value in self.lines if each.lower() == name.lower()), None)


class AnswerFile(Protocol):
    """Where answers outlive the process. Writing returns at once and raises nothing."""

    def load(self, since_unix_s: float) -> dict[bytes, KnownAnswer]: ...

    def keep(self, name: bytes, answer: KnownAnswer) -> None: ...

    def forget(self, name: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class _Fresh:
    answer: KnownAnswer
    from_s: float
    until_s: float


class LastAnswers:
    """Lives on the event loop. `stale_s`: how long an answer stands in for an origin that is down; 0: never."""

    def __init__(
        self,
        keys: CredentialKeys,
        stale_s: float = 0.0,
        file: AnswerFile | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self.stale_s = stale_s
        self._file = file
        self._clock = clock
        self._unix_clock = unix_clock
        self._fresh: BoundedDict[AnswerKey, _Fresh] = BoundedDict(REMEMBERED_MAX)
        self._last: BoundedDict[bytes, KnownAnswer] = BoundedDict(REMEMBERED_MAX)
        # Until when an upstream counts as down. No more of them than the allow-list has.
        self._down_until_s: dict[str, float] = {}
        # Paths that somebody wrote to through this node, and when.
        self._changed: BoundedDict[tuple[str, str], float] = BoundedDict(REMEMBERED_MAX)
        if file is not None and stale_s:
            for name, answer in file.load(unix_clock() - stale_s).items():
                self._last[name] = answer

    def key(self, upstream: str, path: str, caller: Caller, accept: Iterable[str] = ()) -> AnswerKey:
        """Of a question. Accept lines count as they are, in whatever order they came."""
        return AnswerKey(upstream, path, "\n".join(sorted(accept)), self._keys.key_of(caller))

    def now_s(self) -> float:
        """The time that keep() takes: before the question is asked."""
        return self._clock()

    def age_s(self, answer: KnownAnswer) -> float:
        """How long ago its question was asked."""
        return max(0.0, self._unix_clock() - answer.asked_unix_s)

    def keep(
        self,
        key: AnswerKey,
        caller: Caller,
        status: int,
        lines: Iterable[tuple[str, str]],
        *,
        asked_s: float,
        fresh_s: float,
        body: bytes = b"",
    ) -> KnownAnswer:
        """The origin answered so, asked at `asked_s`; it is fresh for `fresh_s`, or until the credential ends."""
        now_s, unix_s = self._clock(), self._unix_clock()
        kept = tuple((name, value) for name, value in lines if name.lower() not in _NOT_KEPT)
        answer = KnownAnswer(status, kept, unix_s - (now_s - asked_s), body[:BODY_BYTES_MAX])
        if sum(len(name) + len(value) for name, value in kept) > LINES_CHARACTERS_MAX:
            return answer
        good_for_s = self._good_for_s(caller)
        if fresh_s > 0:
            self._fresh[key] = _Fresh(answer, asked_s, asked_s + min(fresh_s, good_for_s))
        self._keep_last(key, answer)
        return answer

    def keep_for_anyone(self, key: AnswerKey, answer: KnownAnswer) -> None:
        """It is no secret there: it stands in for an origin that is down whoever asks."""
        self._keep_last(replace(key, credential=self._keys.anyone), answer)

    def fresh(self, key: AnswerKey) -> KnownAnswer | None:
        """What needs not be asked again yet."""
        entry = self._fresh.get(key)
        if entry is None or not entry.from_s <= self._clock() < entry.until_s:
            return None
        changed_s = self._changed.get((key.upstream, key.path), float("-inf"))
        return entry.answer if entry.from_s > changed_s else None

    def last(self, key: AnswerKey, caller: Caller) -> KnownAnswer | None:
        """What the origin said last to this very question, if that may stand in for it now: not after the credential's
        own end.
        """
        return self._within(key) if self._good_for_s(caller) > 0 else None

    def last_to_anyone(self, key: AnswerKey) -> KnownAnswer | None:
        """The same of what is no secret there."""
        return self._within(replace(key, credential=self._keys.anyone))

    def forget(self, key: AnswerKey) -> None:
        """The origin refused."""
        self._fresh.pop(key, None)
        self._drop_last(key.name)

    # --- whether an origin is down ---------------------------------------------------------------------------------

    def is_down(self, upstream: str) -> bool:
        """Whether it was just found to be."""
        return self._clock() < self._down_until_s.get(upstream, 0.0)

    def went_down(self, upstream: str) -> None:
        """It did not answer: it is not asked for DOWN_S where its last answer will do."""
        if not self.is_down(upstream):
            logger.warning("origin_down upstream=%s: its last answers stand in for it", upstream)
            self._down_until_s[upstream] = self._clock() + DOWN_S

    def is_up(self, upstream: str) -> None:
        """It answered."""
        self._down_until_s.pop(upstream, None)

    # ---------------------------------------------------------------------------------------------------------------

    def changed(self, upstream: str, path: str) -> None:
        """Somebody wrote there: what was said of it before is not fresh any more."""
        self._changed[upstream, path] = self._clock()

    def _keep_last(self, key: AnswerKey, answer: KnownAnswer) -> None:
        if self.stale_s:
            name = key.name
            if name not in self._last and len(self._last) >= self._last.most:
                # Each pull has a token, and so a name, of its own: what is forgotten here stays in no file either.
                self._drop_last(next(iter(self._last)))
            self._last[name] = answer
            if self._file is not None:
                self._file.keep(name, answer)

    def _drop_last(self, name: bytes) -> None:
        if self._last.pop(name, None) is not None and self._file is not None:
            self._file.forget(name)

    def _within(self, key: AnswerKey) -> KnownAnswer | None:
        answer = self._last.get(key.name) if self.stale_s else None
        age_s = self._unix_clock() - answer.asked_unix_s if answer is not None else 0.0
        # A clock that was set back makes nothing younger than it is.
        return answer if answer is not None and -60.0 <= age_s < self.stale_s else None

    def _good_for_s(self, caller: Caller) -> float:
        ends = expires_unix_s(caller.authorization)
        return float("inf") if ends is None else max(0.0, ends - self._unix_clock())
