"""`layercast-bench piece`: a small fan-out whose processes measure what each step of a piece's way costs them.

The steps are benchmarks.cluster.steps; the run, its report and its other flags are those of `fanout`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.fanout import command

if TYPE_CHECKING:
    import argparse

HELP = "a fan-out that tells what each step of a piece's way costs: grant, request, sendfile, hash, client (root)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of fanout, with a smaller run for a default."""
    command.add_arguments(parser)
    parser.set_defaults(nodes="10", size="16MiB", rate="20mbit", mode="scheduled", steps=True)


def run(arguments: argparse.Namespace) -> int:
    """As fanout, with a table of steps after the report."""
    return command.run(arguments)
