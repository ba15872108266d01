"""One event that is not done with, and its text in the state store. Plain data; the queue changes it.

    waiting -> working (a job is at it) -> gone
       ^          |
       +- again --+-> dead (its job failed for good)

No credential is in it: what a sender sent along is dropped before.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from supernode.state.base import NewEvent, SavedEvent

if TYPE_CHECKING:
    from supernode.registry_events.notice import Notice


class EventState(StrEnum):
    """See the module."""

    WAITING = "waiting"
    WORKING = "working"
    DEAD = "dead"


@dataclass(slots=True)
class Event:
    """`tries`: how often an operator wanted it again. `job` is that which is at it, or which failed."""

    number: int
    repository: str
    tag: str
    by_policy: bool
    received_unix_s: float
    state: EventState = EventState.WAITING
    job: int = 0
    tries: int = 0
    error: str = ""

    @property
    def image(self) -> str:
        """Its name as people write it."""
        return f"{self.repository}:{self.tag}"

    @property
    def cause(self) -> str:
        """By what its job is known: one job at most for each try."""
        return f"event {self.number}" if not self.tries else f"event {self.number}, again {self.tries}"

    def saved(self) -> SavedEvent:
        """For the state store."""
        kept = dataclasses.asdict(self)
        del kept["number"]
        kept["wished"] = kept.pop("by_policy")  # as earlier releases called it
        return SavedEvent(self.number, json.dumps(kept))


def event_of(number: int, notice: Notice, now_unix_s: float) -> Event:
    """A new one."""
    return Event(number, notice.repository, notice.tag, notice.by_policy, now_unix_s)


def new_event(notice: Notice, now_unix_s: float) -> NewEvent:
    """For the state store, which gives the number. What a policy asks for is told apart by its key alone."""
    digest = "" if notice.by_policy else notice.digest
    return NewEvent(notice.key, event_of(0, notice, now_unix_s).saved().text, notice.repository, notice.tag, digest)


def load_event(saved: SavedEvent) -> Event:
    """As it was saved; fields that a later release added are left out. Raises ValueError for what is no event."""
    try:
        text = json.loads(saved.text)
        text["by_policy"] = text.pop("wished")
        known = {each.name for each in dataclasses.fields(Event)}
        event = Event(number=saved.number, **{name: value for name, value in text.items() if name in known})
        event.state = EventState(event.state)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"event {saved.number}: {error}") from None
    return event
