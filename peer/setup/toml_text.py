"""TOML as people wrote it: values are put in, comments and order stay. Pure.

tomlkit changes the text, and the standard library's parser says whether it means what it should.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, Final

from peer.setup.contract import SetupRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    # A path of keys, and what stands there.
    Values = Mapping[tuple[str, ...], object]

BOM: Final = "\ufeff"


def parse(text: str, path: str) -> dict[str, Any]:
    """Raises SetupRefused."""
    try:
        # TOML knows CR LF as an end of line; a file without any line is an empty table.
        return tomllib.loads(text.removeprefix(BOM))
    except (ValueError, RecursionError) as error:
        raise SetupRefused(f"{path}: not TOML ({error}): mend it first, its program refuses it too") from None


def table(tree: Mapping[str, Any], keys: Sequence[str], path: str) -> Mapping[str, Any]:
    """What stands below these keys, empty where nothing does. Raises SetupRefused where that is no table."""
    found: Any = tree
    for key in keys:
        found = found.get(key, {})
        if not isinstance(found, dict):
            raise SetupRefused(f"{path}: {'.'.join(keys)}: expected a table: mend it first")
    assert isinstance(found, dict)
    return found


def put(text: str, values: Values, path: str) -> str:
    """The text with these values. Raises SetupRefused where they cannot be put in without changing something else."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    wanted = parse(text, path)
    mark, text = _parted(text)
    for keys, value in values.items():
        _put(wanted, keys, value, _plain)
    try:
        document = tomlkit.parse(text)
        for keys, value in values.items():
            _put(document, keys, value, tomlkit.table)
        after = str(tomlkit.dumps(document))
    except (TOMLKitError, ValueError, TypeError, KeyError, AttributeError):
        raise _by_hand(values, path) from None
    if "\r\n" in text:
        after = after.replace("\r\n", "\n").replace("\n", "\r\n")
    try:
        if tomllib.loads(after) == wanted:
            return mark + after
    except ValueError:
        pass
    raise _by_hand(values, path)


def put_table_first(text: str, header: str, lines: Sequence[str], wanted: dict[str, Any], path: str) -> str:
    """A table stands before the first other one, where the order of tables counts; the text then means `wanted`.

    Raises SetupRefused.
    """
    mark, text = _parted(text)
    newline = "\r\n" if "\r\n" in text else "\n"
    block = newline.join((header, *lines)) + newline
    for at in _table_starts(text):
        lead = newline if at and not text[:at].endswith("\n") else ""
        after = text[:at] + lead + block + text[at:]
        try:
            # repr also compares the order.
            if repr(tomllib.loads(after)) == repr(wanted):
                return mark + after
        except ValueError:
            continue
    raise SetupRefused(f"{path}: put the table {header} first by hand; the file is too unusual to be changed")


def _parted(text: str) -> tuple[str, str]:
    """The mark that some editors begin a file with, and the rest."""
    body = text.removeprefix(BOM)
    return text[: len(text) - len(body)], body


def _table_starts(text: str) -> Iterator[int]:
    """Where lines begin that may begin a table, or the comment above one; and the end."""
    at, above = 0, 0
    for line in text.splitlines(keepends=True):
        begins = line.lstrip(" \t")
        if begins.startswith("["):
            yield above
        at += len(line)
        if not begins.startswith("#"):
            above = at
    yield len(text)


def _put(tree: Any, keys: Sequence[str], value: object, make: Any) -> None:
    for place, key in enumerate(keys[:-1]):
        if key not in tree:
            # A table that holds tables alone needs no line of its own.
            tree[key] = make(is_super_table=place < len(keys) - 2)
        tree = tree[key]
    tree[keys[-1]] = value


def _plain(*, is_super_table: bool) -> dict[str, object]:
    return {}


def _by_hand(values: Values, path: str) -> SetupRefused:
    import json

    wanted = ", ".join(
        f"{'.'.join(json.dumps(key) for key in keys)} = {json.dumps(value)}" for keys, value in values.items()
    )
    return SetupRefused(f"{path}: too unusual to be changed; set by hand {wanted[:400]}")
