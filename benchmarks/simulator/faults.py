"""Nodes that leave and come back, as the scenario says; slow links and wrong bytes are in network and transport.

Everybody else learns of it only as it would of a process that was killed, or a machine without power.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.scenario import Fate
    from benchmarks.simulator.world import World


def schedule(world: World) -> None:
    """Put all departures and returns on the clock."""
    for number, fate in enumerate(world.scenario.fates(), start=1):
        world.transport.endpoints[number].corrupt = fate.corrupt
        if fate.leaves_s is not None:
            world.clock.run_at(fate.leaves_s, _leave, world, number, fate)
        if fate.returns_s is not None:
            world.clock.run_at(fate.returns_s, _come_back, world, number)


def _leave(world: World, number: int, fate: Fate) -> None:
    settings = world.settings
    world.transport.leave(number)
    session = world.stop_peer(number)
    if settings.power_loss:
        notice_s, reason = settings.pings_missed_max * settings.ping_interval_s, "pings missed"
    else:
        notice_s, reason = settings.round_trip_s / 2, "connection lost"
    world.clock.run_after(notice_s, world.supernode.lost, session, reason)
    if fate.returns_s is None:
        world.client_gone(number)


def _come_back(world: World, number: int) -> None:
    world.transport.come_back(number)
    world.start_peer(number)
