"""`layercast keeps`: the images that nodes do not evict, and the end of one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from peer.cli import metrics_text
from peer.cli.contract import CommandError
from peer.cli.jobs import PATH
from peer.cli.screen import console
from peer.cli.service_reader import SupernodeReader, add_supernode_arguments
from proto.config.settings import argument_type
from proto.config.values import parse_int

if TYPE_CHECKING:
    import argparse

    from rich.table import Table

_DESCRIPTION: Final = """\
The images that nodes keep: `layercast preheat --keep` brought them. They are evicted neither for room nor by hand, and
nodes that come later have them, too. To keep what a tag names by now, preheat it again with --keep.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("keeps", help="images that nodes do not evict", description=_DESCRIPTION)
    parser.add_argument(
        "--drop", type=argument_type(parse_int), metavar="NUMBER",
        help="keep that one no more; it stays until a node needs room",
    )  # fmt: skip
    add_supernode_arguments(parser)
    parser.add_argument("--json", action="store_true", help=f"for programs: as {PATH} says it")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    reader = SupernodeReader(arguments)
    try:
        if arguments.drop is not None:
            # Of any other job it would be the end.
            if not reader.change("GET", f"{PATH}/{arguments.drop}")["keep"]:
                raise CommandError(f"job {arguments.drop} keeps nothing: see layercast keeps")
            reader.change("DELETE", f"{PATH}/{arguments.drop}")
        kept = [job for job in reader.json(PATH)["jobs"] if job["kept"]]
    finally:
        reader.close()
    if arguments.json:
        print(json.dumps({"jobs": kept}, indent=1))
        return 0
    console().print(_table(reader.url, kept))
    return 0


def _table(url: str, kept: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("number", "image", "platforms", "to", "size", "digest", title=f"{len(kept)} kept by nodes of {url}")
    for job in kept:
        platforms, size = " ".join(job["platforms"]) or "all", metrics_text.size(job["size_bytes"])
        table.add_row(str(job["number"]), job["image"], platforms, job["to"], size, job["digest"][:19])
    return table
