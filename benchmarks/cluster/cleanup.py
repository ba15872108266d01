"""What a run makes outside itself, by name, and the removal of what a run that is dead left there.

Names carry the process id of their run and when that process began: a run is dead when no process has both. So a start
removes what was left by `kill -9`, and never touches a run that is alive, be it with a process id used again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.namespaces import NETNS_DIR, remove_namespaces

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME: Final = re.compile(r"lcrun-(\d+)-(\d+)-")
_SYSCTLS_FILE: Final = "sysctls.json"


@dataclass(frozen=True, slots=True)
class RunName:
    """The prefix of all that one run makes."""

    pid: int
    began_ticks: int

    @classmethod
    def own(cls) -> RunName:
        """This process's."""
        return cls(os.getpid(), _began_ticks(os.getpid()) or 0)

    def __str__(self) -> str:
        return f"lcrun-{self.pid}-{self.began_ticks}-"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return _began_ticks(self.pid) == self.began_ticks


def run_of(name: str) -> RunName | None:
    """Whose a namespace or folder of this name is; None: of no run."""
    match = _NAME.match(name)
    return None if match is None else RunName(int(match[1]), int(match[2]))


def dead(names: Iterable[str]) -> list[str]:
    """Those of the names that belong to runs which are no more, sorted."""
    runs = {name: run_of(name) for name in names}
    return sorted(name for name, run in runs.items() if run is not None and not run.alive)


def folders_root() -> Path:
    """Where each run has its small files."""
    return Path(os.environ.get("TMPDIR", "/tmp"))


def clean_up(roots: Iterable[Path]) -> None:
    """Remove namespaces and folders (below `roots`) of dead runs, and undo what they changed of this machine."""
    if NETNS_DIR.is_dir():
        remove_namespaces(dead(path.name for path in NETNS_DIR.iterdir()))
    for root in dict.fromkeys(roots):
        for name in dead(os.listdir(root)):
            restore_sysctls(root / name)
            shutil.rmtree(root / name, ignore_errors=True)


def raise_sysctls(folder: Path, wanted: dict[str, int]) -> None:
    """Raise these settings (paths below /proc/sys) where they are lower; the old ones are noted in `folder`.

    A container's network does not show those that are the whole machine's: they stay as they are.
    """
    before = {key: int(_sysctl(key).read_text()) for key in wanted if _sysctl(key).exists()}
    raised = {key: value for key, value in before.items() if value < wanted[key]}
    if raised:
        (folder / _SYSCTLS_FILE).write_text(json.dumps(raised))
        for key in raised:
            _sysctl(key).write_text(str(wanted[key]))


def restore_sysctls(folder: Path) -> None:
    """Undo `raise_sysctls`. What another run raised meanwhile is its own to restore."""
    try:
        before = json.loads((folder / _SYSCTLS_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return
    for key, value in before.items():
        _sysctl(key).write_text(str(value))
    (folder / _SYSCTLS_FILE).unlink()


def _sysctl(key: str) -> Path:
    return Path("/proc/sys") / key


def _began_ticks(pid: int) -> int | None:
    """Clock ticks from the machine's start to the process's; None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19])
