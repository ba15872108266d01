"""Flags that several benchmarks have, and how their values are read: one line that names the flag and what is wrong."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, TypeVar

from benchmarks.scenario import Arrivals, NodeClass, Scenario
from proto.config.values import parse_duration, parse_rate, parse_size
from proto.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

T = TypeVar("T", int, float)
Word = TypeVar("Word", bound=str)


def add_scenario_arguments(parser: argparse._ActionsContainer) -> None:
    """Who pulls, over which links, and when. A flag that is not given is None: its help names what that means."""
    add = parser.add_argument
    add("--layers", metavar="N", help="equal layers that the image has [1]")
    add("--sizes", metavar="A-B", help="layers from A to B bytes, each so many times the one before, in any order")
    add("--parallel", metavar="N", help="layers that a client pulls at a time [3]")
    add("--origin-rate", metavar="RATE", help="of the origin's link [as --rate]")
    add("--supernode-rate", metavar="RATE", help="of the supernode's link, each way [as --rate]")
    add("--racks", metavar="K", help="racks, each behind a trunk of --uplink-rate [none]")
    add("--uplink-rate", metavar="RATE", help="of each rack's trunk, each way")
    add("--arrival", metavar="A", help="all at once, or poisson:NODES_A_SECOND [all]")
    add("--joiners", metavar="N", help="the last N nodes ask when all others are complete [0]")


def scenario(
    arguments: argparse.Namespace, blobs: tuple[int, ...], rate_text: str, *, nodes_max: int, least_bytes_s: int
) -> Scenario:
    """What --nodes, --seed and add_scenario_arguments() describe, every node with a link of `rate_text` each way.

    No rate may be below `least_bytes_s`. Raises ConfigError, which names the flag and what would be right.
    """
    nodes = count("--nodes", arguments.nodes, 1, 1, nodes_max)
    node_bytes_s = rate("--rate", rate_text, least_bytes_s)
    racks, trunk_bytes_s = _racks(arguments, least_bytes_s)
    return Scenario(
        nodes=nodes,
        blobs=blobs,
        classes=(NodeClass("node", 1, node_bytes_s, node_bytes_s),),
        origin_bytes_s=rate("--origin-rate", arguments.origin_rate or rate_text, least_bytes_s),
        supernode_bytes_s=rate("--supernode-rate", arguments.supernode_rate or rate_text, least_bytes_s),
        parallel=count("--parallel", arguments.parallel, 3, 1),
        racks=racks,
        trunk_bytes_s=trunk_bytes_s,
        arrivals=Arrivals(_poisson_per_s(arguments.arrival), count("--joiners", arguments.joiners, 0, 0)),
    )


def spread(text: str, layers: int, seed: int) -> tuple[int, ...]:
    """What --sizes A-B describes, as real images have layers: many small, a few large, in an order of the seed's.

    Raises ConfigError.
    """
    least_text, dash, most_text = text.partition("-")
    if not dash:
        raise ConfigError(f"--sizes {text}: expected A-B, as 1KB-4MB")
    least = checked("--sizes", least_text, parse_size, 1, "at least one byte")
    most = checked("--sizes", most_text, parse_size, least, "no more first than last")
    factor = (most / least) ** (1 / max(1, layers - 1))
    blobs = [round(least * factor**number) for number in range(layers)]
    random.Random(seed).shuffle(blobs)
    return tuple(blobs)


def _racks(arguments: argparse.Namespace, least_bytes_s: int) -> tuple[int, float]:
    found = count("--racks", arguments.racks, 0, 0)
    if found and arguments.uplink_rate is None:
        raise ConfigError(f"--racks {found}: needs --uplink-rate, of each rack's trunk")
    if not found and arguments.uplink_rate is not None:
        raise ConfigError(f"--uplink-rate {arguments.uplink_rate}: needs --racks, which have the trunks")
    return found, rate("--uplink-rate", arguments.uplink_rate, least_bytes_s) if found else 0.0


def _poisson_per_s(text: str | None) -> float:
    """Nodes a second, 0.0 for all at once."""
    if text in (None, "all"):
        return 0.0
    kind, _, per_s = str(text).partition(":")
    if kind != "poisson":
        raise ConfigError(f"--arrival {text}: expected all or poisson:NODES_A_SECOND")
    return number("--arrival poisson:", per_s, math.ulp(0.0), "nodes a second, above 0")


def checked(flag: str, text: str, parse: Callable[[str], T], least: T, what: str) -> T:
    """A flag's value. Raises ConfigError that names the flag, its value and what would be right."""
    try:
        value = parse(text)
    except ValueError as error:
        raise ConfigError(f"{flag} {text}: {error}") from None
    if value < least:
        raise ConfigError(f"{flag} {text}: expected {what}")
    return value


def whole(text: str) -> int:
    """A whole number. Raises ValueError."""
    if not text.isdigit():
        raise ValueError("expected a whole number")
    return int(text)


def count(flag: str, text: str | None, default: int, least: int, most: int | None = None) -> int:
    """A whole number of things. Raises ConfigError."""
    if text is None:
        return default
    value = checked(flag, text, whole, least, f"at least {least}")
    if most is not None and value > most:
        raise ConfigError(f"{flag} {text}: at most {most}")
    return value


def seed(text: str) -> int:
    """Of random choices. Raises ConfigError."""
    return checked("--seed", text, whole, 0, "a whole number")


def number(flag: str, text: str, least: float, what: str) -> float:
    """A finite number. Raises ConfigError."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError("expected a number")
        return value

    return checked(flag, text, parse, least, what)


def rate(flag: str, text: str, least_bytes_s: int) -> float:
    """Bytes a second. Raises ConfigError."""
    return float(checked(flag, text, parse_rate, least_bytes_s, f"at least {8 * least_bytes_s / 1000:g}kbit"))


def duration(flag: str, text: str | None, least_s: float = 0.0) -> float:
    """Seconds, 0.0 if it is not given. Raises ConfigError."""
    return 0.0 if text is None else checked(flag, text, parse_duration, least_s, f"at least {least_s:g}s")


def choice(flag: str, text: str, known: Sequence[Word]) -> Word:
    """One of the known words. Raises ConfigError."""
    for one in known:
        if one == text:
            return one
    raise ConfigError(f"{flag} {text}: expected {', '.join(known[:-1])} or {known[-1]}")
