"""Timers surface in order of their time, then of their setting; a lease surfaces at the last time set, and no other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supernode.scheduler.records import NO_TIMER, Lease
from supernode.scheduler.timers import Timer, TimerKind, Timers

# Many in one slot of time, some equal, some slots apart.
TIMES = st.integers(0, 11).map(lambda number: number / 4096.0) | st.integers(0, 3).map(float)
LEASES = 4
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("node"), TIMES),
        st.tuples(st.sampled_from(range(LEASES)), TIMES),
        st.tuples(st.just("ended"), st.sampled_from(range(LEASES))),
        st.tuples(st.just("peek"), st.none()),
        st.tuples(st.just("pop"), TIMES),
    ),
    min_size=8,
    max_size=60,
)


def bare_lease() -> Lease:
    """All that the timers know of a lease is when it is due."""
    lease = Lease.__new__(Lease)
    lease.due_s = NO_TIMER
    return lease


class Model:
    """What is pending, as a plain list that is sorted whenever it is asked."""

    def __init__(self) -> None:
        self.order = 0
        # (time, order of setting) of nodes' timers by their numbers, and of leases.
        self.pending: dict[tuple[str, int], tuple[float, int]] = {}

    def set(self, what: tuple[str, int], due_s: float) -> None:
        self.order += 1
        self.pending[what] = (due_s, self.order)

    def next(self) -> tuple[str, int] | None:
        return min(self.pending, key=lambda what: self.pending[what], default=None)

    def next_due(self) -> float | None:
        what = self.next()
        return None if what is None else self.pending[what][0]


@given(STEPS)
def test_timers_surface_as_from_a_sorted_list(steps: list[tuple[object, object]]) -> None:
    timers, model = Timers(), Model()
    leases = [bare_lease() for _ in range(LEASES)]
    known: set[tuple[object, object]] = set()
    for number, (step, value) in enumerate(steps):
        if step == "node":
            assert isinstance(value, float)
            timers.set(value, TimerKind.NODE, number)
            model.set(("node", number), value)
        elif step == "ended":
            assert isinstance(value, int)
            leases[value].due_s = NO_TIMER
            model.pending.pop(("lease", value), None)
        elif step == "peek":
            assert timers.next_due() == model.next_due()
        elif step == "pop":
            assert isinstance(value, float)
            expected = model.next()
            if expected is not None and model.pending[expected][0] > value:
                expected = None
            assert named(timers.pop_due(value), leases) == expected
            if expected is not None:
                del model.pending[expected]
                if expected[0] == "lease":
                    leases[expected[1]].due_s = NO_TIMER
        else:
            assert isinstance(step, int)
            assert isinstance(value, float)
            # A time set a second time for one lease surfaces in the order of the first.
            if (step, value) not in known:
                known.add((step, value))
                timers.set_lease(value, leases[step])
                model.set(("lease", step), value)
    timers.sweep(0)
    assert timers.next_due() == model.next_due()


def named(found: Lease | Timer | None, leases: list[Lease]) -> tuple[str, int] | None:
    """As the model calls it."""
    if found is None:
        return None
    return ("node", found.subject) if isinstance(found, Timer) else ("lease", leases.index(found))


def test_stale_entries_are_swept_once_they_are_the_most() -> None:
    timers, lease = Timers(), bare_lease()
    for number in range(5000):
        timers.set_lease(1.0 + number, lease)
        timers.sweep(live_leases=1)
    assert len(timers) <= 4 + 1024
    assert timers.pop_due(5000.0) is lease
    lease.due_s = NO_TIMER
    assert timers.next_due() is None
