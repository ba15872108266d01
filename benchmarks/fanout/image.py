"""`layercast-bench image`: an image of many small layers to cold nodes at once, on loopback, beside direct pulls.

Here links cost nothing, so the figures are what a layer costs by itself. The run and its other flags are those of
`fanout`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.fanout import command

if TYPE_CHECKING:
    import argparse

HELP = "an image of 60 layers of 1 KB to 4 MB to 8 nodes on loopback, beside native pulls: what a layer costs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of fanout; the defaults are of this run."""
    command.add_arguments(parser)
    parser.set_defaults(nodes="8", layers="60", sizes="1KB-4MB", rate="10gbit", no_netns=True)


def run(arguments: argparse.Namespace) -> int:
    """As fanout."""
    return command.run(arguments)
