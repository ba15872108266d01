"""CPU time of the machine, as the kernel counts it, and who gets it first."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PREFERRED_NICE: Final = -5


@dataclass(frozen=True, slots=True)
class CoreTime:
    """Of all cores together, in clock ticks since the machine's start. `network`: in soft interrupts, where frames of
    shaped links are passed on: queues, bridges, and TCP's own part of receiving.
    """

    busy_ticks: int
    all_ticks: int
    network_ticks: int

    @classmethod
    def now(cls) -> CoreTime:
        """Read it."""
        return cls.parse(Path("/proc/stat").read_text())

    @classmethod
    def parse(cls, text: str) -> CoreTime:
        """/proc/stat: user nice system idle iowait irq softirq steal; what guests use is within user."""
        ticks = [int(word) for word in text.split("\n", 1)[0].split()[1:9]]
        return cls(sum(ticks) - ticks[3] - ticks[4], sum(ticks), ticks[5] + ticks[6])

    def busy_since(self, before: CoreTime) -> float:
        """The part of all cores' time that was not idle, 0 to 1."""
        return (self.busy_ticks - before.busy_ticks) / max(1, self.all_ticks - before.all_ticks)

    def network_since(self, before: CoreTime) -> float:
        """The part of all cores' time that passed frames on, 0 to 1."""
        return (self.network_ticks - before.network_ticks) / max(1, self.all_ticks - before.all_ticks)


def prefer(pid: int) -> None:
    """Let the process have the CPU before 200 others: in a cluster it has a machine of its own. Needs root.

    Priorities are a thread's own, and threads to come have that of the one that starts them.
    """
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # the thread has just ended
            os.setpriority(os.PRIO_PROCESS, int(task.name), PREFERRED_NICE)
