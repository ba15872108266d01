"""Event logs for tests: the parameters of a machine, and the log of a small cold swarm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.scheduler_swarm import ColdSwarm
from supernode.event_log.format import Header, SchedulerParameters
from supernode.event_log.writer import EventLogWriter, RecordedScheduler
from supernode.scheduler.contract import SwarmClosed

if TYPE_CHECKING:
    from pathlib import Path

PARAMETERS = SchedulerParameters(seed=2**64 - 1, epoch=3)
HEADER = Header(PARAMETERS, "0.1.0", "3.11.0", 1_700_000_000.0)
PEERS = 6
PIECES = 12
LIMIT_BYTES = 1 << 24


def record_cold_swarm(path: Path, *, closed: bool = False) -> None:
    """PEERS nodes fetch PIECES pieces, from cold to complete; then the swarm closes, if it is to."""
    log = EventLogWriter(path, HEADER, size_limit_bytes=LIMIT_BYTES)
    try:
        machine = RecordedScheduler(PARAMETERS.build(), log)
        swarm = ColdSwarm(machine, PEERS, PIECES)
        swarm.open()
        swarm.run(PEERS * PIECES)
        # ColdSwarm counts a piece when it has arrived; the turn that hears of the last ones is still to come.
        if closed:
            machine.handle(SwarmClosed(1), 1e6)
    finally:
        log.close()
