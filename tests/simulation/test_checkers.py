"""Each checker passes the production machines, and trips on the machine that breaks its rule."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks.scenario import Faults, Scenario, equal_links
from benchmarks.simulator.checkers import (
    AllEnd,
    BoundsKept,
    BytesConserved,
    Checker,
    NobodyStarves,
    OriginOnce,
)
from benchmarks.simulator.errors import RuleBroken
from benchmarks.simulator.links import Links
from benchmarks.simulator.settings import SimulationSettings
from benchmarks.simulator.simulation import Simulation
from benchmarks.simulator.transport import Transport
from proto.pieces import KIB
from tests.simulation import broken

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.simulator.simulation import DownloaderMachine, SchedulerMachine
    from benchmarks.simulator.transfer import Transfer

RATE = 1e6
SETTINGS = SimulationSettings()
SCENARIO = replace(equal_links(6, (12 * 64 * KIB - 5,), RATE), piece_size_bytes=64 * KIB)


@pytest.mark.parametrize(
    ("checker", "machine", "text"),
    [
        (OriginOnce, broken.AsksTheOriginTwice, "asked again for pieces"),
        (NobodyStarves, broken.StarvesOne, "node 3 starves"),
    ],
)
def test_a_checker_trips_on_the_scheduler_that_breaks_its_rule(
    checker: Callable[[], Checker], machine: Callable[[Scenario, SimulationSettings], SchedulerMachine], text: str
) -> None:
    with pytest.raises(RuleBroken, match=text):
        Simulation(SCENARIO, SETTINGS, [checker()], make_scheduler=machine).run()


@pytest.mark.parametrize(
    ("checker", "machine", "text"),
    [
        (BytesConserved, broken.ClaimsPieces, "0 of 65536 bytes came"),
        (BytesConserved, broken.CompletesAtOnce, "complete with 0 of"),
        (BoundsKept, broken.CompletesAtOnce, "its links need"),
        (AllEnd, broken.SaysNothing, r"1 live nodes .* first \[3\]"),
    ],
)
def test_a_checker_trips_on_the_downloader_that_breaks_its_rule(
    checker: Callable[[], Checker], machine: Callable[[Scenario, int], DownloaderMachine], text: str
) -> None:
    with pytest.raises(RuleBroken, match=text):
        Simulation(SCENARIO, SETTINGS, [checker()], make_downloader=machine).run()


@pytest.mark.parametrize("checker", [BytesConserved, BoundsKept, OriginOnce, AllEnd, NobodyStarves])
def test_the_production_machines_pass_every_checker(checker: Callable[[], Checker]) -> None:
    assert Simulation(SCENARIO, SETTINGS, [checker()]).run().errors == ()


def test_a_last_node_before_the_piece_bound_is_told_from_one_before_its_own_links() -> None:
    checker = BoundsKept()
    checker.opened(SCENARIO, SETTINGS)
    for node in range(1, 1 + SCENARIO.nodes):
        checker.completed(SCENARIO.size_bytes / RATE, node)
    with pytest.raises(RuleBroken, match="the piece bound is"):
        checker.ended(1.0, ())


def test_bytes_that_left_a_source_and_came_nowhere_are_missed() -> None:
    checker = BytesConserved()
    checker.opened(SCENARIO, SETTINGS)
    checker.moved(1.0, "node 1", (1000.0, 1000.0), (0.0, 0.0))
    checker.moved(1.0, "node 2", (0.0, 0.0), (900.0, 900.0))
    with pytest.raises(RuleBroken, match="1000 bytes left their sources, 900 came"):
        checker.ended(1.0, ())


def test_a_link_that_carried_more_than_it_can_is_found() -> None:
    checker = BoundsKept()
    checker.opened(SCENARIO, SETTINGS)
    checker.carried(1.0, "one uplink", 1e6, 1e6)
    with pytest.raises(RuleBroken, match="one uplink carried"):
        checker.carried(1.0, "one uplink", 1e6, 1.001e6)


# --- parts of the simulation that break a rule ---------------------------------------------------------------------

LEAVING = replace(SCENARIO, faults=Faults(churn_part=0.5, churn_to_s=0.5))


def test_a_transport_that_loses_what_was_cut_short_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_flow = Transport._stop_flow

    def forgetful(self: Transport, transfer: Transfer) -> bool:
        broken_bytes = transfer.receiver.broken_bytes
        was_sent = stop_flow(self, transfer)
        transfer.receiver.broken_bytes = broken_bytes
        return was_sent

    monkeypatch.setattr(Transport, "_stop_flow", forgetful)
    with pytest.raises(RuleBroken, match=r"node \d received .* bytes, its link carried"):
        Simulation(LEAVING, SETTINGS, [BytesConserved()]).run()


def test_links_that_are_faster_than_the_scenario_says_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    add = Links.add
    monkeypatch.setattr(Links, "add", lambda self, rate_bytes_s: add(self, 2 * rate_bytes_s))
    with pytest.raises(RuleBroken, match="its links need"):
        Simulation(SCENARIO, SETTINGS, [BoundsKept()]).run()


def test_a_node_to_which_only_broken_pieces_come_is_starved(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = Transport.fetch

    def too_late(self: Transport, receiver: int, *rest: object, **turn: object) -> Transfer:
        transfer = fetch(self, receiver, *rest, **turn)  # type: ignore[arg-type]  # passed on as they came
        if receiver == broken.STARVED:
            self._clock.run_after(0.05, self.cancel, transfer)
        return transfer

    monkeypatch.setattr(Transport, "fetch", too_late)
    with pytest.raises(RuleBroken, match="node 3 starves"):
        Simulation(SCENARIO, SETTINGS, [NobodyStarves()]).run()


def test_a_request_of_each_node_at_an_origin_that_all_may_ask_is_nothing_to_object_to() -> None:
    checker = OriginOnce()
    checker.opened(SCENARIO, SETTINGS)
    checker.origin_asked(0.0, 0, 0b11, 0)
    with pytest.raises(RuleBroken, match="asked again"):
        checker.origin_asked(1.0, 0, 0b01, 0)
    checker.origin_opened(2.0, 0)
    checker.origin_asked(3.0, 0, 0b01, 0)
