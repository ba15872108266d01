"""What every kind of event comes to: a tag was pushed. And what all of their readers need. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from proto.errors import DigestInvalid, LayercastError, NameInvalid
from proto.ids import Digest
from proto.oci.routes import check_repository, parse_reference
from proto.oci.upstreams import normalise_upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# Events of one request.
EVENTS_MAX: Final = 1000
TEXT_MAX: Final = 512


class EventUnreadable(LayercastError):
    """What was sent is no event; to send it again is no use."""


@dataclass(frozen=True, slots=True)
class Notice:
    """The tag of this repository, `REGISTRY/NAME`, was pushed. `digest` is what the sender says that it names.

    `key` tells the event apart from all others. `by_policy`: a preheat policy of Harbor asks for it, and
    no rule is asked.
    """

    key: str
    repository: str
    tag: str
    digest: str = ""
    by_policy: bool = False

    @property
    def image(self) -> str:
        """Its name as people write it."""
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Notices:
    """The pushed tags of one request, and what is wrong with those of its events that make no sense."""

    found: list[Notice]
    problems: list[str]


def read_each(events: Iterable[object], read: Callable[[Mapping[str, Any]], Notice | None]) -> Notices:
    """One that makes no sense costs none of the others."""
    notices = Notices([], [])
    for event in events:
        try:
            notice = read(object_of(event, "event"))
        except EventUnreadable as error:
            notices.problems.append(str(error))
        else:
            if notice is not None:
                notices.found.append(notice)
    return notices


def make_notice(
    key: str, registry: object, name: object, tag: object, digest: object = "", *, by_policy: bool = False
) -> Notice | None:
    """None where no tag was pushed, but a manifest by its digest. Raises EventUnreadable."""
    if not isinstance(tag, str) or not tag or ":" in tag:
        return None
    try:
        host = normalise_upstream(text_of(registry, "registry"))
        repository = check_repository(text_of(name, "repository"))
        parse_reference(tag)
        known = str(Digest.parse(digest)) if isinstance(digest, str) and digest else ""
    except (NameInvalid, DigestInvalid) as error:
        raise EventUnreadable(str(error)) from None
    return Notice(key, f"{host}/{repository}", tag, known, by_policy)


def text_of(value: object, name: str) -> str:
    """A text that is not empty and can be written anywhere. Raises EventUnreadable."""
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_MAX or not value.isprintable():
        raise EventUnreadable(f"{name}: a text of at most {TEXT_MAX} printable characters expected")
    return value


def object_of(value: object, name: str) -> Mapping[str, Any]:
    """Raises EventUnreadable."""
    if not isinstance(value, dict):
        raise EventUnreadable(f"{name}: an object expected")
    return value


def list_of(value: object, name: str) -> list[object]:
    """Raises EventUnreadable."""
    if not isinstance(value, list) or len(value) > EVENTS_MAX:
        raise EventUnreadable(f"{name}: a list of at most {EVENTS_MAX} expected")
    return value
