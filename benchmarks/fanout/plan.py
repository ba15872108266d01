"""What one fan-out is asked to be: the Scenario and how to run it. Reads flags; starts nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, get_args

import supernode.config
from benchmarks.figures import Mode
from benchmarks.pulls.common import checked, whole
from benchmarks.scenario import Arrivals, Control, NodeClass, Scenario
from proto.config.values import parse_duration, parse_rate, parse_size
from proto.errors import ConfigError, LocalError
from proto.pieces import piece_size_for

if TYPE_CHECKING:
    import argparse

Word = TypeVar("Word", bound=str)

# Addresses and neighbour tables are laid out for so many; two cores are busy long before.
NODES_MAX: Final = 1000
RATE_MIN_BYTES_S: Final = 12_500
FRAME_MIN_BYTES: Final = 1500
FRAME_MAX_BYTES: Final = 9000


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is kept of a run besides its tables."""

    json_path: Path | None
    html_path: Path | None
    plots_dir: Path | None
    logs_dir: Path | None
    event_log: Path | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A run of every mode. `scenario` has nominal rates; see the flags for the others."""

    scenario: Scenario
    modes: tuple[Mode, ...]
    control: Control
    frame_bytes: int
    shaped: bool
    native_limit_s: float
    max_x_piece: float | None
    store_dir: Path | None
    outputs: Outputs

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
    add("--layers", default="1", metavar="N", help="equal layers that the image has [1]")
    add("--parallel", default="3", metavar="N", help="layers that a client pulls at a time [3]")
    add("--piece-size", metavar="SIZE", help="of each layer's pieces [the product's own rule]")
    add("--origin-rate", metavar="RATE", help="of the origin's link [as --rate]")
    add("--supernode-rate", metavar="RATE", help="of the supernode's link [as --rate]")
    add("--racks", default="0", metavar="K", help="racks, each behind a trunk of --uplink-rate [0: none]")
    add("--uplink-rate", metavar="RATE", help="of each rack's trunk, each way")
    add("--arrival", default="all", metavar="A", help="all at once, or poisson:NODES_A_SECOND [all]")
    add("--joiners", default="0", metavar="N", help="the last N nodes ask when all others are complete [0]")
    add("--control", default="own", metavar="C", help="control traffic on a link of its own, or shared [own]")
    add("--frames", default=str(FRAME_MIN_BYTES), metavar="BYTES", help="MTU of every link, 1500 to 9000 [1500]")
    add("--seed", default="1", metavar="S", help="of the random content and arrivals [1]")
    add("--native-limit", default="5min", metavar="T", help="above, native pulls a part of the size [5min]")
    add("--no-netns", action="store_true", help="on loopback with the product's own rate limits, as without root")
    add("--store-dir", type=Path, metavar="DIR", help="of the nodes' layers [tmpfs if there is room, else disk]")
    add("--max-x-piece", metavar="X", help="exit 1 if scheduled takes more than X times the piece bound")
    add("--json", type=Path, metavar="FILE", help="write every figure there")
    add("--html", type=Path, metavar="FILE", help="write one self-contained page with plots there")
    add("--plots", type=Path, metavar="DIR", help="write the plots there, as SVG")
    add("--logs", type=Path, metavar="DIR", help="keep the logs of all processes there")
    add("--event-log", type=Path, metavar="FILE", help="record the scheduler, for layercast-bench sim --replay")


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
    if "torrent" in modes and not torrent_built_in():
        raise ConfigError(f"--mode {arguments.mode}: mode torrent is not built into this supernode")
    controls: tuple[Control, ...] = get_args(Control)
    if limit is not None and "scheduled" not in modes:
        raise ConfigError(f"--max-x-piece {limit}: is about mode scheduled, which --mode {arguments.mode} leaves out")
    return Plan(
        scenario=scenario,
        modes=modes,
        control=_choice("--control", arguments.control, controls),
        frame_bytes=_frame_bytes(arguments.frames),
        shaped=shaped,
        native_limit_s=checked("--native-limit", arguments.native_limit, parse_duration, 1.0, "at least 1s"),
        max_x_piece=None if limit is None else checked("--max-x-piece", limit, _number, 1.0, "at least 1"),
        store_dir=arguments.store_dir,
        outputs=Outputs(arguments.json, arguments.html, arguments.plots, arguments.logs, arguments.event_log),
    )


def torrent_built_in() -> bool:
    """Whether the supernode has a transport to choose."""
    return any(option.name == "transport" for option in supernode.config.OPTIONS)


def _scenario(arguments: argparse.Namespace) -> Scenario:
    nodes = checked("--nodes", arguments.nodes, whole, 1, "at least 1")
    if nodes > NODES_MAX:
        raise ConfigError(f"--nodes {nodes}: at most {NODES_MAX}")
    rate = _rate("--rate", arguments.rate)
    racks = checked("--racks", arguments.racks, whole, 0, "a whole number")
    if racks > 0 and arguments.uplink_rate is None:
        raise ConfigError(f"--racks {racks}: needs --uplink-rate, of each rack's trunk")
    if not racks and arguments.uplink_rate is not None:
        raise ConfigError(f"--uplink-rate {arguments.uplink_rate}: needs --racks, which have the trunks")
    blobs = _blobs(arguments)
    return Scenario(
        name="fanout",
        nodes=nodes,
        blobs=blobs,
        classes=(NodeClass("node", 1, rate, rate),),
        origin_bytes_s=_rate("--origin-rate", arguments.origin_rate) if arguments.origin_rate else rate,
        supernode_bytes_s=_rate("--supernode-rate", arguments.supernode_rate) if arguments.supernode_rate else rate,
        piece_size_bytes=_piece_size(arguments.piece_size, blobs),
        parallel=checked("--parallel", arguments.parallel, whole, 1, "at least 1"),
        racks=racks,
        trunk_bytes_s=_rate("--uplink-rate", arguments.uplink_rate) if racks else 0.0,
        arrivals=Arrivals(
            poisson_per_s=_arrival(arguments.arrival),
            joiners=checked("--joiners", arguments.joiners, whole, 0, "a whole number"),
        ),
        declared=arguments.no_netns or os.geteuid() != 0,
        seed=checked("--seed", arguments.seed, whole, 0, "a whole number"),
    )


def _blobs(arguments: argparse.Namespace) -> tuple[int, ...]:
    size = checked("--size", arguments.size, parse_size, 1, "at least one byte")
    layers = checked("--layers", arguments.layers, whole, 1, "at least 1")
    if layers > size:
        raise ConfigError(f"--layers {layers}: more than the bytes of --size {arguments.size}")
    return tuple(size // layers + (number < size % layers) for number in range(layers))


def _piece_size(text: str | None, blobs: tuple[int, ...]) -> int | None:
    """None where the product's rule gives that very size for every layer."""
    if text is None:
        return None
    asked = checked("--piece-size", text, parse_size, 1, "at least one byte")
    ruled = {piece_size_for(size) for size in blobs}
    if ruled != {asked}:
        sizes = ", ".join(str(size) for size in sorted(ruled))
        raise ConfigError(f"--piece-size {text}: the product cuts layers of this size into pieces of {sizes} bytes")
    return None


