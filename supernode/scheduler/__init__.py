"""The scheduler's machine and its parts. Never compiled itself: it says whether they are."""

from __future__ import annotations


def build() -> str:
    """`compiled` or `interpreted` (setup.py): the same source and the same decisions at another speed."""
    from supernode.scheduler import machine

    return "interpreted" if str(machine.__file__).endswith(".py") else "compiled"
