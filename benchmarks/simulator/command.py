"""`layercast-bench sim`: the production machines under a virtual clock, and how far they are from the bounds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.report import document, print_report, write_json
from benchmarks.scenario import NodeClass, Scenario
from benchmarks.simulator import replay_command, report
from benchmarks.simulator.world import World
from proto.errors import ConfigError, LocalError
from proto.pieces import MIB, PIECE_COUNT_MAX
from proto.values import parse_int, parse_rate, parse_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

HELP = "simulate the fan-out of one blob with the production scheduler and downloader, at a virtual clock"

_NODES_MAX: Final = 20_000
_PIECE_BYTES: Final = 4 * MIB
_PIECES: Final = 125


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; values are checked in run, which says what would be right."""
    parser.add_argument("--nodes", metavar="N", help="that all want the blob at time 0")
    parser.add_argument("--pieces", metavar="M", help="of the blob (125, or as many 4 MiB pieces as --size takes)")
    parser.add_argument("--size", metavar="SIZE", help="of the blob, such as 500MiB (4 MiB a piece)")
    parser.add_argument("--rate", default="1gbit", metavar="R", help="of each node's link, each way (1gbit)")
    parser.add_argument("--origin-rate", metavar="R", help="of the origin's uplink (as --rate)")
    parser.add_argument("--supernode-rate", metavar="R", help="of the supernode's link, each way (as --rate)")
    parser.add_argument("--declared", action="store_true", help="nodes tell their rates, as with upload_rate set")
    parser.add_argument("--seed", default="1", metavar="S", help="of every random choice (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    replay_command.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Simulate, print, keep."""
    if arguments.replay is not None:
        return replay_command.run(arguments)
    outcome = World(scenario(arguments)).run()
    links = report.links(outcome.settings, outcome.scenario)
    run = report.mode_run(outcome)
    print_report(outcome.scenario, outcome.bounds, (run,), links=links)
    print(report.assumptions(outcome.settings))
    print(report.trace_line(outcome))
    for error in outcome.errors[:8]:
        print(error, file=sys.stderr)
    if arguments.json is not None:
        more = {"simulation": report.simulation(outcome)}
        try:
            write_json(arguments.json, document(outcome.scenario, outcome.bounds, (run,), links=links, more=more))
        except OSError as error:
            raise LocalError(f"--json {arguments.json}: {error.strerror}") from None
    return 1 if outcome.errors else 0


def scenario(arguments: argparse.Namespace) -> Scenario:
    """What the flags describe. Raises ConfigError, which names the flag and what would be right."""
    if arguments.nodes is None:
        raise ConfigError("--nodes N expected, or --replay FILE")
    nodes = _number("--nodes", arguments.nodes, parse_int, 1, _NODES_MAX, f"1 to {_NODES_MAX}")
    rate = _rate("--rate", arguments.rate)
    size_bytes, piece_size_bytes = _cut(arguments.pieces, arguments.size)
    return Scenario(
        nodes=nodes,
        blobs=(size_bytes,),
        piece_size_bytes=piece_size_bytes,
        classes=(NodeClass("node", 1, rate, rate),),
        origin_bytes_s=_rate("--origin-rate", arguments.origin_rate) if arguments.origin_rate else rate,
        supernode_bytes_s=_rate("--supernode-rate", arguments.supernode_rate) if arguments.supernode_rate else rate,
        declared=arguments.declared,
        seed=_number("--seed", arguments.seed, parse_int, 0, 2**63, "a whole number"),
    )


def _cut(pieces_text: str | None, size_text: str | None) -> tuple[int, int]:
    """Size and piece size in bytes."""
    limit = f"1 to {PIECE_COUNT_MAX}"
    if size_text is None:
        pieces = _number("--pieces", pieces_text or str(_PIECES), parse_int, 1, PIECE_COUNT_MAX, limit)
        return pieces * _PIECE_BYTES, _PIECE_BYTES
    size = _number("--size", size_text, parse_size, 1, 2**50, "1 byte to 1024 TiB")
    if pieces_text is None:
        if size > PIECE_COUNT_MAX * _PIECE_BYTES:
            raise ConfigError(f"--size {size_text}: more than {PIECE_COUNT_MAX} pieces of 4 MiB; give --pieces too")
        return size, _PIECE_BYTES
    pieces = _number("--pieces", pieces_text, parse_int, 1, PIECE_COUNT_MAX, limit)
    piece_size = -(-size // pieces)
    if -(-size // piece_size) != pieces:
        raise ConfigError(f"--pieces {pieces_text}: a blob of {size} bytes cannot be cut into so many equal pieces")
    return size, piece_size


def _rate(flag: str, text: str) -> float:
    return float(_number(flag, text, parse_rate, 1, 2**50, "at least 1 byte a second, such as 100mbit"))


def _number(flag: str, text: str, parse: Callable[[str], int], least: int, most: int, expected: str) -> int:
    try:
        value = parse(text)
    except ValueError as error:
        raise ConfigError(f"{flag} {text}: {error}") from None
    if not least <= value <= most:
        raise ConfigError(f"{flag} {text}: expected {expected}")
    return value
