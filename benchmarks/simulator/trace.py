"""What happened, as one hash: equal for two runs exactly if the machines got and gave the same at equal times."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from enum import Enum
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import msgpack

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCH: Final = 1024


class Trace:
    """Takes every event and command of every machine, in order, and packs them when a batch is full.

    Each becomes its class's name and all its fields, with those of what is in them.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._batch: list[tuple[float, int, object]] = []
        self._fields: dict[type, Callable[[object], object]] = {}
        self._pack: Callable[[object], bytes] = msgpack.Packer(default=self._plain).pack
        self._packed = 0

    def add(self, now: float, node: int, what: object) -> None:
        """`what` is a frozen dataclass of a machine's contract."""
        self._batch.append((now, node, what))
        if len(self._batch) >= _BATCH:
            self._flush()

    @property
    def entries(self) -> int:
        """How many were added."""
        return self._packed + len(self._batch)

    @property
    def digest(self) -> str:
        """Hex, of all so far."""
        whole = self._hash.copy()
        whole.update(self._pack(self._batch))
        return whole.hexdigest()

    def _flush(self) -> None:
        self._hash.update(self._pack(self._batch))
        self._packed += len(self._batch)
        self._batch.clear()

    def _plain(self, value: object) -> object:
        """What msgpack does not know: dataclasses, reasons, and masks of more than 64 pieces."""
        take = self._fields.get(type(value))
        if take is None:
            take = self._fields[type(value)] = _taker(value)
        return take(value)


def _taker(value: object) -> Callable[[object], object]:
    if isinstance(value, int):
        return hex  # type: ignore[return-value]  # of this type, as all that it will be given
    if isinstance(value, Enum):
        return attrgetter("value")
    # A dataclass, or this raises TypeError: nothing else belongs into a machine's contract.
    names = [field.name for field in fields(value)]  # type: ignore[arg-type]  # fields() is what checks it
    return attrgetter("__class__.__name__", *names)