def _modes(text: str) -> tuple[Mode, ...]:
    known: tuple[Mode, ...] = get_args(Mode)
    found: list[Mode] = [_choice("--mode", word, known) for word in text.split(",")]
    if len(set(found)) != len(found):
        raise ConfigError(f"--mode {text}: each mode once")
    return tuple(found)


def _arrival(text: str) -> float:
    """Nodes a second, 0.0 for all at once."""
    if text == "all":
        return 0.0
    kind, _, rate = text.partition(":")
    if kind != "poisson":
        raise ConfigError(f"--arrival {text}: expected all or poisson:NODES_A_SECOND")
    value = checked("--arrival poisson:", rate, _number, 0.0, "nodes a second, above 0")
    if value <= 0.0:
        raise ConfigError(f"--arrival {text}: expected nodes a second, above 0")
    return value


def _frame_bytes(text: str) -> int:
    found = checked("--frames", text, whole, FRAME_MIN_BYTES, f"at least {FRAME_MIN_BYTES}")
    if found > FRAME_MAX_BYTES:
        raise ConfigError(f"--frames {text}: at most {FRAME_MAX_BYTES}")
    return found


def _choice(flag: str, text: str, known: tuple[Word, ...]) -> Word:
    for one in known:
        if one == text:
            return one
    raise ConfigError(f"{flag} {text}: expected {', '.join(known[:-1])} or {known[-1]}")


def _rate(flag: str, text: str) -> float:
    return float(checked(flag, text, parse_rate, RATE_MIN_BYTES_S, "at least 100kbit"))


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("expected a number") from None
    if not 0.0 <= value < 1e9:
        raise ValueError("expected a number")
    return value


def _refuse_without_namespaces(arguments: argparse.Namespace, scenario: Scenario) -> None:
    """What loopback cannot do. Raises LocalError."""
    asked = {
        "--racks": bool(scenario.racks),
        "--frames": _frame_bytes(arguments.frames) != FRAME_MIN_BYTES,
        "--control shared": arguments.control == "shared",
    }
    for flag, wanted in asked.items():
        if wanted:
            raise LocalError(f"{flag}: needs network namespaces; run it as root, without --no-netns")
