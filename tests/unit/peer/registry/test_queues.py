"""Work for one upstream: the askers have their turns, each its own work in order; what is given up is passed over."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.registry.queues import AT_ONCE, UpstreamQueues, Work, ignore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

UPSTREAM = "registry.example"


class Bench:
    """Threads that are all taken until open() is called: then one of them does the work, and notes it in its order."""

    def __init__(self) -> None:
        self.queues = UpstreamQueues(ignore)
        self.begun: list[str] = []
        self._one_may_go = threading.Event()
        self._all_may_go = threading.Event()
        for taken in (self._one_may_go, *[self._all_may_go] * (AT_ONCE[Work.CHECK] - 1)):
            self.queues.submit(Work.CHECK, UPSTREAM, taken.wait, WAIT_S)

    def ask(self, what: str, asker: str) -> Future[None]:
        return self.queues.submit(Work.CHECK, UPSTREAM, self.begun.append, what, asker=asker)

    def open(self, *last: Future[None]) -> None:
        """Until these are done."""
        self._one_may_go.set()
        for future in last:
            future.result(WAIT_S)
        self._all_may_go.set()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.open()
    bench.queues.close()


def test_who_asks_for_much_delays_its_own_work_alone(bench: Bench) -> None:
    asked = [bench.ask(f"much {number}", "one") for number in range(200)]
    other = bench.ask("little", "other")
    bench.open(*asked, other)
    assert bench.begun.index("little") <= 1


def test_what_another_asks_for_too_begins_in_whoevers_turn_comes_first(bench: Bench) -> None:
    asked = [bench.ask(f"much {number}", "one") for number in range(200)]
    bench.queues.also_ask(Work.CHECK, UPSTREAM, asked[-1], "other")
    bench.open(*asked)
    assert bench.begun.index("much 199") <= 1
    assert len(bench.begun) == 200


def test_what_is_given_up_does_not_begin_and_holds_up_nothing(bench: Bench) -> None:
    given_up, last = bench.ask("given up", "one"), bench.ask("last", "one")
    assert given_up.cancel()
    assert bench.queues.waiting(Work.CHECK, UPSTREAM) == 1
    bench.open(last)
    assert bench.begun == ["last"]


def test_an_error_is_the_askers(bench: Bench) -> None:
    failed = bench.queues.submit(Work.CHECK, UPSTREAM, int, "no number")
    bench.open()
    assert isinstance(failed.exception(WAIT_S), ValueError)


def test_closing_drops_what_waits(bench: Bench) -> None:
    waits = bench.ask("waits", "one")
    closing = threading.Thread(target=bench.queues.close)
    closing.start()
    with pytest.raises(CancelledError):
        waits.result(WAIT_S)
    bench.open()
    closing.join(WAIT_S)
    assert bench.begun == []
