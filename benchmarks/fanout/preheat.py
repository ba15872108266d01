"""`layercast-bench preheat`: a pull by some of the nodes, alone and beside a preheat of all of them, on the same links.

Both in turn, each with new programs and empty stores. The preheat has begun to move when the clients ask, and still
goes on when the last of them is done. The runs are those of `fanout`.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from benchmarks.cluster.namespaces import inside
from benchmarks.cluster.processes import wait_until
from benchmarks.fanout import command
from benchmarks.fanout.modes import give, run_mode
from benchmarks.fanout.plan import plan
from benchmarks.fanout.pulling import REPOSITORY
from benchmarks.flags import checked, count
from benchmarks.report import console
from proto.config.values import parse_size
from proto.errors import LocalError
from proto.pieces import MIB

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from benchmarks.cluster.services import Supernode
    from benchmarks.fanout.modes import Stage

HELP: Final = "a pull by half of the nodes, alone and beside a preheat of all of them, in turn (root)"
# Of its time alone a pull may take.
TIMES_MAX: Final = 1.1
_TIMEOUT_S: Final = 10.0
# Of the preheated image the seed has sent so much when the clients ask.
_BEGUN_BYTES: Final = MIB


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of fanout, with a smaller run for a default, and its own."""
    command.add_arguments(parser)
    parser.add_argument("--preheat", default="64MiB", metavar="SIZE", help="of the image that is preheated [64MiB]")
    parser.add_argument("--bystanders", default="4", metavar="N", help="nodes without a client [4]")
    parser.add_argument("--rounds", default="3", metavar="N", help="of both, in turn [3]")
    parser.set_defaults(nodes="8", size="16MiB", rate="20mbit", mode="scheduled")


def run(arguments: argparse.Namespace) -> int:
    """Prints the times; 1 where the median of their ratios is above TIMES_MAX. Raises LocalError."""
    asked = plan(arguments)
    if not asked.shaped:
        raise LocalError("preheat: needs network namespaces; run it as root, without --no-netns")
    bystanders = count("--bystanders", arguments.bystanders, 4, 1, asked.scenario.nodes - 1)
    preheat_bytes = checked("--preheat", arguments.preheat, parse_size, 1, "at least one byte")
    rounds = count("--rounds", arguments.rounds, 3, 1)
    asked = replace(asked, scenario=replace(asked.scenario, bystanders=bystanders, preheat_bytes=preheat_bytes))
    ratios = command.on_stage(asked, lambda stage: [_round(stage, number) for number in range(1, rounds + 1)])
    median = statistics.median(ratios)
    print(f"beside a preheat a pull takes {median:.3f} of its time alone, in the median (wanted: {TIMES_MAX:g})")
    return 0 if median <= TIMES_MAX else 1


def _round(stage: Stage, number: int) -> float:
    """The time beside a preheat over that alone. The preheated image is another one in each round."""
    scenario = stage.scenario
    image = give(stage.origin, stage.folder / f"preheat-{number}", [scenario.preheat_bytes], scenario.seed + number)
    name = f"{stage.origin.address}/{REPOSITORY}@{image.manifest.digest}"
    alone_s = _last_s(stage, f"alone-{number}")
    beside_s = _last_s(replace(stage, meanwhile=functools.partial(_preheating, name)), f"beside-{number}")
    print(
        f"round {number}: alone {alone_s:.2f} s, beside a preheat {beside_s:.2f} s: {beside_s / alone_s:.3f}",
        flush=True,
    )
    return beside_s / alone_s


def _last_s(stage: Stage, name: str) -> float:
    """Until the last client is done, with programs of its own. Raises LocalError where something was wrong."""
    folder, stores = stage.folder / name, stage.stores / name
    folder.mkdir()
    stores.mkdir()
    outcome = run_mode(replace(stage, folder=folder, stores=stores), "scheduled")
    if outcome.problems:
        raise LocalError(f"{name}: {outcome.problems[0]}")
    return max(one.completed_s for one in outcome.run.nodes if one.completed_s is not None)


@contextlib.contextmanager
def _preheating(image: str, supernode: Supernode) -> Iterator[None]:
    """While it goes on, from when some of it is at the nodes. Raises LocalError where it ended meanwhile."""
    console.print("waiting for the first pieces of the preheat")
    job = _ask(supernode, "POST", "", json.dumps({"image": image}))["number"]
    wait_until(
        lambda: supernode.metrics().value("layercast_uploaded_bytes_total") >= _BEGUN_BYTES, "a preheat that moves"
    )
    yield
    state = _ask(supernode, "GET", f"/{job}")["state"]
    if state != "running":
        raise LocalError(f"the preheat was {state} before the pulls: give more of it by --preheat")


def _ask(supernode: Supernode, method: str, path: str, body: str | None = None) -> dict[str, Any]:
    """/api/v1/jobs, from the supernode's own machine. Raises LocalError."""

    def ask() -> dict[str, Any]:
        with contextlib.closing(http.client.HTTPConnection(supernode.status_address, timeout=_TIMEOUT_S)) as connection:
            connection.request(method, f"/api/v1/jobs{path}", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
        if answer.status >= 300:
            raise LocalError(f"{method} /api/v1/jobs{path}: {answer.status} {said[:200]!r}")
        document: dict[str, Any] = json.loads(said)
        return document

    return inside(supernode.netns, ask)
