"""`layercast events`: what registries told that is not done with; the dead ones are tried again or dropped."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from peer.cli.contract import CommandError
from peer.cli.screen import console
from peer.cli.service_reader import SupernodeReader, add_supernode_arguments
from proto.config.settings import argument_type
from proto.config.values import parse_int

if TYPE_CHECKING:
    import argparse

    from rich.table import Table

PATH: Final = "/api/v1/events"
_DESCRIPTION: Final = """\
The events of registries that wait for a preheat, are worked on or are dead, which means that their job has failed for
good: mend what its error names, then have them --retry, or --drop them. The exit code is 1 while any is dead.
"""
# Of what is wrong with one: the line stays a line.
_ERROR_SHOWN: Final = 100


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("events", help="what registries told of pushes", description=_DESCRIPTION)
    change = parser.add_mutually_exclusive_group()
    for flag, done in (("--retry", "have another job made of"), ("--drop", "be done with")):
        change.add_argument(
            flag, nargs="*", type=argument_type(parse_int), metavar="NUMBER",
            help=f"{done} these dead events [default: all]",
        )  # fmt: skip
    change.add_argument("--scan", action="store_true", help="ask registries now which tags changed without an event")
    add_supernode_arguments(parser)
    parser.add_argument("--json", action="store_true", help=f"for programs: what {PATH} says")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    reader = SupernodeReader(arguments)
    try:
        changed = _change(reader, arguments)
        found = reader.json(PATH)
    finally:
        reader.close()
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        _print(reader.url, changed, found)
    return 1 if found["dead"] else 0


def _change(reader: SupernodeReader, arguments: argparse.Namespace) -> str:
    """What was done, as a line; empty for nothing."""
    if arguments.scan:
        reader.change("POST", f"{PATH}/scan", {})
        return "tags are looked at in a moment"
    for numbers, name, done in ((arguments.retry, "again", "wait again"), (arguments.drop, "drop", "are dropped")):
        if numbers is not None:
            count = reader.change("POST", f"{PATH}/{name}", {"numbers": numbers} if numbers else {})["changed"]
            if numbers and not count:
                raise CommandError(f"none of these is dead: {', '.join(map(str, numbers))}")
            return f"{count} events {done}"
    return ""


def _print(url: str, changed: str, found: dict[str, Any]) -> None:
    screen = console()
    if changed:
        screen.print(changed)
    screen.print(_table(url, found))
    scan = found["scan"]["last"]
    if scan is not None:
        screen.print(
            f"tags of {scan['repositories']} repositories were looked at {scan['ended']}: {scan['found']} changed"
        )
        for repository, problem in scan["problems"].items():
            screen.print(f"  {repository}: {problem}")


def _table(url: str, found: dict[str, Any]) -> Table:
    from rich.table import Table

    title = ", ".join(f"{found[state]} {state}" for state in ("waiting", "working", "dead"))
    table = Table(
        "event", "image", "state", "received", "job", "error", title=f"{title} at {url}", title_justify="left"
    )
    for event in found["events"]:
        job = "" if event["job"] is None else str(event["job"])
        error = event["error"][:_ERROR_SHOWN]
        table.add_row(str(event["number"]), event["image"], event["state"], event["received"], job, error)
    return table
