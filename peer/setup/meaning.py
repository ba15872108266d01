"""What a client's text means, however it is written: whether taking our lines out of it changed anything else.

A comma that others put before our line, or a key that they put below a header of ours, stands alone without it. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from peer.setup import json_text, toml_text, yaml_text
from peer.setup.contract import SetupRefused

if TYPE_CHECKING:
    from collections.abc import Callable

_PARSERS: Final[dict[str, Callable[[str, str], dict[str, Any]]]] = {
    ".json": json_text.parse,
    ".toml": toml_text.parse,
    ".yaml": yaml_text.parse,
}


def is_taken_back(path: str, before: str | None, after: str | None, current: str, left: str) -> bool:
    """Whether `left` says what `current` says, but for what made `after` of `before`. True where nobody can tell."""
    parse = next((parse for ending, parse in _PARSERS.items() if path.endswith(ending)), None)
    if parse is None:
        return True
    try:
        wanted = _reversed(parse(before or "", path), parse(after or "", path), parse(current, path))
    except SetupRefused:
        # Others broke it, or it was not for us to read.
        return True
    try:
        return bool(_filled(parse(left, path)) == _filled(wanted))
    except SetupRefused:
        return False


def _reversed(before: Any, after: Any, current: Any) -> Any:
    """`current` with what was before where it is as we made it."""
    if current == after:
        return before
    if isinstance(after, list) and isinstance(current, list) and after[1:] == (before or []):
        # We put one in front.
        return [each for each in current if each != after[0]]
    if not all(isinstance(each, dict) for each in (before, after, current)):
        return current
    names = dict.fromkeys((*current, *(name for name in before if name not in after)))
    found = {name: _reversed(before.get(name), after.get(name), current.get(name)) for name in names}
    return {name: each for name, each in found.items() if each is not None}


def _filled(tree: Any) -> Any:
    """Without tables that have nothing in them."""
    if not isinstance(tree, dict):
        return tree
    found = {name: _filled(each) for name, each in tree.items()}
    return {name: each for name, each in found.items() if each not in ({}, None)}
