"""What one fan-out is asked to be: the Scenario and how to run it. Reads flags; starts nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from benchmarks import flags
from benchmarks.fanout.network import FRAME_MAX_BYTES, FRAME_MIN_BYTES, frame_bytes_at
from benchmarks.fanout.trouble import FORM, Trouble
from benchmarks.flags import checked, choice, count, number
from benchmarks.report import Outputs
from benchmarks.results import Mode
from benchmarks.scenario import Control, Scenario
from proto.config.values import parse_size
from proto.errors import ConfigError, LocalError

if TYPE_CHECKING:
    import argparse

# Addresses and neighbour tables are laid out for so many; two cores are busy long before.
NODES_MAX: Final = 1000
RATE_MIN_BYTES_S: Final = 12_500


@dataclass(frozen=True, slots=True)
class Plan:
    """A run of every mode. `scenario` has nominal rates; see the flags for the others."""

    scenario: Scenario
    modes: tuple[Mode, ...]
    control: Control
    frame_bytes: int
    shaped: bool
    calibrated: bool
    native_limit_s: float
    max_x_piece: float | None
    trouble: Trouble | None
    store_dir: Path | None
    outputs: Outputs
    logs_dir: Path | None
    event_log: Path | None
    # Whether every process measures what the steps of a piece cost it.
    steps: bool = False

    @property
    def node_rate_bytes_s(self) -> float:
        """Of every node's link, each way."""
        return self.scenario.classes[0].up_bytes_s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; values are checked in `plan`, which says what would be right."""
    add = parser.add_argument
    add("--nodes", default="20", metavar="N", help="real nodes, one client each [20]")
    add("--size", default="8MiB", metavar="SIZE", help="of the image, all layers together [8MiB]")
    add("--rate", default="10mbit", metavar="RATE", help="of every node's link, each way [10mbit]")
    add("--mode", default="native,scheduled", metavar="M,M", help="native, torrent, scheduled [native,scheduled]")
    flags.add_scenario_arguments(parser)
    add("--control", default="own", metavar="C", help="control traffic on a link of its own, or shared [own]")
    add("--frames", metavar="BYTES", help="MTU of every link, 1500 to 9000 [what it sends in 4 ms]")
    add("--seed", default="1", metavar="S", help="of the random content and arrivals [1]")
    add("--native-limit", default="5min", metavar="T", help="above, native pulls a part of the size [5min]")
    add("--no-netns", action="store_true", help="on loopback with the product's own rate limits, as without root")
    add("--no-calibration", action="store_true", help="bounds by the frames' payload, not by a flow measured for 5 s")
    add("--store-dir", type=Path, metavar="DIR", help="of the nodes' layers [tmpfs if there is room, else disk]")
    add("--max-x-piece", metavar="X", help="exit 1 if scheduled takes more than X times the piece bound")
    add("--trouble", metavar="T", help=f"in mode scheduled: {FORM}")
    Outputs.add_arguments(parser)
    add("--logs", type=Path, metavar="DIR", help="keep the logs of all processes there")
    add("--event-log", type=Path, metavar="FILE", help="record the scheduler, for layercast-bench sim --replay")
    parser.set_defaults(steps=False)


def plan(arguments: argparse.Namespace) -> Plan:
    """What the flags ask for. Raises ConfigError or LocalError: one line, with the flag and what would be right."""
    shaped = not arguments.no_netns and os.geteuid() == 0
    scenario = _scenario(arguments)
    if not shaped:
        _refuse_without_namespaces(arguments, scenario)
    if arguments.event_log is not None and not arguments.event_log.absolute().parent.is_dir():
        raise ConfigError(f"--event-log {arguments.event_log}: its folder must exist")
    if arguments.store_dir is not None and not arguments.store_dir.is_dir():
        raise ConfigError(f"--store-dir {arguments.store_dir}: expected a folder")
    limit = arguments.max_x_piece
    modes = _modes(arguments.mode)
    controls: tuple[Control, ...] = get_args(Control)
    slowest = min(scenario.origin_bytes_s, scenario.supernode_bytes_s, scenario.classes[0].up_bytes_s)
    if limit is not None and "scheduled" not in modes:
        raise ConfigError(f"--max-x-piece {limit}: is about mode scheduled, which --mode {arguments.mode} leaves out")
    return Plan(
        scenario=scenario,
        modes=modes,
        control=choice("--control", arguments.control, controls),
        frame_bytes=count("--frames", arguments.frames, frame_bytes_at(slowest), FRAME_MIN_BYTES, FRAME_MAX_BYTES),
        shaped=shaped,
        calibrated=not arguments.no_calibration,
        native_limit_s=flags.duration("--native-limit", arguments.native_limit, 1.0),
        max_x_piece=None if limit is None else number("--max-x-piece", limit, 1.0, "at least 1"),
        trouble=None if arguments.trouble is None else Trouble.parse(arguments.trouble),
        store_dir=arguments.store_dir,
        outputs=Outputs.of(arguments),
        logs_dir=arguments.logs,
        event_log=arguments.event_log,
        steps=arguments.steps,
    )


def _scenario(arguments: argparse.Namespace) -> Scenario:
    layers = count("--layers", arguments.layers, 1, 1)
    seed = flags.seed(arguments.seed)
    blobs = _equal(arguments.size, layers) if arguments.sizes is None else flags.spread(arguments.sizes, layers, seed)
    common = flags.scenario(arguments, blobs, arguments.rate, nodes_max=NODES_MAX, least_bytes_s=RATE_MIN_BYTES_S)
    declared = arguments.no_netns or os.geteuid() != 0
    return replace(common, name="fanout", declared=declared, seed=seed)


def _equal(size_text: str, layers: int) -> tuple[int, ...]:
    size = checked("--size", size_text, parse_size, 1, "at least one byte")
    if layers > size:
        raise ConfigError(f"--layers {layers}: more than the bytes of --size {size_text}")
    return tuple(size // layers + (number < size % layers) for number in range(layers))


def _modes(text: str) -> tuple[Mode, ...]:
    known: tuple[Mode, ...] = get_args(Mode)
    found = [choice("--mode", word, known) for word in text.split(",")]
    if len(set(found)) != len(found):
        raise ConfigError(f"--mode {text}: each mode once")
    return tuple(found)


def _refuse_without_namespaces(arguments: argparse.Namespace, scenario: Scenario) -> None:
    """What loopback cannot do. Raises LocalError."""
    asked = {
        "--racks": bool(scenario.racks),
        "--frames": arguments.frames is not None,
        "--trouble": arguments.trouble is not None,
        "--control shared": arguments.control == "shared",
    }
    for flag, wanted in asked.items():
        if wanted:
            raise LocalError(f"{flag}: needs network namespaces; run it as root, without --no-netns")
