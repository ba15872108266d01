"""What the common report (benchmarks.report) says of a simulated run alone; shows and writes nothing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.scenario import Scenario
    from benchmarks.simulator.settings import SimulationSettings
    from benchmarks.simulator.simulation import Outcome


def links(settings: SimulationSettings, scenario: Scenario) -> dict[str, object]:
    """What the simulation knows of the links beyond the scenario."""
    return {
        "round_trip_s": settings.round_trip_s,
        "service_s": settings.service_s,
        "sharing": "exact" if scenario.nodes <= settings.exact_nodes_max else "local",
    }


def simulation(outcome: Outcome) -> dict[str, object]:
    """The part of the JSON document that only a simulated run has."""
    scenario, settings = outcome.scenario, outcome.settings
    return {
        "seed": scenario.seed,
        "hash_s": settings.hash_s,
        "slots": settings.slots,
        "power_loss": settings.power_loss,
        "trace_sha256": outcome.trace_hash,
        "trace_entries": outcome.trace_entries,
        "wall_s": outcome.wall_s,
    }


def assumptions(settings: SimulationSettings) -> str:
    """Of the simulation itself, as a line."""
    profile = settings.profile
    steps = (("message", profile.control), ("wake-up", profile.wake), ("connection", profile.connect),
             ("request", profile.request))  # fmt: skip
    added = ", ".join(f"{name} {delay.mean_s * 1e3:.2g}" for name, delay in steps)
    return (
        f"{settings.round_trip_s * 1e3:g} ms round trip, {settings.service_s * 1e6:g} us of supernode service an event,"
        f" {settings.hash_s * 1e3:g} ms to a piece's hash, {settings.slots} upload slots; beside that in the mean, ms:"
        f" {added}; {profile.share:g} of a link for a transfer alone"
    )


def trace_line(outcome: Outcome) -> str:
    """What tells two runs apart."""
    return (
        f"seed {outcome.scenario.seed}, trace {outcome.trace_hash[:16]} of {outcome.trace_entries} entries,"
        f" {outcome.wall_s:.1f} s of computing"
    )
