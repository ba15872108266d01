"""`layercast preheat`: have images at nodes before clients ask for them, and watch how far each node is."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from peer.cli import metrics_text
from peer.cli.jobs import PATH, has_failed
from peer.cli.names import image_named
from peer.cli.service_reader import SupernodeReader, add_supernode_arguments
from proto.config.settings import argument_type
from proto.config.values import parse_duration
from proto.oci.images import parse_platform

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator

    from rich.progress import Progress, ProgressColumn, TaskID

_DESCRIPTION: Final = """\
Have each IMAGE brought to nodes, so that pulls take it from there. The supernode does that by itself, across restarts,
as `layercast jobs` tells; where clients pull meanwhile, they come first. Private images need the operator's login at
the supernode. The exit code is 0 once the jobs are saved; with --watch once all nodes have all of it, and 1 where a job
has failed. Ctrl-C ends watching, and not the jobs.
"""
_LOOK_S: Final = 1.0
# Bars on a screen; the nodes that are the furthest behind.
_BARS_MAX: Final = 30


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("preheat", help="have images at nodes before clients ask", description=_DESCRIPTION)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="for example quay.io/org/app:1.0")
    parser.add_argument(
        "--platform", action="append", default=[], type=argument_type(parse_platform), metavar="OS/ARCH",
        help="of an image for several; may be repeated [default: all of them]",
    )  # fmt: skip
    parser.add_argument(
        "--to", default="all", metavar="NODES",
        help="all, zone=REGION/ZONE/RACK or its first parts, node=NAME, or how many [default: all]",
    )  # fmt: skip
    parser.add_argument(
        "--after", type=argument_type(parse_time), metavar="TIME",
        help="begin then, and not before: a time as for --by; with it a window, for example of the night",
    )  # fmt: skip
    parser.add_argument(
        "--by", type=argument_type(parse_time), metavar="TIME",
        help="what is not done by then has failed: 2h from now, or 2026-03-01T06:00 (local time, or with its zone)",
    )  # fmt: skip
    parser.add_argument(
        "--keep", action="store_true",
        help="have nodes never evict it, and those that come later have it, too, until layercast keeps --drop",
    )  # fmt: skip
    parser.add_argument("--watch", action="store_true", help="wait until the jobs are over, with a bar for each node")
    add_supernode_arguments(parser)
    parser.add_argument("--json", action="store_true", help="for programs: a line for each job, in the end")
    parser.set_defaults(run=run)


def parse_time(text: str) -> datetime:
    """A time to come. Raises ValueError."""
    try:
        at = datetime.fromtimestamp(time.time() + parse_duration(text), UTC)
    except ValueError:
        try:
            at = datetime.fromisoformat(text).astimezone()
        except ValueError:
            raise ValueError("expected a time such as 2h or 2026-03-01T06:00") from None
    if at.timestamp() <= time.time():
        raise ValueError("that time is over")
    return at


def run(arguments: argparse.Namespace) -> int:
    """Raises CommandError; what was submitted before stays."""
    images = [str(image_named(text)) for text in arguments.images]
    after, by = (None if at is None else at.isoformat() for at in (arguments.after, arguments.by))
    platforms = [str(platform) for platform in arguments.platform]
    reader = SupernodeReader(arguments)
    try:
        jobs = []
        for image in images:
            spec = {"image": image, "platforms": platforms, "to": arguments.to, "keep": arguments.keep}
            spec |= {"after": after, "by": by}
            jobs.append(reader.change("POST", PATH, spec))
            if not arguments.json:
                print(f"job {jobs[-1]['number']}: {image} to {jobs[-1]['to']}", flush=True)
        if arguments.watch:
            looks = watch(reader, [job["number"] for job in jobs])
            jobs = _show(looks, quiet=arguments.json)
    except KeyboardInterrupt:
        print("layercast preheat: the jobs go on, see layercast jobs", file=sys.stderr)
        return 130
    finally:
        reader.close()
    for job in jobs:
        if arguments.json:
            print(json.dumps(job))
        elif arguments.watch:
            done = f"{job['nodes_done']} of {job['nodes_count']} nodes have it"
            print(f"job {job['number']}: {job['state']}, {done}{': ' * bool(job['error'])}{job['error']}")
    return 1 if any(map(has_failed, jobs)) else 0


def watch(
    reader: SupernodeReader, numbers: Iterable[int], sleep: Callable[[float], None] = time.sleep
) -> Iterator[list[dict[str, Any]]]:
    """The jobs with their nodes, again and again until all are over. Raises CommandError."""
    wanted = list(numbers)
    while True:
        jobs = [reader.change("GET", f"{PATH}/{number}") for number in wanted]
        yield jobs
        if all(job["ended"] is not None for job in jobs):
            return
        sleep(_LOOK_S)


def _show(looks: Iterator[list[dict[str, Any]]], *, quiet: bool) -> list[dict[str, Any]]:
    """The last of them. On a terminal with bars, else with a line where something changed."""
    from rich.console import Console

    console = Console(stderr=True)
    jobs: list[dict[str, Any]] = []
    if quiet or not console.is_terminal:
        said: dict[int, str] = {}
        for jobs in looks:
            for job in jobs:
                line = f"job {job['number']}: {job['state']}, {job['nodes_done']} of {job['nodes_count']} nodes"
                if not quiet and said.get(job["number"]) != line:
                    said[job["number"]] = line
                    print(line, file=sys.stderr, flush=True)
        return jobs
    from rich.progress import Progress

    with Progress(*_columns(), console=console, transient=True) as progress:
        bars: dict[tuple[int, str], TaskID] = {}
        for jobs in looks:
            _draw(progress, bars, jobs)
    return jobs


def _columns() -> tuple[ProgressColumn, ...]:
    """A bar's. What is said beside it has a registry's words in it, whose brackets are no markup."""
    from rich.progress import BarColumn, TextColumn

    said, amount = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[amount]}")
    return said, BarColumn(), amount


def _draw(progress: Progress, bars: dict[tuple[int, str], TaskID], jobs: list[dict[str, Any]]) -> None:
    shown = {(job["number"], ""): (job_line(job), job["nodes_done"], job["nodes_count"]) for job in jobs}
    behind = sorted(
        ((node["held_bytes"], job, node) for job in jobs for node in job["nodes"] if node["state"] != "done"),
        key=lambda one: (one[0], one[2]["node"]),
    )
    for held_bytes, job, node in behind[:_BARS_MAX]:
        text = f"  {node['node'][:8]} {node['error'][:40]}".rstrip()
        shown[job["number"], node["node"]] = (text, held_bytes, job["size_bytes"])
    for key in [key for key in bars if key not in shown]:
        progress.remove_task(bars.pop(key))
    for key, (text, completed, total) in shown.items():
        if key not in bars:
            bars[key] = progress.add_task(text, amount="")
        amount = f"{metrics_text.size(completed)} of {metrics_text.size(total)}" if key[1] else ""
        progress.update(bars[key], description=text, completed=completed, total=total or None, amount=amount)


def job_line(job: dict[str, Any]) -> str:
    """How one stands."""
    return f"job {job['number']} {job['state']}: {job['nodes_done']} of {job['nodes_count']} nodes {job['error'][:60]}"
