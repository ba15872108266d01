"""What every benchmark shows: a table on the terminal, JSON in a file, and the machine they were taken on."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

_CPUINFO = Path("/proc/cpuinfo")
# For progress and complaints, apart from the figures.
console: Final = Console(stderr=True, highlight=False)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The first column is text, the others are figures."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number > 0)
    for row in rows:
        table.add_row(*row)
    # Wide enough for a log file too, where there is no terminal to ask.
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    console.print(table)


def write_json(path: Path, document: dict[str, object]) -> None:
    """Pretty-printed, keys as given. Raises OSError."""
    path.write_text(json.dumps(document, indent=2) + "\n")


def machine() -> dict[str, object]:
    """What a reader must know of the machine to compare figures."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {
        "processor": fields.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "sha_instructions": "sha_ni" in fields.get("flags", "").split(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
