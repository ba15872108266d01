"""A scenario of one's own, from flags: `layercast-bench sim --nodes N ...`. Reads and checks them; runs nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import flags
from benchmarks.flags import checked, count, duration, number, whole
from benchmarks.scenario import Faults, NodeClass, OriginBehaviour, Scenario
from benchmarks.simulator.profile import read_profile
from proto.config.values import parse_size
from proto.errors import ConfigError
from proto.pieces import MIB, PIECE_COUNT_MAX

if TYPE_CHECKING:
    import argparse

    from benchmarks.simulator.settings import SimulationSettings

NODES_MAX: Final = 20_000
_PIECE_BYTES: Final = 4 * MIB
_PIECES: Final = 125
_RATE: Final = "1gbit"
_RATE_MIN_BYTES_S: Final = 125
_PART: Final = "a part of the nodes, 0 to 1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; values are checked in scenario() and settings(), which say what would be right."""
    group = parser.add_argument_group("a scenario of one's own, in place of a named one")
    add = group.add_argument
    add("--nodes", metavar="N", help="that want the image")
    add("--pieces", metavar="M", help="of the whole image [125, or as many 4 MiB pieces as --size takes]")
    add("--size", metavar="SIZE", help="of the image, such as 500MiB [4 MiB a piece]")
    add("--rate", metavar="R", help="of each node's link, each way [1gbit]")
    flags.add_scenario_arguments(group)
    add("--class", dest="classes", action="append", metavar="PARTS:R[:DOWN]", help="nodes with links of their own")
    add("--declared", action="store_true", default=None, help="nodes tell their rates, as with upload_rate set")
    add("--churn", metavar="PART[:FROM:TO]", help="of the nodes leave, between those times [0:0s:1s]")
    add("--slow", metavar="PART[:FACTOR]", help="of the nodes have that part of their links [0:0.05]")
    add("--corrupt", metavar="PART", help="of the nodes serve wrong bytes [0]")
    private = "the origin gives to clients of nodes alone: one fetches for all"
    add("--private", action="store_true", default=None, help=private)
    group = parser.add_argument_group("the simulation itself")
    add = group.add_argument
    add("--round-trip", metavar="T", help="between any two nodes [1ms]")
    add("--service", metavar="T", help="of the supernode's one core for each frame of a node [0.02ms]")
    add("--profile", type=Path, metavar="FILE", help="what machines add to it, as `layercast-bench fit` wrote it")


# What a named scenario says itself.
_SHARED: Final = ("nodes", "pieces", "size", "sizes", "layers", "parallel", "rate", "classes", "origin_rate",
                  "supernode_rate", "declared", "racks", "uplink_rate", "arrival", "joiners", "churn", "slow",
                  "corrupt", "private")  # fmt: skip


def refuse_with_named(arguments: argparse.Namespace, name: str) -> None:
    """A named scenario is what it is. Raises ConfigError."""
    for field in _SHARED:
        if getattr(arguments, field) is not None:
            flag = "class" if field == "classes" else field.replace("_", "-")
            raise ConfigError(f"--{flag}: scenario {name} has its own; give --nodes in place of its name")


def scenario(arguments: argparse.Namespace, seed: int) -> Scenario:
    """What the flags describe. Raises ConfigError, which names the flag and what would be right."""
    blobs, piece_size_bytes = _image(arguments, count("--layers", arguments.layers, 1, 1), seed)
    rate = arguments.rate or _RATE
    common = flags.scenario(arguments, blobs, rate, nodes_max=NODES_MAX, least_bytes_s=_RATE_MIN_BYTES_S)
    return replace(
        common,
        classes=_classes(arguments.classes) or common.classes,
        piece_size_bytes=piece_size_bytes,
        faults=_faults(arguments),
        origin=OriginBehaviour(by_members=bool(arguments.private)),
        declared=bool(arguments.declared),
        seed=seed,
    )


