"""Which nodes are meant: `all`, `zone=REGION/ZONE`, `node=NAME` or a number of them. Pure.

A number means the same nodes at each attempt, and after a restart, as far as they are there: those that come first by a
hash of the job and their names.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

TEXT_MAX: Final = 256
NODES_MAX: Final = 20_000
# As `layercast nodes` and the logs show names; more digits may be given.
NAME_DIGITS_MIN: Final = 8
_FORMS: Final = "all, zone=REGION/ZONE/RACK (or its first parts), node=NAME (8 digits or more), or how many"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A connected node: its name in hex, and where it is."""

    name: str
    zone: str


def check(text: str) -> str:
    """The text, if it is one of the forms. Raises ValueError."""
    kind, equals, value = text.partition("=")
    if text == "all" or (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= NODES_MAX and len(text) < 9):
        return text
    if equals and len(text) <= TEXT_MAX:
        if kind == "zone" and value.strip("/"):
            return text
        if kind == "node" and len(value) >= NAME_DIGITS_MIN and set(value) <= set("0123456789abcdef"):
            return text
    raise ValueError(f"{text[:40]!r}: expected {_FORMS}")


def choose(text: str, job: int, nodes: Iterable[Candidate]) -> tuple[str, ...]:
    """Their names. `text` was checked."""
    kind, _, value = text.partition("=")
    found = list(nodes)
    if kind == "zone":
        wanted = [part for part in value.split("/") if part]
        found = [node for node in found if node.zone.split("/")[: len(wanted)] == wanted]
    elif kind == "node":
        found = [node for node in found if node.name.startswith(value)]
    elif kind != "all":
        found.sort(key=lambda node: hashlib.blake2b(f"{job} {node.name}".encode(), digest_size=8).digest())
        found = found[: int(text)]
    return tuple(node.name for node in found)
