"""The simulator's clock: order of equal times, and calls that are taken back."""

from __future__ import annotations

from benchmarks.simulator.clock import Clock


def run(clock: Clock) -> None:
    assert not clock.run(1e9)


def test_calls_of_one_time_run_in_the_order_in_which_they_were_made() -> None:
    clock, said = Clock(), list[str]()

    def first() -> None:
        said.append("first")
        clock.run_after(0.0, said.append, "made meanwhile")
        clock.at(1.0, said.append, "made meanwhile too")

    clock.run_at(1.0, first)
    clock.at(1.0, said.append, "second")
    clock.run_at(0.5, said.append, "earlier")
    run(clock)
    assert said == ["earlier", "first", "second", "made meanwhile", "made meanwhile too"]
    assert clock.now == 1.0


def test_a_cancelled_call_neither_runs_nor_moves_the_time() -> None:
    clock, said = Clock(), list[str]()
    call = clock.after(5.0, said.append, "no")
    clock.run_after(1.0, call.cancel)
    at_once = clock.after(0.0, said.append, "nor this")
    at_once.cancel()
    run(clock)
    assert said == []
    assert clock.now == 1.0


def test_time_outs_that_never_come_about_leave_the_heap() -> None:
    clock = Clock()
    for _ in range(100_000):
        clock.after(60.0, run, clock).cancel()
    assert clock.waiting < 5_000


def test_nothing_later_than_asked_for_is_run() -> None:
    clock, said = Clock(), list[str]()
    clock.run_at(2.0, said.append, "late")
    assert not clock.run(1.9)
    assert said == []
    assert not clock.run(2.0)
    assert said == ["late"]


def test_a_run_can_be_stopped_and_goes_on_where_it_was() -> None:
    clock, said = Clock(), list[str]()
    clock.run_at(1.0, clock.stop)
    clock.run_at(1.0, said.append, "after the stop")
    assert clock.run(2.0)
    assert said == []
    assert not clock.run(2.0)
    assert said == ["after the stop"]
