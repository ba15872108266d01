"""`layercast nodes`: the nodes that are connected to a supernode, for people or as JSON. Reads only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from peer.cli.screen import console
from peer.cli.service_reader import SupernodeReader, add_supernode_arguments

if TYPE_CHECKING:
    import argparse

_DESCRIPTION: Final = "The nodes that are connected now: where they are, what they run, want and hold."
_COLUMNS: Final = ("node", "peer", "address", "zone", "agent", "blobs_wanted", "blobs_announced", "trouble")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("nodes", help="the nodes that are connected", description=_DESCRIPTION)
    add_supernode_arguments(parser)
    parser.add_argument("--json", action="store_true", help="for programs: what /v1/nodes says")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns 0. Raises CommandError."""
    reader = SupernodeReader(arguments)
    try:
        nodes = reader.json("/v1/nodes")["nodes"]
    finally:
        reader.close()
    if arguments.json:
        print(json.dumps({"nodes": nodes}, indent=1))
        return 0
    from rich.table import Table

    table = Table(*_COLUMNS, title=f"{len(nodes)} nodes at {reader.url}", title_justify="left")
    for node in nodes:
        # A supernode of an earlier release tells of quarantine alone.
        node.setdefault("trouble", node.get("quarantine"))
        table.add_row(*("" if node.get(column) is None else str(node[column]) for column in _COLUMNS))
    console().print(table)
    return 0