def settings(arguments: argparse.Namespace, given: SimulationSettings) -> SimulationSettings:
    """`given`, with what flags change. Raises ConfigError."""
    if arguments.round_trip is not None:
        given = replace(given, round_trip_s=duration("--round-trip", arguments.round_trip))
    if arguments.service is not None:
        given = replace(given, service_s=duration("--service", arguments.service))
    if arguments.profile is not None:
        given = replace(given, profile=read_profile(arguments.profile))
    return given


def _image(arguments: argparse.Namespace, layers: int, seed: int) -> tuple[tuple[int, ...], int | None]:
    """Each layer's size, and the piece size, in bytes; None is the product's own cut."""
    if arguments.sizes is None:
        return _cut(arguments.pieces, arguments.size, layers)
    for flag in ("size", "pieces"):
        if getattr(arguments, flag) is not None:
            raise ConfigError(f"--{flag}: --sizes says how large the layers are, and the product cuts them")
    return flags.spread(arguments.sizes, layers, seed), None


def _cut(pieces_text: str | None, size_text: str | None, layers: int) -> tuple[tuple[int, ...], int]:
    """Each layer's size, and the piece size, in bytes."""
    pieces = None if pieces_text is None else count("--pieces", pieces_text, 1, 1, PIECE_COUNT_MAX)
    if size_text is None:
        size, piece_size = (pieces or _PIECES) * _PIECE_BYTES, _PIECE_BYTES
    else:
        size = checked("--size", size_text, parse_size, 1, "at least one byte")
        piece_size = _PIECE_BYTES if pieces is None else -(-size // pieces)
    needed = -(-size // piece_size)
    if needed > PIECE_COUNT_MAX:
        raise ConfigError(f"--size {size_text}: more than {PIECE_COUNT_MAX} pieces of 4 MiB; give --pieces too")
    if pieces is not None and needed != pieces:
        raise ConfigError(f"--pieces {pieces_text}: {size} bytes cannot be cut into so many equal pieces")
    if layers > needed:
        raise ConfigError(f"--layers {layers}: more than the {needed} pieces of the image")
    whole_layers = tuple((needed // layers + (layer < needed % layers)) * piece_size for layer in range(layers - 1))
    return (*whole_layers, size - sum(whole_layers)), piece_size


def _classes(texts: list[str] | None) -> tuple[NodeClass, ...]:
    classes = []
    for text in texts or ():
        parts, separator, rates = text.partition(":")
        up, _, down = rates.partition(":")
        if not separator:
            raise ConfigError(f"--class {text}: expected PARTS:RATE, such as 1:250mbit")
        of_all = checked("--class", parts, whole, 1, "at least 1 part")
        classes.append(NodeClass(rates, of_all, _rate(up), _rate(down or up)))
    return tuple(classes)


def _faults(arguments: argparse.Namespace) -> Faults:
    churn, _, times = (arguments.churn or "0").partition(":")
    from_text, _, to_text = (times or "0s:1s").partition(":")
    slow, _, factor = (arguments.slow or "0").partition(":")
    from_s, to_s = duration("--churn", from_text), duration("--churn", to_text)
    if to_s < from_s:
        raise ConfigError(f"--churn {arguments.churn}: it ends before it begins")
    slow_factor = number("--slow", factor or "0.05", 0.0, "a factor")
    if slow_factor <= 0.0:
        raise ConfigError(f"--slow {arguments.slow}: the factor must be above 0")
    return Faults(
        churn_part=number("--churn", churn, 0.0, _PART),
        churn_from_s=from_s,
        churn_to_s=to_s,
        slow_part=number("--slow", slow, 0.0, _PART),
        slow_factor=slow_factor,
        corrupt_part=number("--corrupt", arguments.corrupt or "0", 0.0, _PART),
    )


def _rate(text: str) -> float:
    return flags.rate("--class", text, _RATE_MIN_BYTES_S)
