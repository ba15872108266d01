"""Threads for work at origins, those of each upstream by themselves: one that is slow delays its own work alone.

Who asks for much delays its own work alone too: the askers of one upstream's work have their turns. Nobody waits for an
origin in a thread that serves several of them. What is done there is the callers' business; how many upstreams there
are is bounded by the allow-list.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    # (upstream, work, by how much the number that waits changes, seconds that one waited which begins).
    OnQueue = Callable[[str, str, int, float], None]

T = TypeVar("T")


class Work(Enum):
    """What is done at an origin; each kind has threads of its own, so that a long body delays no small question."""

    CHECK = "check"
    FETCH = "fetch"
    RELAY = "relay"
    PASSAGE = "passage"
    PUSH = "push"


# At a time at one upstream; an origin that is asked more often at once would limit us anyway. A passage is one client.
AT_ONCE: Final = {Work.CHECK: 16, Work.FETCH: 16, Work.RELAY: 32, Work.PASSAGE: 128, Work.PUSH: 64}


def ignore(upstream: str, work: str, change: int, waited_s: float) -> None:
    """For who counts nothing."""


class _Line:
    """What waits for one upstream, by who asked. Guarded by the queues' lock."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.threads = threads
        self.waiting: dict[Future[Any], Callable[[], Any]] = {}
        # Whose turn is next comes first; of each the oldest. One may stand in several, for all who asked for it.
        self.askers: OrderedDict[Hashable, deque[Future[Any]]] = OrderedDict()

    def add(self, asker: Hashable, future: Future[Any]) -> None:
        self.askers.setdefault(asker, deque()).append(future)

    def next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        """Begin what the next asker has waited for the longest; its turn comes again after all others'."""
        while self.askers:
            asker, own = self.askers.popitem(last=False)
            future = own.popleft()
            if own:
                self.askers[asker] = own
            run = self.waiting.pop(future, None)
            if run is not None and future.set_running_or_notify_cancel():
                return future, run
        return None


class UpstreamQueues:
    """Safe to use from many threads. close() it in the end."""

    def __init__(self, on_queue: OnQueue) -> None:
        self._on_queue = on_queue
        self._lock = threading.Lock()
        self._lines: dict[tuple[Work, str], _Line] = {}
        self._waiting: Counter[tuple[Work, str]] = Counter()

    def submit(
        self, work: Work, upstream: str, function: Callable[..., T], *arguments: object, asker: Hashable = None
    ) -> Future[T]:
        """Call the function in a thread when this upstream's turn for such work has come, and in that `asker`'s.

        What one asker submits begins in that order.
        """
        key, asked_s = (work, upstream), time.monotonic()
        future: Future[T] = Future()

        def run() -> T:
            self._changed(key, -1, time.monotonic() - asked_s)
            return function(*arguments)

        def ended(future: Future[T]) -> None:
            if future.cancelled():  # before it began
                with self._lock:
                    line.waiting.pop(future, None)
                self._changed(key, -1)

        with self._lock:
            line = self._line(key)
            line.waiting[future] = run
            line.add(asker, future)
        self._changed(key, +1)
        future.add_done_callback(ended)
        line.threads.submit(self._take_turn, line)
        return future

    def also_ask(self, work: Work, upstream: str, future: Future[Any], asker: Hashable) -> None:
        """Another asker waits for it too: it begins when the first of their turns comes."""
        with self._lock:
            line = self._line((work, upstream))
            if future in line.waiting:
                line.add(asker, future)

    def waiting(self, work: Work, upstream: str) -> int:
        """How much waits for its turn."""
        return self._waiting[work, upstream]

    def all_waiting(self) -> dict[str, dict[str, int]]:
        """The same of all upstreams that were ever asked, by upstream and work."""
        found: dict[str, dict[str, int]] = {}
        with self._lock:
            for (work, upstream), count in self._waiting.items():
                found.setdefault(upstream, {})[work.value] = count
        return found

    def close(self) -> None:
        """Drop what waits, and join the threads; who gave them work has cancelled it."""
        with self._lock:
            lines = list(self._lines.values())
            dropped = [future for line in lines for future in line.waiting]
        for future in dropped:
            future.cancel()
        for line in lines:
            line.threads.shutdown(wait=False, cancel_futures=True)
        for line in lines:
            line.threads.shutdown(wait=True)

    def _line(self, key: tuple[Work, str]) -> _Line:
        line = self._lines.get(key)
        if line is None:
            work, upstream = key
            threads = ThreadPoolExecutor(AT_ONCE[work], thread_name_prefix=f"{work.value}-{upstream}")
            line = self._lines[key] = _Line(threads)
        return line

    def _take_turn(self, line: _Line) -> None:
        """In a thread, as often as there is something that waits."""
        with self._lock:
            begun = line.next()
        if begun is not None:
            _carry_out(*begun)

    def _changed(self, key: tuple[Work, str], change: int, waited_s: float = 0.0) -> None:
        with self._lock:
            self._waiting[key] += change
        self._on_queue(key[1], key[0].value, change, waited_s)


def _carry_out(future: Future[T], run: Callable[[], T]) -> None:
    try:
        result = run()
    except BaseException as error:
        future.set_exception(error)
        # The error has this frame, which must not have what holds the error.
        del future
    else:
        future.set_result(result)
