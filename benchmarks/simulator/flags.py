"""A scenario of one's own, from flags: `layercast-bench sim --nodes N ...`. Reads and checks them; runs nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from benchmarks.pulls.common import checked, whole
from benchmarks.scenario import Arrivals, Faults, NodeClass, OriginBehaviour, Scenario
from proto.config.values import parse_duration, parse_rate, parse_size
from proto.errors import ConfigError
from proto.pieces import MIB, PIECE_COUNT_MAX

if TYPE_CHECKING:
    import argparse

    from benchmarks.simulator.settings import SimulationSettings

NODES_MAX: Final = 20_000
_PIECE_BYTES: Final = 4 * MIB
_PIECES: Final = 125
_RATE: Final = "1gbit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; values are checked in scenario() and settings(), which say what would be right."""
    group = parser.add_argument_group("a scenario of one's own, in place of a named one")
    add = group.add_argument
    add("--nodes", metavar="N", help="that want the image")
    add("--pieces", metavar="M", help="of the whole image [125, or as many 4 MiB pieces as --size takes]")
    add("--size", metavar="SIZE", help="of the image, such as 500MiB [4 MiB a piece]")
    add("--layers", metavar="N", help="equal layers of whole pieces [1]")
    add("--parallel", metavar="N", help="layers that a client asks for at a time [3]")
    add("--rate", metavar="R", help="of each node's link, each way [1gbit]")
    add("--class", dest="classes", action="append", metavar="PARTS:R[:DOWN]", help="nodes with links of their own")
    add("--origin-rate", metavar="R", help="of the origin's uplink [as --rate]")
    add("--supernode-rate", metavar="R", help="of the supernode's link, each way [as --rate]")
    add("--declared", action="store_true", default=None, help="nodes tell their rates, as with upload_rate set")
    add("--racks", metavar="K", help="racks, each behind a trunk of --uplink-rate [none]")
    add("--uplink-rate", metavar="R", help="of each rack's trunk, each way")
    add("--arrival", metavar="A", help="all at once, or poisson:NODES_A_SECOND [all]")
    add("--joiners", metavar="N", help="the last N nodes ask when all others are complete [0]")
    add("--first-byte", metavar="T", help="after which an answer of the origin begins [0s]")
    add("--stall", metavar="T", help="for which the origin stands still half way [0s]")
    add("--refuse", metavar="N[:T]", help="requests the origin answers 429, with Retry-After [0:1s]")
    add("--churn", metavar="PART[:FROM:TO]", help="of the nodes leave, between those times [0:0s:1s]")
    add("--churn-back", metavar="T", help="after which they come back [never]")
    add("--slow", metavar="PART[:FACTOR]", help="of the nodes have that part of their links [0:0.05]")
    add("--corrupt", metavar="PART", help="of the nodes serve wrong bytes [0]")
    group = parser.add_argument_group("the simulation itself")
    add = group.add_argument
    add("--round-trip", metavar="T", help="between any two nodes [1ms]")
    add("--rack-round-trip", metavar="T", help="between nodes of one rack [as --round-trip]")
    add("--service", metavar="T", help="of the supernode, an event [0.02ms]")
    add("--power-loss", action="store_true", help="nodes that leave lose their power: nobody closes their connections")
    add("--slow-start", action="store_true", help="connections that rested begin slowly")


# What a named scenario says itself.
_SHARED: Final = ("nodes", "pieces", "size", "layers", "parallel", "rate", "classes", "origin_rate", "supernode_rate",
                  "declared", "racks", "uplink_rate", "arrival", "joiners", "first_byte", "stall", "refuse", "churn",
                  "churn_back", "slow", "corrupt")  # fmt: skip


def refuse_with_named(arguments: argparse.Namespace, name: str) -> None:
    """A named scenario is what it is. Raises ConfigError."""
    for field in _SHARED:
        if getattr(arguments, field) is not None:
            flag = "class" if field == "classes" else field.replace("_", "-")
            raise ConfigError(f"--{flag}: scenario {name} has its own; give --nodes in place of its name")


def scenario(arguments: argparse.Namespace, seed: int) -> Scenario:
    """What the flags describe. Raises ConfigError, which names the flag and what would be right."""
    nodes = checked("--nodes", arguments.nodes, whole, 1, "at least 1")
    if nodes > NODES_MAX:
        raise ConfigError(f"--nodes {nodes}: at most {NODES_MAX}")
    rate = _rate("--rate", arguments.rate or _RATE)
    blobs, piece_size_bytes = _cut(arguments.pieces, arguments.size, _count("--layers", arguments.layers, 1, 1))
    racks = _count("--racks", arguments.racks, 0, 0)
    if bool(racks) != (arguments.uplink_rate is not None):
        raise ConfigError("--racks K and --uplink-rate R, of each rack's trunk, need each other")
    refused, retry_after_s = _refusals(arguments.refuse)
    return Scenario(
        nodes=nodes,
        blobs=blobs,
        classes=_classes(arguments.classes, rate),
        origin_bytes_s=_rate("--origin-rate", arguments.origin_rate) if arguments.origin_rate else rate,
        supernode_bytes_s=_rate("--supernode-rate", arguments.supernode_rate) if arguments.supernode_rate else rate,
        piece_size_bytes=piece_size_bytes,
        parallel=_count("--parallel", arguments.parallel, 3, 1),
        racks=racks,
        trunk_bytes_s=_rate("--uplink-rate", arguments.uplink_rate) if racks else 0.0,
        arrivals=Arrivals(_arrival(arguments.arrival), _count("--joiners", arguments.joiners, 0, 0)),
        origin=OriginBehaviour(
            first_byte_s=_time("--first-byte", arguments.first_byte),
            stall_s=_time("--stall", arguments.stall),
            refused=refused,
            retry_after_s=retry_after_s,
        ),
        faults=_faults(arguments),
        declared=bool(arguments.declared),
        seed=seed,
    )


