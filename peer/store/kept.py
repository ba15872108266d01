"""Which blobs a store is not to evict, in a file of its own: an operator's `keep` outlives a restart of the node.

A line is a digest. What is no digest (a later release's) is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peer.store.files import local_error, replace
from proto.errors import DigestInvalid
from proto.ids import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NAME: Final = "kept"


def load(root: Path) -> frozenset[Digest]:
    """None where there is no file. Raises OSError."""
    try:
        lines = (root / NAME).read_text("ascii", "replace").split()
    except FileNotFoundError:
        return frozenset()
    return frozenset(digest for digest in map(_digest, lines) if digest is not None)


def save(root: Path, digests: Iterable[Digest]) -> None:
    """In place of what it said. Raises LocalError."""
    try:
        replace(root / NAME, "".join(f"{digest}\n" for digest in sorted(map(str, digests))).encode())
    except OSError as error:
        raise local_error(error, "the list of kept blobs") from None


def _digest(line: str) -> Digest | None:
    try:
        return Digest.parse(line)
    except DigestInvalid:
        return None
