"""A simulated run as figures for the common report (benchmarks.report); shows and writes nothing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.results import ModeRun, NodeTimes

if TYPE_CHECKING:
    from benchmarks.scenario import Fate, Scenario
    from benchmarks.simulator.client import Client
    from benchmarks.simulator.settings import SimulationSettings
    from benchmarks.simulator.simulation import Outcome


def mode_run(outcome: Outcome) -> ModeRun:
    """The one mode that is simulated."""
    scenario = outcome.scenario
    fates = scenario.fates()
    return ModeRun(
        mode="scheduled",
        nodes=tuple(_times(scenario, client, fates[client.node - 1], outcome) for client in outcome.clients),
        samples=outcome.samples,
        origin_bytes=outcome.origin_bytes,
        origin_gets=outcome.origin_gets,
        origin_repeated_bytes=outcome.origin_repeated_bytes,
        seed_bytes=round(outcome.seed_sent_bytes),
        peer_bytes=round(outcome.peers_sent_bytes),
        cross_rack_bytes=None if outcome.cross_rack_bytes is None else round(outcome.cross_rack_bytes),
        more={"first_copies_s": outcome.first_copies_s, "scheduler": outcome.counters},
    )


def _times(scenario: Scenario, client: Client, fate: Fate, outcome: Outcome) -> NodeTimes:
    left = fate.leaves_s is not None and client.completed_s is None and fate.returns_s is None
    nameless = client.node in outcome.nameless
    return NodeTimes(
        node=client.node - 1,
        class_name=scenario.class_of(client.node - 1).name,
        asked_s=client.asked_s or 0.0,
        first_byte_s=client.first_byte_s,
        completed_s=client.completed_s,
        fate=fate_name(fate),
        error=client.error or ("not complete, and nobody said why" if nameless and not left else ""),
    )


def fate_name(fate: Fate) -> str:
    """As benchmarks.results names it."""
    if fate.corrupt:
        return "corrupt"
    if fate.slow:
        return "slow"
    return "left" if fate.leaves_s is not None else ""


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
    return (
        f"{settings.round_trip_s * 1e3:g} ms round trip, {settings.service_s * 1e6:g} us of supernode service an event,"
        f" {settings.hash_s * 1e3:g} ms to a piece's hash, {settings.slots} upload slots"
    )


def trace_line(outcome: Outcome) -> str:
    """What tells two runs apart."""
    return (
        f"seed {outcome.scenario.seed}, trace {outcome.trace_hash[:16]} of {outcome.trace_entries} entries,"
        f" {outcome.wall_s:.1f} s of computing"
    )
