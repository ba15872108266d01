"""Machines that break one rule each, around the production ones: for every checker one that trips it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.simulator.names import digest_of
from benchmarks.simulator.simulation import production_downloader, production_scheduler
from peer.downloader.contract import BlobComplete, PieceHeld, StoreOpened
from supernode.scheduler.contract import FetchFromOrigin, GrantLease

if TYPE_CHECKING:
    import peer.downloader.contract as down
    import supernode.scheduler.contract as up
    from benchmarks.scenario import Scenario
    from benchmarks.simulator.settings import SimulationSettings

STARVED = 3


class Scheduling:
    """Passes everything on; subclasses change commands."""

    def __init__(self, scenario: Scenario, settings: SimulationSettings) -> None:
        self._machine = production_scheduler(scenario, settings)

    def handle(self, event: up.Event, now: float) -> list[up.Command]:
        return [other for command in self._machine.handle(event, now) for other in self.changed(command)]

    def next_wakeup(self) -> float | None:
        return self._machine.next_wakeup()

    def changed(self, command: up.Command) -> list[up.Command]:
        raise NotImplementedError


class AsksTheOriginTwice(Scheduling):
    """Its first fetch is given again for one piece."""

    def changed(self, command: up.Command) -> list[up.Command]:
        if isinstance(command, FetchFromOrigin):
            return [command, replace(command, fetch_id=command.fetch_id + 1, pieces=1)]
        return [command]


class StarvesOne(Scheduling):
    """One node's grants are lost."""

    def changed(self, command: up.Command) -> list[up.Command]:
        return [] if isinstance(command, GrantLease) and command.receiver == STARVED else [command]


class SaysNothing:
    """One node's machine takes every event and gives no command; the others are as they should be."""

    def __init__(self, scenario: Scenario, node: int) -> None:
        self._machine = production_downloader(scenario, node)
        self._mute = node == STARVED

    def handle(self, event: down.Event, now: float) -> list[down.Command]:
        commands = self._machine.handle(event, now)
        return [] if self._mute else commands

    def next_wakeup(self) -> float | None:
        return None if self._mute else self._machine.next_wakeup()


class Downloading:
    """Passes everything on; subclasses add commands to those of an event."""

    def __init__(self, scenario: Scenario, node: int) -> None:
        self._machine = production_downloader(scenario, node)

    def handle(self, event: down.Event, now: float) -> list[down.Command]:
        return self._machine.handle(event, now) + self.added(event)

    def next_wakeup(self) -> float | None:
        return self._machine.next_wakeup()

    def added(self, event: down.Event) -> list[down.Command]:
        raise NotImplementedError


class ClaimsPieces(Downloading):
    """Says that it holds a piece which never came."""

    def added(self, event: down.Event) -> list[down.Command]:
        return [PieceHeld(digest_of(0), 0)] if isinstance(event, StoreOpened) else []


class CompletesAtOnce(Downloading):
    """Says that the blob is complete as soon as the store is open."""

    def added(self, event: down.Event) -> list[down.Command]:
        return [BlobComplete(digest_of(0))] if isinstance(event, StoreOpened) else []
