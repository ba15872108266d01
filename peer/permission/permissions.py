"""What origins allowed to which credential, for as long as that may be remembered. Pure: the caller tells the time.

A permission is for one blob in one repository of one origin, and for one credential. It is the origin's alone to give:
by its answer to this very credential's question for the blob, or by a manifest that it gave to this credential and
that lists the blob, once the blob is proven to be there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proto.bounded_dict import BoundedDict

if TYPE_CHECKING:
    from proto.ids import Digest

# Of each kind; the oldest goes first, and is asked for again.
REMEMBERED_MAX: Final = 65_536


@dataclass(frozen=True, slots=True)
class Place:
    """A blob as it stands in a repository of an origin."""

    upstream: str
    repository: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Question:
    """Whether a credential (credentials.CredentialKeys) may read a blob at a place."""

    place: Place
    credential: bytes


@dataclass(frozen=True, slots=True)
class Permission:
    """The blob has `size_bytes` there. Not `proven`: a manifest lists it, and no answer for the blob itself is known.

    Then only what the origin gives to this very credential may be given to it.
    """

    size_bytes: int
    proven: bool


@dataclass(frozen=True, slots=True)
class _Entry:
    size_bytes: int
    until_s: float


class Permissions:
    """Times are monotonic seconds. `lasts_s`: the longest that anything counts, from when the origin was asked."""

    def __init__(self, lasts_s: float) -> None:
        self.lasts_s = lasts_s
        self._allowed: BoundedDict[Question, _Entry] = BoundedDict(REMEMBERED_MAX)
        self._listed: BoundedDict[Question, _Entry] = BoundedDict(REMEMBERED_MAX)
        self._proven: BoundedDict[Place, _Entry] = BoundedDict(REMEMBERED_MAX)

    def allow(self, question: Question, size_bytes: int, now_s: float, good_for_s: float) -> None:
        """The origin gave the blob, or said that it does, to this credential, which is good for so long yet."""
        self.prove(question.place, size_bytes, now_s)
        self._allowed[question] = _Entry(size_bytes, now_s + min(self.lasts_s, good_for_s))

    def list_blob(self, question: Question, size_bytes: int, now_s: float, good_for_s: float) -> None:
        """The origin gave a manifest to this credential that lists the blob."""
        self._listed[question] = _Entry(size_bytes, now_s + min(self.lasts_s, good_for_s))

    def prove(self, place: Place, size_bytes: int, now_s: float) -> None:
        """The origin answered a GET or HEAD for the blob there."""
        self._proven[place] = _Entry(size_bytes, now_s + self.lasts_s)

    def forget(self, question: Question) -> None:
        """The origin refused."""
        self._allowed.pop(question, None)
        self._listed.pop(question, None)

    def known(self, question: Question, now_s: float) -> Permission | None:
        """What needs not be asked."""
        allowed = _good(self._allowed.get(question), now_s)
        if allowed is not None:
            return Permission(allowed.size_bytes, proven=True)
        listed = _good(self._listed.get(question), now_s)
        if listed is None:
            return None
        proven = _good(self._proven.get(question.place), now_s)
        return Permission(listed.size_bytes, proven=proven is not None and proven.size_bytes == listed.size_bytes)


def _good(entry: _Entry | None, now_s: float) -> _Entry | None:
    return entry if entry is not None and now_s < entry.until_s else None
