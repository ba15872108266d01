"""`layercast-bench`: one subcommand a benchmark. A benchmark is a module with HELP, add_arguments() and run()."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

import benchmarks.console
import benchmarks.dataplane.command
import benchmarks.events
import benchmarks.fanout.command
import benchmarks.fanout.image
import benchmarks.fanout.piece
import benchmarks.fanout.preheat
import benchmarks.joining
import benchmarks.lazy
import benchmarks.scheduler
import benchmarks.serving.command
import benchmarks.simulator.command
import benchmarks.simulator.fit_command
import benchmarks.startup
from proto.errors import LayercastError
from proto.runtime.output import written

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Benchmark(Protocol):
    """What a subcommand's module offers."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int:
        """The exit status. Raises LayercastError, shown as one line."""


BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "console": benchmarks.console,
    "dataplane": benchmarks.dataplane.command,
    "events": benchmarks.events,
    "fanout": benchmarks.fanout.command,
    "fit": benchmarks.simulator.fit_command,
    "image": benchmarks.fanout.image,
    "joining": benchmarks.joining,
    "lazy": benchmarks.lazy,
    "piece": benchmarks.fanout.piece,
    "preheat": benchmarks.fanout.preheat,
    "sim": benchmarks.simulator.command,
    "scheduler": benchmarks.scheduler,
    "serving": benchmarks.serving.command,
    "startup": benchmarks.startup,
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point."""
    return written(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    parser = Parser(prog="layercast-bench", description="Measure Layercast, and print the bounds.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="BENCHMARK")
    for name, benchmark in BENCHMARKS.items():
        benchmark.add_arguments(commands.add_parser(name, help=benchmark.HELP, description=benchmark.HELP))
    arguments = parser.parse_args(argv)
    try:
        return BENCHMARKS[arguments.command].run(arguments)
    except LayercastError as error:
        print(f"layercast-bench {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"layercast-bench {arguments.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
