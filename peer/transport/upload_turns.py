"""Whose request is served next: slots and places to wait, shared among addresses and, at one, among its peers. Pure.

It measures no transfer and knows no socket: that is the server's. Times are monotonic seconds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proto.ids import PeerId

# A transfer that its receiver lets trickle leaves the link to others: they may begin beside it, up to so many times the
# slots in all.
BESIDE_SLOW_FACTOR: Final = 4
# After this wait a request takes a slot from a side that holds two more than its own. Longer than most pieces take.
SHARE_AFTER_S: Final = 2.0
# Questions (what is held, which hashes) are answered beside the transfers: their answers are small, and a node that is
# told "busy" does not know whom to fetch from. This many at a time, twice that with slow ones; others wait for a place.
QUESTIONS: Final = 2
QUESTIONS_WAITING_MAX: Final = 64


@dataclass(eq=False, slots=True)
class Turn:
    """One request, from its admission to its end. `address` and `peer` are the downloader's.

    `ahead`: it is to begin when another transfer ends. `question`: no piece is asked for. `slow`: its receiver takes
    little of what it is sent.
    """

    address: str
    peer: PeerId
    asked_s: float
    ahead: bool = False
    question: bool = False
    running: bool = False
    slow: bool = False


class UploadTurns:
    """`slots` transfers at a time; `queue_max` wait for one, and slots and queue_max together for another's end.

    Questions have places of their own.
    """

    def __init__(self, slots: int, queue_max: int) -> None:
        self._slots = slots
        self._queue_max = queue_max
        self._running: list[Turn] = []
        self._waiting: list[Turn] = []
        self._ahead: list[Turn] = []
        self._questions: list[Turn] = []
        self._answering: list[Turn] = []

    def __len__(self) -> int:
        return sum(map(len, (self._running, self._waiting, self._ahead, self._questions, self._answering)))

    @property
    def ready(self) -> bool:
        """Whether take() would give one."""
        return self._question_is_ready() or (bool(self._waiting) and self._slot_is_free())

    def waits(self, turn: Turn) -> bool:
        """Whether the request, which has a place, cannot begin now: those before it may not have begun yet."""
        if turn.question:
            return len(self._questions) > 1 or not self._question_is_ready()
        free = self._slots - self._slots_taken()
        return turn in self._ahead or len(self._waiting) > free or not self._slot_is_free()

    def ask(self, turn: Turn) -> Turn | None:
        """Give the request a place. Returns who has none then: one of whoever has the most, be it this one."""
        if turn.question:
            self._questions.append(turn)
            return self._crowded_out(self._questions, QUESTIONS_WAITING_MAX)
        if turn.ahead and (self._waiting or any(not other.slow for other in self._running)):
            # It holds no slot and no place of those who could begin.
            self._ahead.append(turn)
            return self._crowded_out(self._ahead, self._slots + self._queue_max)
        self._waiting.append(turn)
        free = max(0, self._slots - self._slots_taken())
        return self._crowded_out(self._waiting, free + self._queue_max)

    def take(self) -> Turn | None:
        """The request that begins now; None while no slot is free or nobody waits for one."""
        if self._question_is_ready():
            turn = self._first(self._questions)
            self._questions.remove(turn)
            self._answering.append(turn)
            turn.running = True
            return turn
        if not self.ready:
            return None
        turn = self._first(self._waiting)
        self._waiting.remove(turn)
        self._running.append(turn)
        turn.running = True
        return turn

    def over(self, turn: Turn) -> None:
        """The request was served, or its downloader is gone. The end of a transfer lets one go that waited for it."""
        for turns in (self._running, self._waiting, self._ahead, self._questions, self._answering):
            if turn in turns:
                turns.remove(turn)
        if turn.running:
            turn.running = False
            if not turn.question and len(self._waiting) <= self._queue_max:
                self._let_go()

    def look(self, now_s: float) -> Turn | None:
        """Now and then: what time has brought. Returns a transfer that is to be ended for one that waits, if any."""
        if self._ahead and not self._waiting and all(turn.slow for turn in self._running):
            # A trickle is no end to wait for.
            self._let_go()
        waiting = next((turn for turn in self._waiting if now_s - turn.asked_s >= SHARE_AFTER_S), None)
        if waiting is None or self._slot_is_free():
            return None
        addresses, peers = self._counts(self._running)
        held = self._running
        if max(addresses.values()) >= addresses[waiting.address] + 2:
            most = max(addresses, key=addresses.__getitem__)
            held = [turn for turn in held if turn.address == most]
        elif max(peers.values()) >= peers[waiting.peer] + 2:
            most_of_peer = max(peers, key=peers.__getitem__)
            held = [turn for turn in held if turn.peer == most_of_peer]
        else:
            return None
        return max(held, key=lambda turn: (turn.slow, -turn.asked_s))

    # --- what is fair ------------------------------------------------------------------------------------------

    def _first(self, turns: list[Turn]) -> Turn:
        """First come first served among those whose address, and then whose peer, holds the fewest slots."""
        addresses, peers = self._counts(self._running)
        return min(turns, key=lambda turn: (addresses[turn.address], peers[turn.peer]))

    def _crowded_out(self, turns: list[Turn], most: int) -> Turn | None:
        """Of more than so many, the last of whoever has the most requests here, waiting or served."""
        if len(turns) <= most:
            return None
        addresses, peers = self._counts([*self._running, *self._waiting, *self._ahead, *self._questions])
        last = max(reversed(turns), key=lambda turn: (addresses[turn.address], peers[turn.peer]))
        turns.remove(last)
        return last

    def _let_go(self) -> None:
        if self._ahead:
            turn = self._first(self._ahead)
            self._ahead.remove(turn)
            self._waiting.append(turn)

    def _question_is_ready(self) -> bool:
        taken = sum(not turn.slow for turn in self._answering)
        return bool(self._questions) and taken < QUESTIONS and len(self._answering) < 2 * QUESTIONS

    def _slot_is_free(self) -> bool:
        return self._slots_taken() < self._slots and len(self._running) < BESIDE_SLOW_FACTOR * self._slots

    def _slots_taken(self) -> int:
        return sum(not turn.slow for turn in self._running)

    def _counts(self, turns: list[Turn]) -> tuple[Counter[str], Counter[PeerId]]:
        return Counter(turn.address for turn in turns), Counter(turn.peer for turn in turns)
