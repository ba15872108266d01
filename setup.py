"""Compiles the hot modules with mypyc where LAYERCAST_COMPILE=1 says so; all else about the build is in pyproject.toml.

By default nothing is compiled, and never in place: an old compiled module would be imported before its edited source.
What is compiled are the same sources, which decide the same; the modules left out have a reason beside them.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from setuptools import setup

if TYPE_CHECKING:
    from setuptools import Extension

_FOLDERS = ("supernode/scheduler", "supernode/scheduler/rules", "peer/downloader", "benchmarks/simulator")
_FILES = ("proto/calendar_queue.py", "proto/pieces.py", "benchmarks/scheduler.py", "benchmarks/scheduler_swarm.py")
_INTERPRETED = (
    # The event log reads its fields' types, which compiled classes do not tell.
    "supernode/scheduler/contract.py",
    # Exceptions: compiled classes cannot inherit from those of Python.
    "benchmarks/simulator/errors.py",
    # Its observer inherits from a class of the control, which is not compiled.
    "benchmarks/simulator/supernode.py",
    # For tests, and for what is done once a run.
    "supernode/scheduler/invariants.py",
    "peer/downloader/contract.py",
    "peer/downloader/invariants.py",
    "benchmarks/simulator/command.py",
    "benchmarks/simulator/fit.py",
    "benchmarks/simulator/fit_command.py",
    "benchmarks/simulator/flags.py",
    "benchmarks/simulator/limits.py",
    "benchmarks/simulator/profile.py",
    "benchmarks/simulator/replay.py",
    "benchmarks/simulator/replay_command.py",
    "benchmarks/simulator/report.py",
    "benchmarks/simulator/scenarios.py",
    "benchmarks/simulator/suite.py",
)
# Types are checked by `make lint`, beside the dependencies; a build by itself need not have those.
_CHECKS = ("--config-file=", "--ignore-missing-imports", "--follow-imports=silent")
_ROOT = Path(__file__).parent


def sources() -> list[str]:
    """What is compiled, together, so that calls between these modules are calls of C functions."""
    found = [path for folder in _FOLDERS for path in sorted((_ROOT / folder).glob("*.py")) if path.stem != "__init__"]
    names = [path.relative_to(_ROOT).as_posix() for path in found]
    return [name for name in names if name not in _INTERPRETED] + list(_FILES)


def extensions() -> list[Extension]:
    """The compiled modules. Exits with one line where mypyc or a C compiler is missing."""
    if "editable_wheel" in sys.argv or "develop" in sys.argv:
        sys.exit("LAYERCAST_COMPILE=1: an editable install is never compiled; install without --editable")
    try:
        from mypyc.build import mypycify
    except ImportError:
        sys.exit("LAYERCAST_COMPILE=1: mypyc is missing; install mypy, or unset it for an interpreted scheduler")
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        sys.exit(f"LAYERCAST_COMPILE=1: the C compiler {compiler} is missing; install it, or unset it")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        sys.exit("LAYERCAST_COMPILE=1: Python.h is missing; install this Python's development package, or unset it")
    return mypycify([*_CHECKS, *sources()], opt_level="3", debug_level="0")


_WANTED = os.environ.get("LAYERCAST_COMPILE") == "1"
# Asked for the metadata alone, nothing is built.
_BUILDS = not {"egg_info", "dist_info", "sdist"} & set(sys.argv)

setup(
    ext_modules=extensions() if _WANTED and _BUILDS else [],
    setup_requires=["mypy>=1.17,<3"] if _WANTED and not _BUILDS else [],
)
