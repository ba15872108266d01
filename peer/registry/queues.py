"""Threads for work at origins, those of each upstream by themselves: one that is slow delays its own work alone.

Nobody waits for an origin in a thread that serves several of them. What is done there is the callers' business; how
many upstreams there are is bounded by the allow-list.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    # (upstream, work, by how much the number that waits changes, seconds that one waited which begins).
    OnQueue = Callable[[str, str, int, float], None]

T = TypeVar("T")


class Work(Enum):
    """What is done at an origin; each kind has threads of its own, so that a long body delays no small question."""

    CHECK = "check"
    FETCH = "fetch"
    RELAY = "relay"
    PASSAGE = "passage"


# At a time at one upstream; an origin that is asked more often at once would limit us anyway. A passage is one client.
AT_ONCE: Final = {Work.CHECK: 16, Work.FETCH: 16, Work.RELAY: 32, Work.PASSAGE: 128}


def ignore(upstream: str, work: str, change: int, waited_s: float) -> None:
    """For who counts nothing."""


class UpstreamQueues:
    """Safe to use from many threads. close() it in the end."""

    def __init__(self, on_queue: OnQueue) -> None:
        self._on_queue = on_queue
        self._lock = threading.Lock()
        self._threads: dict[tuple[Work, str], ThreadPoolExecutor] = {}
        self._waiting: Counter[tuple[Work, str]] = Counter()

    def submit(self, work: Work, upstream: str, function: Callable[..., T], *arguments: object) -> Future[T]:
        """Call the function in a thread when this upstream's turn for such work has come; in order of submission."""
        key, asked_s = (work, upstream), time.monotonic()

        def run() -> T:
            self._changed(key, -1, time.monotonic() - asked_s)
            return function(*arguments)

        def ended(future: Future[T]) -> None:
            if future.cancelled():  # before it began
                self._changed(key, -1)

        with self._lock:
            threads = self._threads.get(key)
            if threads is None:
                name = f"{work.value}-{upstream}"
                threads = self._threads[key] = ThreadPoolExecutor(AT_ONCE[work], thread_name_prefix=name)
        self._changed(key, +1)
        future = threads.submit(run)
        future.add_done_callback(ended)
        return future

    def waiting(self, work: Work, upstream: str) -> int:
        """How much waits for its turn."""
        return self._waiting[work, upstream]

    def close(self) -> None:
        """Drop what waits, and join the threads; who gave them work has cancelled it."""
        with self._lock:
            threads = list(self._threads.values())
        for each in threads:
            each.shutdown(wait=False, cancel_futures=True)
        for each in threads:
            each.shutdown(wait=True)

    def _changed(self, key: tuple[Work, str], change: int, waited_s: float = 0.0) -> None:
        with self._lock:
            self._waiting[key] += change
        self._on_queue(key[1], key[0].value, change, waited_s)
