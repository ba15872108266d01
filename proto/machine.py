"""The contract of both state machines: events in with the time, commands out, and when to be woken.

A machine does no I/O, reads no clock and draws no global randomness; its shell (a driver) does all three.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

EventT = TypeVar("EventT", contravariant=True)
CommandT = TypeVar("CommandT")


class Machine(Protocol[EventT, CommandT]):
    """`now` is monotonic seconds and never decreases from call to call."""

    def handle(self, event: EventT, now: float) -> list[CommandT]:
        """Take one event; return the commands it gives rise to, in the order they must be carried out."""

    def next_wakeup(self) -> float | None:
        """When the shell must call handle(Wakeup()) at the latest, or None."""
