"""Simulated transfers: time limits before and after the answer, and requests that follow one another."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from benchmarks.scenario import equal_links
from benchmarks.simulator.clock import Clock
from benchmarks.simulator.network import Network
from benchmarks.simulator.profile import Delay, Profile
from benchmarks.simulator.settings import SimulationSettings
from benchmarks.simulator.transport import Transport
from proto.wire.messages import FetchReason

RATE = 1e8
PIECE = 1_000_000
SCENARIO = replace(equal_links(3, (4 * PIECE,), RATE), piece_size_bytes=PIECE)


class Wires:
    """A transport alone, with node 1 as the source of every piece."""

    def __init__(self, settings: SimulationSettings) -> None:
        self.clock = Clock()
        network = Network(self.clock, SCENARIO, settings)
        self.transport = Transport(self.clock, network, SCENARIO, settings, (), random.Random(1))
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


def test_the_deadline_counts_from_the_answer_and_not_from_the_wait_for_a_slot() -> None:
    wires = Wires(SimulationSettings(slots=1))
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


def test_a_profile_delays_the_request_and_not_the_transfer() -> None:
    slow = Delay((0.05,))
    wires = Wires(SimulationSettings(round_trip_s=0.0, profile=Profile(wake=slow, connect=slow, request=slow)))
    took_s = wires.fetch(0)
    assert took_s == pytest.approx(PIECE / RATE + SimulationSettings().hash_s)
    assert wires.clock.now >= took_s + 2 * 0.05