def settings(arguments: argparse.Namespace, given: SimulationSettings) -> SimulationSettings:
    """`given`, with what flags change. Raises ConfigError."""
    round_trip, rack_round_trip, service = arguments.round_trip, arguments.rack_round_trip, arguments.service
    return replace(
        given,
        round_trip_s=given.round_trip_s if round_trip is None else _time("--round-trip", round_trip),
        rack_round_trip_s=(
            given.rack_round_trip_s if rack_round_trip is None else _time("--rack-round-trip", rack_round_trip)
        ),
        service_s=given.service_s if service is None else _time("--service", service),
        power_loss=given.power_loss or arguments.power_loss,
        slow_start=given.slow_start or arguments.slow_start,
    )


def _cut(pieces_text: str | None, size_text: str | None, layers: int) -> tuple[tuple[int, ...], int]:
    """Each layer's size, and the piece size, in bytes."""
    pieces = None if pieces_text is None else _pieces(pieces_text)
    if size_text is None:
        size, piece_size = (pieces or _PIECES) * _PIECE_BYTES, _PIECE_BYTES
    else:
        size = checked("--size", size_text, parse_size, 1, "at least one byte")
        piece_size = _PIECE_BYTES if pieces is None else -(-size // pieces)
    count = -(-size // piece_size)
    if count > PIECE_COUNT_MAX:
        raise ConfigError(f"--size {size_text}: more than {PIECE_COUNT_MAX} pieces of 4 MiB; give --pieces too")
    if pieces is not None and count != pieces:
        raise ConfigError(f"--pieces {pieces_text}: {size} bytes cannot be cut into so many equal pieces")
    if layers > count:
        raise ConfigError(f"--layers {layers}: more than the {count} pieces of the image")
    whole_layers = tuple((count // layers + (layer < count % layers)) * piece_size for layer in range(layers - 1))
    return (*whole_layers, size - sum(whole_layers)), piece_size


def _pieces(text: str) -> int:
    pieces = checked("--pieces", text, whole, 1, "at least 1")
    if pieces > PIECE_COUNT_MAX:
        raise ConfigError(f"--pieces {text}: at most {PIECE_COUNT_MAX}")
    return pieces


def _classes(texts: list[str] | None, rate: float) -> tuple[NodeClass, ...]:
    if not texts:
        return (NodeClass("node", 1, rate, rate),)
    classes = []
    for text in texts:
        parts, separator, rates = text.partition(":")
        up, _, down = rates.partition(":")
        if not separator:
            raise ConfigError(f"--class {text}: expected PARTS:RATE, such as 1:250mbit")
        count = checked("--class", parts, whole, 1, "at least 1 part")
        classes.append(NodeClass(rates, count, _rate("--class", up), _rate("--class", down or up)))
    return tuple(classes)


def _arrival(text: str | None) -> float:
    """Nodes a second, 0.0 for all at once."""
    kind, _, rate = (text or "all").partition(":")
    if kind == "all" and not rate:
        return 0.0
    if kind != "poisson":
        raise ConfigError(f"--arrival {text}: expected all or poisson:NODES_A_SECOND")
    value = checked("--arrival", rate, _number, 0.0, "nodes a second")
    if value <= 0.0:
        raise ConfigError(f"--arrival {text}: expected nodes a second, above 0")
    return value


def _refusals(text: str | None) -> tuple[int, float]:
    count, _, after = (text or "0").partition(":")
    return checked("--refuse", count, whole, 0, "a number of requests"), _time("--refuse", after or "1s")


def _faults(arguments: argparse.Namespace) -> Faults:
    churn, _, times = (arguments.churn or "0").partition(":")
    from_text, _, to_text = (times or "0s:1s").partition(":")
    slow, _, factor = (arguments.slow or "0").partition(":")
    from_s, to_s = _time("--churn", from_text), _time("--churn", to_text)
    if to_s < from_s:
        raise ConfigError(f"--churn {arguments.churn}: it ends before it begins")
    slow_factor = checked("--slow", factor or "0.05", _number, 0.0, "a factor")
    if slow_factor <= 0.0:
        raise ConfigError(f"--slow {arguments.slow}: the factor must be above 0")
    return Faults(
        churn_part=checked("--churn", churn, _number, 0.0, "a part of the nodes, 0 to 1"),
        churn_from_s=from_s,
        churn_to_s=to_s,
        churn_back_after_s=_time("--churn-back", arguments.churn_back),
        slow_part=checked("--slow", slow, _number, 0.0, "a part of the nodes, 0 to 1"),
        slow_factor=slow_factor,
        corrupt_part=checked("--corrupt", arguments.corrupt or "0", _number, 0.0, "a part of the nodes, 0 to 1"),
    )


def _count(flag: str, text: str | None, default: int, least: int) -> int:
    return default if text is None else checked(flag, text, whole, least, f"at least {least}")


def _time(flag: str, text: str | None) -> float:
    return 0.0 if text is None else checked(flag, text, parse_duration, 0.0, "a time")


def _rate(flag: str, text: str) -> float:
    return float(checked(flag, text, parse_rate, 1, "at least 1 byte a second, such as 100mbit"))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("expected a number") from None
