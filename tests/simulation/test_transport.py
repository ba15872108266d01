"""Simulated transfers: connections that begin slowly, and time limits before and after the answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.scenario import equal_links
from benchmarks.simulator.clock import Clock
from benchmarks.simulator.network import Network
from benchmarks.simulator.settings import SimulationSettings
from benchmarks.simulator.transport import Transport
from proto.wire.messages import FetchReason

RATE = 1e8
PIECE = 1_000_000
SCENARIO = replace(equal_links(3, (4 * PIECE,), RATE), piece_size_bytes=PIECE)
# At this rate 100 kB are on their way; the window is a tenth of it.
SLOW = SimulationSettings(slow_start=True, slow_start_window_bytes=10_000, slow_start_idle_s=0.2)


class Wires:
    """A transport alone, with node 1 as the source of every piece."""

    def __init__(self, settings: SimulationSettings) -> None:
        self.clock = Clock()
        self.transport = Transport(self.clock, Network(self.clock, SCENARIO, settings), SCENARIO, settings, ())
        self.transport.endpoints[1].held[0] = 0b1111
        self.outcomes: list[tuple[int, str]] = []

    def _ended(self, number: int, reason: str, elapsed_s: float) -> None:
        self.outcomes.append((number, reason))
        self.elapsed_s = elapsed_s

    def fetch(self, piece: int, *, deadline_s: float = 10.0) -> float:
        """Fetch it to node 2; how long that took from the answer's head."""
        self.transport.fetch(2, 1, 0, piece, deadline_s, self._ended, piece)
        self.clock.run(1e9)
        return self.elapsed_s

    def rest(self, seconds: float) -> None:
        """Nothing happens for so long."""
        self.clock.run_after(seconds, self.clock.stop)
        self.clock.run(1e9)


def test_a_new_connection_pays_the_rounds_until_its_window_fills_the_link() -> None:
    lasting_s = Wires(SimulationSettings()).fetch(0)
    # Windows of 10, 20, 40 and 80 kB: four round trips for what the link carries in 1.5.
    assert Wires(SLOW).fetch(0) == pytest.approx(lasting_s + 4 * 0.001 - 150_000 / RATE)


def test_a_warm_connection_does_not_begin_slowly_and_one_that_rested_does() -> None:
    wires, lasting_s = Wires(SLOW), Wires(SimulationSettings()).fetch(0)
    first_s = wires.fetch(0)
    assert wires.fetch(1) == pytest.approx(lasting_s)
    wires.rest(0.1)
    assert wires.fetch(2) == pytest.approx(lasting_s)
    wires.rest(0.3)
    assert wires.fetch(3) == pytest.approx(first_s)


def test_what_is_cancelled_before_its_bytes_flow_gives_its_slot_back() -> None:
    wires = Wires(SLOW)
    transfer = wires.transport.fetch(2, 1, 0, 0, 10.0, wires._ended, 7)
    wires.clock.run_after(0.001, wires.transport.cancel, transfer)
    wires.clock.run(1e9)
    assert wires.outcomes == [(7, FetchReason.CANCELLED)]
    assert wires.transport.endpoints[1].running == 0


def test_the_deadline_counts_from_the_answer_and_not_from_the_wait_for_a_slot() -> None:
    wires = Wires(SimulationSettings(slots=1, slow_start=False))
    lasting_s = PIECE / RATE
    wires.transport.fetch(3, 1, 0, 0, 10.0, wires._ended, 100)
    wires.fetch(1, deadline_s=lasting_s + 0.005)
    assert wires.outcomes == [(100, ""), (1, "")]
    wires.fetch(2, deadline_s=lasting_s / 2)
    assert wires.outcomes[-1] == (2, FetchReason.TIMEOUT)


def test_a_receiver_waits_for_a_slot_no_longer_than_it_may() -> None:
    wires = Wires(SimulationSettings(slots=1, slot_wait_s=0.004))
    wires.transport.fetch(3, 1, 0, 0, 10.0, wires._ended, 100)
    wires.fetch(1, deadline_s=5.0)
    assert wires.outcomes == [(1, FetchReason.TIMEOUT), (100, "")]


def test_what_follows_at_its_receiver_is_asked_for_when_the_one_before_is_nearly_over() -> None:
    wires = Wires(SimulationSettings(round_trip_s=0.0))
    wires.transport.endpoints[3].held[0] = 0b1111
    lasting_s = PIECE / RATE
    first = wires.transport.fetch(2, 1, 0, 0, 10.0, wires._ended, 0)
    wires.transport.fetch(2, 3, 0, 1, 10.0, wires._ended, 1, behind=first)
    wires.clock.run(1e9)
    assert wires.outcomes == [(0, ""), (1, "")]
    # They share the link for the last sixteenth of the first, which takes twice as long then.
    assert wires.elapsed_s == pytest.approx(lasting_s * 17 / 16, rel=0.05)
    assert wires.transport.endpoints[2].received_bytes == 2 * PIECE


def test_what_follows_a_transfer_that_is_cancelled_is_asked_for_then() -> None:
    wires = Wires(SimulationSettings(round_trip_s=0.0))
    wires.transport.endpoints[3].held[0] = 0b1111
    first = wires.transport.fetch(2, 1, 0, 0, 10.0, wires._ended, 0)
    wires.transport.fetch(2, 3, 0, 1, 10.0, wires._ended, 1, behind=first)
    wires.clock.run_after(0.002, wires.transport.cancel, first)
    wires.clock.run(1e9)
    assert wires.outcomes == [(0, FetchReason.CANCELLED), (1, "")]
    assert wires.elapsed_s == pytest.approx(PIECE / RATE, rel=0.05)
