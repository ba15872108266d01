"""JSON as people wrote it: a value is put in, and every other byte stays. Pure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from peer.setup.contract import SetupRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_BOM: Final = "\ufeff"


def parse(text: str, path: str) -> dict[str, object]:
    """The object of a file; an empty file is an empty one. Raises SetupRefused for anything else."""
    body = text.removeprefix(_BOM)
    if not body.strip():
        return {}
    try:
        found = json.loads(body, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError) as error:
        raise SetupRefused(f"{path}: not JSON ({error}): mend it first, its program refuses it too") from None
    if not isinstance(found, dict):
        raise SetupRefused(f"{path}: expected an object, {{...}}: mend it first")
    return found


def put_first(text: str, key: str, item: str, path: str) -> str:
    """The object's array `key` has `item` in front; the array is made if need be. Raises SetupRefused."""
    before = parse(text, path)
    items = before.get(key, [])
    if not isinstance(items, list):
        raise SetupRefused(f"{path}: {key}: expected an array of strings: mend it first")
    newline = "\r\n" if "\r\n" in text else "\n"
    member = f"{json.dumps(key)}: [{json.dumps(item)}]"
    body = text.removeprefix(_BOM)
    if not body.strip():
        after = f"{{{newline}  {member}{newline}}}{newline}"
    else:
        start = text.index("{") + 1
        place = next((value for name, value in _members(text, start) if name == key), None)
        if place is None:
            after = _insert(text, start, member, "}", f"{newline}  ", newline)
        else:
            after = _insert(text, place + 1, json.dumps(item), "]", "", "")
    if parse(after, path) != {**before, key: [item, *items]}:
        raise SetupRefused(f"{path}: put {json.dumps(item)} in front of {key} by hand; it is too unusual to be changed")
    return after


def _insert(text: str, at: int, what: str, end: str, lead: str, trail: str) -> str:
    """In front of what an object or array has, parted from it as that is from the bracket before it."""
    first = _skip(text, at)
    if text[first] == end:
        return text[:at] + lead + what + trail + text[first:]
    space = text[at:first]
    return text[:first] + what + "," + (space or " ") + text[first:]


def _members(text: str, at: int) -> Iterator[tuple[str, int]]:
    """Of an object that is valid: each name, and where its value begins. `at` is behind the brace."""
    decoder = json.JSONDecoder()
    at = _skip(text, at)
    while text[at] != "}":
        name, at = decoder.raw_decode(text, at)
        at = _skip(text, _skip(text, at) + 1)
        yield name, at
        _, at = decoder.raw_decode(text, at)
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _no_key_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"a key stands twice: {next(name for name in names if names.count(name) > 1)}")
    return found
