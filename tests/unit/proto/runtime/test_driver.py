"""What runs a machine on the event loop: the machine's time, where the process stood still."""

from __future__ import annotations

import asyncio
import time

import pytest

from benchmarks.cluster.processes import WAIT_S
from proto.runtime import driver
from proto.runtime.driver import Driver

WAKEUP = "wakeup"
FIRST_S = 0.05


class Sleeper:
    """A machine that wants to be woken a moment after it was first told something."""

    def __init__(self) -> None:
        self.handled: dict[str, float] = {}
        self.told, self.woken = asyncio.Event(), asyncio.Event()
        self.asked = 0

    def handle(self, event: str, now: float) -> list[str]:
        self.handled[event] = now
        (self.woken if event == WAKEUP else self.told).set()
        return []

    def next_wakeup(self) -> float | None:
        self.asked += 1
        return None if self.woken.is_set() else self.handled["first"] + FIRST_S


@pytest.mark.asyncio
async def test_the_time_for_which_the_process_stood_still_does_not_pass_for_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver, "STALL_S", FIRST_S)
    machine = Sleeper()
    driving: Driver[str, str] = Driver(machine, WAKEUP, lambda _: None)
    driving.begin(lambda _: None)
    driving.post("first")
    await machine.told.wait()
    stood_s = 10 * FIRST_S
    time.sleep(stood_s)  # noqa: ASYNC251  # that is what is tried
    driving.post("said meanwhile")
    async with asyncio.timeout(WAIT_S):
        await machine.woken.wait()
    driving.close()
    assert machine.handled["said meanwhile"] - machine.handled["first"] == pytest.approx(FIRST_S)
    assert driving.now() < time.monotonic() - stood_s / 2


@pytest.mark.asyncio
async def test_a_machine_that_may_be_late_is_asked_once_for_many_turns_when_it_wants_to_be_woken() -> None:
    machine = Sleeper()
    driving: Driver[str, str] = Driver(machine, WAKEUP, lambda _: None, look_s=10 * WAIT_S)
    driving.begin(lambda _: None)
    for turn in range(20):
        driving.post(f"event {turn}")
        await asyncio.sleep(0)
    driving.close()
    assert len(machine.handled) > 1
    assert machine.asked == 0


@pytest.mark.asyncio
async def test_a_machine_that_may_be_late_is_woken_all_the_same() -> None:
    machine = Sleeper()
    driving: Driver[str, str] = Driver(machine, WAKEUP, lambda _: None, look_s=FIRST_S)
    driving.begin(lambda _: None)
    driving.post("first")
    async with asyncio.timeout(WAIT_S):
        await machine.woken.wait()
    driving.close()
    # Where the process stood still it is this very moment, but for what a float cannot tell.
    assert machine.handled[WAKEUP] - machine.handled["first"] > FIRST_S - 1e-6
