"""The simulator's clock: order of equal times, and calls that are taken back."""

from __future__ import annotations

import random

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


def test_calls_near_and_far_that_come_about_as_others_run_keep_the_order_of_time() -> None:
    clock, rng = Clock(), random.Random(7)
    made, ran = list[tuple[float, int]](), list[tuple[float, int]]()
    cancelled = set[int]()

    def make() -> None:
        for delay_s in (0.0, 1e-5, rng.random() * 1e-3, round(rng.random(), 2), rng.random() * 60.0):
            entry = (clock.now + delay_s, len(made))
            made.append(entry)
            call = clock.at(entry[0], happen, entry)
            if rng.random() < 0.3:
                call.cancel()
                cancelled.add(entry[1])

    def happen(entry: tuple[float, int]) -> None:
        assert clock.now == entry[0]
        ran.append(entry)
        if len(made) < 20_000:
            make()

    make()
    # Stops before a time that nothing is due at leave what comes later as it was.
    for until_s in (0.5, 0.500001, 3.0):
        assert not clock.run(until_s)
        make()
    run(clock)
    assert ran == sorted(entry for entry in made if entry[1] not in cancelled)
    assert clock.waiting == 0
