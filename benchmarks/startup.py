"""What a start costs: user and system CPU until a program has printed its version, or its ready line.

One process at a time, the kinds in turn, so that what else the machine does slows all of them alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Final

from proto.errors import LayercastError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

HELP: Final = "CPU that the start of each program takes, beside that of a bare interpreter"

_SERVICE: Final = ("--listen", "127.0.0.1:0", "--upload-listen", "127.0.0.1:0", "--store-free-floor", "0")
# Of each kind the words after the interpreter, and whether it stays and says that it is ready.
_KINDS: Final[Mapping[str, tuple[tuple[str, ...], bool]]] = {
    "python -c pass": (("-c", "pass"), False),
    "layercast-peer --version": (("-m", "peer", "--version"), False),
    "layercast-supernode --version": (("-m", "supernode", "--version"), False),
    "layercast-peer, ready": (("-m", "peer", *_SERVICE), True),
    "layercast-supernode, ready": (("-m", "supernode", *_SERVICE), True),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=11, metavar="N", help="of each kind [default: 11]")


def run(arguments: argparse.Namespace) -> int:
    """Prints median and least of each kind."""
    found: dict[str, list[float]] = {name: [] for name in _KINDS}
    for _ in range(max(1, arguments.runs)):
        for name, (words, stays) in _KINDS.items():
            found[name].append(_cpu_s(words, stays=stays))
    print(f"{'CPU, seconds':32}{'median':>8}{'least':>8}")
    for name, times_s in found.items():
        print(f"{name:32}{statistics.median(times_s):8.3f}{min(times_s):8.3f}")
    return 0


def _cpu_s(words: Sequence[str], *, stays: bool) -> float:
    """User and system time of all its threads. Raises LayercastError."""
    with tempfile.TemporaryDirectory(prefix="layercast-startup-") as folder:
        argv = [sys.executable, *words, *(("--data-dir", f"{folder}/data") if stays else ())]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline() if stays else process.stdout.read()
            # Its own CPU clock: see clock_getcpuclockid(3). A process that ended keeps it until it is waited for.
            cpu_s = time.clock_gettime(~process.pid << 3 | 2)
            process.terminate()
            if stays and not line.startswith("ready "):
                raise LayercastError(f"{' '.join(words)} is not ready: {process.stderr.read().strip()}")
            process.stdout.read()
            process.stderr.read()
    return cpu_s
