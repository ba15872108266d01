"""What a piece cost on its way, step by step: the figures of all processes of a run, added up for each piece moved."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.report import print_table

if TYPE_CHECKING:
    from pathlib import Path

SUFFIX: Final = ".steps"
SUPERNODE: Final = "supernode"


@dataclass(frozen=True, slots=True)
class StepRow:
    """Of one step at the nodes or at the supernode, for each piece that a node got. Times are milliseconds of CPU."""

    place: str
    step: str
    calls: float
    user_ms: float
    system_ms: float
    sleeps: float


def read_steps(folder: Path, pieces: int) -> list[StepRow]:
    """From what the processes left in `folder`; `pieces` were moved in all. Steps in order, and what is in none."""
    found: dict[str, dict[str, list[float]]] = {"node": defaultdict(lambda: [0.0] * 4), SUPERNODE: {}}
    found[SUPERNODE] = defaultdict(lambda: [0.0] * 4)
    wholes: dict[str, list[float]] = {place: [0.0] * 3 for place in found}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        place = SUPERNODE if path.name.startswith(SUPERNODE) else "node"
        kept = json.loads(path.read_text())
        for step, cost in kept["steps"].items():
            found[place][step] = [a + b for a, b in zip(found[place][step], cost, strict=True)]
        wholes[place] = [a + b for a, b in zip(wholes[place], kept["whole"], strict=True)]
    rows = []
    for place, steps in found.items():
        for step, (calls, cpu_s, kernel_s, sleeps) in sorted(steps.items(), key=lambda each: int(each[0].split()[0])):
            if calls:
                rows.append(_row(place, step, calls, cpu_s - kernel_s, kernel_s, sleeps, pieces))
        user_s, system_s, sleeps = wholes[place]
        in_steps = [sum(each) for each in zip(*steps.values(), strict=True)] or [0.0] * 4
        rest = (user_s - in_steps[1] + in_steps[2], system_s - in_steps[2], sleeps - in_steps[3])
        rows.append(_row(place, "beside the steps: loops, TLS, waking, packets", 0, *rest, pieces))
        rows.append(_row(place, "all", 0, user_s, system_s, sleeps, pieces))
    return rows


def _row(place: str, step: str, calls: float, user_s: float, system_s: float, sleeps: float, pieces: int) -> StepRow:
    return StepRow(place, step, calls / pieces, user_s * 1e3 / pieces, system_s * 1e3 / pieces, sleeps / pieces)


def print_steps(rows: list[StepRow]) -> None:
    """A table for the terminal."""
    table = [
        (
            f"{row.place}: {row.step}",
            f"{row.calls:.2f}" if row.calls else "",
            f"{row.user_ms:.3f}",
            f"{row.system_ms:.3f}",
            f"{row.sleeps:.2f}",
        )
        for row in rows
    ]
    columns = ("step", "calls", "user ms", "system ms", "sleeps")
    print_table("what a piece costs on its way to one node", columns, table)
