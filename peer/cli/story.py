"""`layercast story`: what happened to one piece of a blob that is being shared, and why. Reads only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from peer.cli.screen import console
from peer.cli.service_reader import SupernodeReader, add_supernode_arguments
from proto.config.settings import argument_type
from proto.config.values import parse_int, within

if TYPE_CHECKING:
    import argparse

_DESCRIPTION: Final = """\
What happened to one piece of a live swarm, oldest first: who got it from whom, why a lease ended. The supernode
remembers the last happenings of each swarm; `layercast-bench sim --replay FILE --story SWARM:PIECE` tells all of them
from an event log. A blob of one piece has piece 0.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("story", help="what happened to one piece", description=_DESCRIPTION)
    parser.add_argument("digest", metavar="DIGEST", help="a blob's, or its first six digits or more")
    parser.add_argument(
        "piece", type=argument_type(within(parse_int, 0, 1 << 30, "at least 0")), nargs="?", default=0, metavar="PIECE",
        help="counted from 0 [default: 0]",
    )  # fmt: skip
    add_supernode_arguments(parser)
    parser.add_argument("--json", action="store_true", help="for programs: what /v1/story says")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns 0. Raises CommandError, also where there is no such swarm or piece."""
    reader = SupernodeReader(arguments)
    try:
        found = reader.json(f"/v1/story?{urlencode({'digest': arguments.digest, 'piece': arguments.piece})}")
    finally:
        reader.close()
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        _print(found)
    return 0


def _print(found: dict[str, Any]) -> None:
    from rich.table import Table

    held = "".join(f", held by {count}" for count in found["held_by"])
    title = f"piece {found['piece']} of {found['pieces']} of {found['digest']} (swarm {found['swarm']}){held}"
    table = Table("s ago", "what", title=title, title_justify="left")
    for each in found["happenings"]:
        table.add_row(f"{each['ago_s']:.3f}", each["text"])
    console().print(table)
    if found["nodes"]:
        names = ", ".join(f"{number} is {name}" for number, name in found["nodes"].items())
        console().print(f"peer 0 is the supernode's own store; {names}")
