"""`layercast-bench fanout`: one image to many real nodes at once, mode by mode, beside the physical limits.

Real supernode, peers, docker-registry and clients, each in a network namespace of its own behind shaped links (root),
or on loopback with the product's own rate limits. Nothing is left behind, whatever ends it.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmarks.bounds import bounds
from benchmarks.cluster.cleanup import RunName, clean_up, folders_root
from benchmarks.cluster.origin import CountedOrigin
from benchmarks.cluster.processes import ProcessError
from benchmarks.cluster.programs import ProgramMissing, program
from benchmarks.fanout.calibration import Goodput, goodput, payload_part
from benchmarks.fanout.disk_space import DiskSpace, find_disk_space
from benchmarks.fanout.modes import Outcome, Stage, give, run_mode
from benchmarks.fanout.network import Network
from benchmarks.fanout.plan import Plan, add_arguments, plan
from benchmarks.fanout.site import Loopback
from benchmarks.fanout.step_table import print_steps
from benchmarks.fanout.usage import PREFERRED_NICE
from benchmarks.report import Report, console
from proto.errors import LocalError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from benchmarks.fanout.site import Site

__all__ = ["HELP", "add_arguments", "run"]

HELP = "fan-out of one image to N real nodes on shaped links, beside the physical limits (root; else on loopback)"

T = TypeVar("T")

_PROGRAMS = ("ip", "tc", "nsenter")
# Where the next run finds what a killed one changed, whatever its TMPDIR.
_STATE = Path("/run")


def run(arguments: argparse.Namespace) -> int:
    """Run every mode; 1 if a node failed, a byte left the origin twice, or --max-x-piece was exceeded."""
    asked = plan(arguments)
    return _publish(*on_stage(asked, lambda stage: (stage, [run_mode(stage, mode) for mode in asked.modes])))


def on_stage(asked: Plan, work: Callable[[Stage], T]) -> T:
    """What `work` makes of all that a run needs, of which nothing is left. Raises LocalError."""
    _check_programs(asked)
    with _interruptible(), contextlib.ExitStack() as stack:
        try:
            return work(_set_up(asked, stack))
        except ProcessError as error:
            raise LocalError(str(error).strip().replace("\n", " | ")) from None
        finally:
            _close_undisturbed(stack)


def _check_programs(asked: Plan) -> None:
    needed = ("docker-registry", "setpriv", *(_PROGRAMS if asked.shaped else ()))
    try:
        for name in needed:
            program(name)
    except ProgramMissing as error:
        raise LocalError(str(error)) from None


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _close_undisturbed(stack: contextlib.ExitStack) -> None:
    """Give everything back; a second Ctrl-C does not leave half of it."""
    if threading.current_thread() is not threading.main_thread():
        stack.close()
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        stack.close()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _set_up(asked: Plan, stack: contextlib.ExitStack) -> Stage:
    """Everything between the flags and the first mode; what it makes is on the stack."""
    scenario = asked.scenario
    root = folders_root()
    space = find_disk_space(scenario.nodes, scenario.size_bytes, root, asked.store_dir)
    clean_up([root, Path("/dev/shm"), space.folder, *([_STATE] if asked.shaped else [])])
    folder = _folder(root, stack)
    if asked.logs_dir is not None:
        stack.callback(_keep_logs, folder, asked.logs_dir)
    stores = _folder(space.folder, stack)
    site: Site = Loopback(scenario.nodes)
    if asked.shaped:
        with console.status(f"making {scenario.nodes + 2} namespaces"):
            network = Network(scenario, asked.control, asked.frame_bytes, _folder(_STATE, stack))
            site = stack.enter_context(network)
    part = _calibrate(asked, site)
    limits = bounds(scenario.pulls_alone, part.measured)
    origin_rate = None if asked.shaped else scenario.origin_bytes_s
    with console.status("filling the origin"):
        host, netns = site.origin.host, site.origin.netns
        origin = stack.enter_context(CountedOrigin(folder, host=host, netns=netns, bytes_per_s=origin_rate))
        image = give(origin, folder / "image", scenario.blobs, scenario.seed)
    return Stage(asked, limits, site, origin, image, folder, stores, _links(asked, part, space))


def _folder(root: Path, stack: contextlib.ExitStack) -> Path:
    """A folder of this run below `root`, removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix=str(RunName.own()), dir=root))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _keep_logs(folder: Path, target: Path) -> None:
    for log in sorted(folder.rglob("*.log")):
        kept = target / log.relative_to(folder)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, kept)


def _calibrate(asked: Plan, site: Site) -> Goodput:
    """One plain flow to the first node, if it is to be measured. On loopback rates are of payload itself."""
    if not asked.shaped:
        return Goodput(1.0, 1.0)
    if not asked.calibrated:
        return Goodput(payload_part(asked.frame_bytes), payload_part(asked.frame_bytes))
    scenario = asked.scenario
    rate = min(asked.node_rate_bytes_s, scenario.origin_bytes_s)
    with console.status("measuring one plain TCP flow"):
        found = goodput(site.origin, site.nodes[0], rate, asked.frame_bytes)
    if found.doubtful:
        console.print(
            f"one TCP flow had {found.measured:.3f} of its link, where frames allow {found.expected:.3f}: "
            "this machine is too busy, or does not shape as it should",
            style="yellow",
        )
    return found


def _links(asked: Plan, part: Goodput, space: DiskSpace) -> dict[str, object]:
    """What the report says of the links beyond rates."""
    if not asked.shaped:
        return {"shaped": "by the product's own rate limits, on loopback", "stores": space.remark}
    return {
        "shaped": "by tc tbf, each node in a network namespace",
        "frame_bytes": asked.frame_bytes,
        "goodput_part": round(part.measured, 4),
        "goodput_part_expected": round(part.expected, 4),
        "control": asked.control,
        "supernode_nice": PREFERRED_NICE,
        "stores": space.remark,
    }


def _publish(stage: Stage, outcomes: list[Outcome]) -> int:
    """Show and keep the figures; the exit status."""
    asked = stage.plan
    runs = [outcome.run for outcome in outcomes]
    problems = [f"{one.run.mode}: {problem}" for one in outcomes for problem in one.problems]
    report = Report(asked.scenario, stage.limits, runs, "fan-out over real processes", stage.links)
    problems += exceeded(asked.max_x_piece, report)
    steps = {one.run.mode: [asdict(row) for row in one.steps] for one in outcomes if one.steps}
    asked.outputs.publish(replace(report, more={"problems": problems, **({"steps": steps} if steps else {})}))
    for one in outcomes:
        if one.steps:
            print_steps(one.steps)
    for problem in problems:
        console.print(f"WRONG: {problem}", style="red", markup=False)
    return 1 if problems else 0


def exceeded(limit: float | None, report: Report) -> list[str]:
    """A line if the scheduled mode took more than `limit` times the piece bound."""
    scheduled = report.of("scheduled")
    if limit is None or scheduled is None or scheduled.x_piece is None or scheduled.x_piece <= limit:
        return []
    return [f"scheduled: {scheduled.x_piece:.3f} times the piece bound, at most {limit:g}"]
