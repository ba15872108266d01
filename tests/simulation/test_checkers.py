"""Each checker passes the production machines, and trips on the machine that breaks its rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.simulator.checkers import (
    AllComplete,
    BoundsKept,
    BytesConserved,
    Checker,
    OriginOnce,
    RuleBroken,
    SlotsKept,
)
from benchmarks.simulator.scenario import Scenario
from benchmarks.simulator.world import World
from proto.pieces import KIB
from tests.simulation import broken

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.simulator.world import DownloaderMachine, SchedulerMachine

SCENARIO = Scenario(nodes=6, size_bytes=12 * 64 * KIB - 5, piece_size_bytes=64 * KIB, rate_bytes_s=1e6,
                    origin_rate_bytes_s=1e6, supernode_rate_bytes_s=1e6)  # fmt: skip


@pytest.mark.parametrize(
    ("checker", "machine", "text"),
    [
        (OriginOnce, broken.AsksTheOriginTwice, "asked again for pieces"),
        (SlotsKept, broken.CountsNoSlots, "which has 8 slots"),
        (AllComplete, broken.StarvesOne, r"first \[3\]"),
    ],
)
def test_a_checker_trips_on_the_scheduler_that_breaks_its_rule(
    checker: Callable[[], Checker], machine: Callable[[Scenario], SchedulerMachine], text: str
) -> None:
    with pytest.raises(RuleBroken, match=text):
        World(SCENARIO, [checker()], make_scheduler=machine).run()


@pytest.mark.parametrize(
    ("checker", "machine", "text"),
    [
        (BytesConserved, broken.ClaimsPieces, "0 of 65536 bytes came"),
        (BytesConserved, broken.CompletesAtOnce, "complete with 0 of"),
        (BoundsKept, broken.CompletesAtOnce, "its links need"),
    ],
)
def test_a_checker_trips_on_the_downloader_that_breaks_its_rule(
    checker: Callable[[], Checker], machine: Callable[[Scenario, int], DownloaderMachine], text: str
) -> None:
    with pytest.raises(RuleBroken, match=text):
        World(SCENARIO, [checker()], make_downloader=machine).run()


@pytest.mark.parametrize("checker", [BytesConserved, BoundsKept, OriginOnce, SlotsKept, AllComplete])
def test_the_production_machines_pass_every_checker(checker: Callable[[], Checker]) -> None:
    assert World(SCENARIO, [checker()]).run().incomplete == ()


def test_a_last_node_before_the_piece_bound_is_told_from_one_before_its_own_links() -> None:
    checker = BoundsKept()
    checker.opened(SCENARIO)
    checker.completed(SCENARIO.size_bytes / SCENARIO.rate_bytes_s, 1)
    with pytest.raises(RuleBroken, match="the piece bound is"):
        checker.ended(1.0, ())


def test_bytes_that_left_a_source_and_came_nowhere_are_missed() -> None:
    checker = BytesConserved()
    checker.opened(SCENARIO)
    checker.carried(1.0, "one uplink", 1e6, 1000.0, 0.0)
    checker.carried(1.0, "one downlink", 1e6, 0.0, 999.0)
    with pytest.raises(RuleBroken, match="1000 bytes left their sources, 999 came"):
        checker.ended(1.0, ())


def test_a_link_that_carried_more_than_it_can_is_found() -> None:
    checker = BoundsKept()
    checker.opened(SCENARIO)
    checker.carried(1.0, "one uplink", 1e6, 1e6, 0.0)
    with pytest.raises(RuleBroken, match="one uplink carried"):
        checker.carried(1.0, "one uplink", 1e6, 1.001e6, 0.0)


def test_a_source_that_sends_more_at_a_time_than_it_has_slots_is_found() -> None:
    checker = SlotsKept()
    checker.opened(SCENARIO)
    checker.began(0.0, 1, SCENARIO.slots)
    with pytest.raises(RuleBroken, match="sends 9 pieces at a time"):
        checker.began(0.0, 1, SCENARIO.slots + 1)
