"""`layercast jobs`: preheats that go on or are over, one of them with its nodes, and the end of one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from peer.cli import metrics_text
from peer.cli.contract import CommandError
from peer.cli.screen import console
from peer.cli.service_reader import SupernodeReader, add_supernode_arguments
from proto.config.settings import argument_type
from proto.config.values import parse_int

if TYPE_CHECKING:
    import argparse

    from rich.table import Table

PATH: Final = "/api/v1/jobs"
_DESCRIPTION: Final = """\
The preheats that are not over and the newest that are; with NUMBER one of them and its nodes. The exit code is 1 where
that one has failed or was cancelled.
"""
# Of what is wrong with one: the line stays a line.
_ERROR_SHOWN: Final = 80


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("jobs", help="what became of preheats", description=_DESCRIPTION)
    parser.add_argument("number", nargs="?", type=argument_type(parse_int), metavar="NUMBER", help="this one alone")
    parser.add_argument("--cancel", action="store_true", help="end it; what nodes hold of it by then stays")
    parser.add_argument("--retry", action="store_true", help="once more, as a new job without its --after and --by")
    add_supernode_arguments(parser)
    parser.add_argument("--json", action="store_true", help=f"for programs: what {PATH} says")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    if (arguments.cancel or arguments.retry) and arguments.number is None:
        raise CommandError("--cancel, --retry: name the job by its number", 2)
    if arguments.cancel and arguments.retry:
        raise CommandError("--cancel, --retry: one of them", 2)
    reader = SupernodeReader(arguments)
    try:
        if arguments.number is None:
            listed = reader.json(PATH)
            _print(reader.url, listed, listed["jobs"], as_json=arguments.json)
            return 0
        path = f"{PATH}/{arguments.number}"
        job = reader.change("DELETE" if arguments.cancel else "GET", path)
        if arguments.retry:
            job = reader.change("POST", PATH, {key: job[key] for key in ("image", "platforms", "to", "keep")})
    finally:
        reader.close()
    _print(reader.url, job, [job], as_json=arguments.json)
    return 0 if arguments.cancel or arguments.retry or not has_failed(job) else 1


def has_failed(job: dict[str, Any]) -> bool:
    """It is over, and not all nodes have it."""
    return job["state"] in ("failed", "cancelled")


def _print(url: str, document: dict[str, Any], jobs: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document, indent=1))
        return
    screen = console()
    screen.print(_table(url, jobs))
    for job in jobs:
        if job.get("nodes"):
            screen.print(_nodes(job))


def _table(url: str, jobs: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(
        "job", "image", "to", "state", "nodes", "size", "attempts", "begun", "error",
        title=f"{len(jobs)} jobs at {url}", title_justify="left",
    )  # fmt: skip
    for job in jobs:
        table.add_row(
            str(job["number"]), job["image"], job["to"], job["state"], f"{job['nodes_done']}/{job['nodes_count']}",
            metrics_text.size(job["size_bytes"]), str(job["attempts"]), job["created"], job["error"][:_ERROR_SHOWN],
        )  # fmt: skip
    return table


def _nodes(job: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table("node", "state", "held", "error", title=f"nodes of job {job['number']}", title_justify="left")
    for node in job["nodes"]:
        table.add_row(node["node"][:16], node["state"], metrics_text.size(node["held_bytes"]), node["error"])
    return table
