"""`layercast-bench sim --replay FILE`: what a real supernode's event log says, and whether it replays."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.report import print_table, write_json
from benchmarks.simulator.replay import Replayer
from proto.config.values import parse_int
from proto.errors import ConfigError, LocalError
from supernode.event_log.format import Reader

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from benchmarks.simulator.replay import Difference, Replay, SwarmPast
    from supernode.scheduler.contract import Command

# Swarms that the table shows, the latest; the JSON has all.
_SWARMS_SHOWN: Final = 40
_COMMANDS_SHOWN: Final = 8
_CHECK_EVERY: Final = 1000
_OUTCOMES: Final = ("granted", "stored", "failed", "expired", "cancelled", "lost", "late", "raced")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of a replay, in the parser of the simulator."""
    group = parser.add_argument_group("replay of a real run")
    group.add_argument("--replay", type=Path, metavar="FILE", help="what layercast-supernode --event-log FILE recorded")
    group.add_argument("--story", metavar="SWARM:PIECE", help="tell why this piece went where it went")
    group.add_argument(
        "--check-every", default=str(_CHECK_EVERY), metavar="N",
        help=f"check the scheduler's invariants every N events ({_CHECK_EVERY}; 1: after each, 0: never)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Replay, print, keep; 1 where the commands differ or a rule is broken. Raises LocalError for a bad file."""
    story = None if arguments.story is None else _story(arguments.story)
    try:
        check_every = parse_int(arguments.check_every)
    except ValueError as error:
        raise ConfigError(f"--check-every {arguments.check_every}: {error}") from None
    path: Path = arguments.replay
    try:
        with path.open("rb") as file:
            found = Replayer(Reader(file, str(path)), check_every=check_every, story=story).run()
    except OSError as error:
        raise LocalError(f"--replay {path}: {error.strerror}") from None
    print_replay(path, found)
    if story is not None:
        _print_story(story, found)
    if arguments.json is not None:
        write_json(arguments.json, document(found))
    return 1 if found.difference is not None or found.broken else 0


def _story(text: str) -> tuple[int, int]:
    swarm, separator, piece = text.partition(":")
    if not separator or not swarm.isdigit() or not piece.isdigit():
        raise ConfigError(f"--story {text}: SWARM:PIECE expected, such as 1:17 (swarm_opened lines name the swarms)")
    return int(swarm), int(piece)


def print_replay(path: Path, found: Replay) -> None:
    """For people."""
    header = found.header
    began = datetime.fromtimestamp(header.began_unix_s, UTC).isoformat(sep=" ", timespec="seconds")
    ended = found.ended or "cut off (killed, a full disk, or still being written)"
    epoch = header.parameters.epoch
    print(f"{path}: recorded from {began} by layercast {header.program}, Python {header.python}, epoch {epoch}")
    if found.difference is None and not found.broken:
        print(f"its end: {ended}")
        print(f"commands: the same as recorded, digest {found.digest.hex()}")
        print(f"invariants: held each of {found.checks} times that they were checked")
    rows = [(name, _figure(value)) for name, value in _figures(found).items() if value is not None]
    print_table("the run", ("", "figure"), rows)
    swarms = list(found.past.swarms.values())
    if swarms:
        title = f"swarms (s: seconds from its opening){_more(len(swarms))}"
        columns = ("swarm", "bytes", "pieces", "stored at peers", "peers complete", "first, s", "last, s")
        print_table(title, columns, [_swarm_row(swarm) for swarm in swarms[-_SWARMS_SHOWN:]])
    if found.difference is not None:
        _print_difference(found.difference)
    if found.broken:
        print(f"BROKEN at {found.broken}")


def _more(count: int) -> str:
    return f": the last {_SWARMS_SHOWN} of {count}" if count > _SWARMS_SHOWN else ""


def _figures(found: Replay) -> dict[str, float | int | None]:
    """Name to figure, None where there is none."""
    counters = found.counters
    failed = sum(count for name, count in counters.items() if name.startswith("failed_"))
    leases = {f"leases_{name}": failed if name == "failed" else counters.get(name, 0) for name in _OUTCOMES}
    times_us = sorted(time_ns / 1000 for time_ns in found.handles_ns)
    return {
        "duration_s": found.duration_s,
        "records": found.records,
        "events": found.events,
        "swarms": len(found.past.swarms),
        "peers": len(found.past.peers),
        "pieces_stored_at_peers": found.past.stored_pieces,
        **leases,
        "origin_fetches": counters.get("origin_fetches", 0),
        "origin_failures": counters.get("origin_failures", 0),
        "quarantined": counters.get("quarantined", 0),
        "events_ignored": counters.get("ignored", 0),
        "handle_p50_us": _quantile(times_us, 0.5),
        "handle_p99_us": _quantile(times_us, 0.99),
    }


def _quantile(ordered: Sequence[float], part: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else None


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def _swarm_row(swarm: SwarmPast) -> tuple[str, ...]:
    done = swarm.completed_s
    return (
        str(swarm.number),
        f"{swarm.layout.size_bytes:,}",
        str(swarm.layout.count),
        f"{swarm.stored_pieces:,}",
        str(len(done)),
        f"{min(done):.3f}" if done else "-",
        f"{max(done):.3f}" if done else "-",
    )


def _print_difference(difference: Difference) -> None:
    handled = difference.handled
    if handled is None:
        print(f"DIFFERENT: record {difference.record}: its digest is not that of the commands beside it")
        return
    print(f"DIFFERENT first at record {difference.record}, event {difference.event}: {handled.now:.6f} {handled.event}")
    _print_commands("recorded", difference.recorded, "")
    _print_commands("replayed", difference.replayed, difference.error)


def _print_commands(title: str, commands: list[Command] | None, error: str) -> None:
    if commands is None:
        print(f"  {title}: the machine broke {error}".rstrip())
        return
    print(f"  {title}: {len(commands)} commands")
    for command in commands[:_COMMANDS_SHOWN]:
        print(f"    {command}")
    if len(commands) > _COMMANDS_SHOWN:
        print(f"    and {len(commands) - _COMMANDS_SHOWN} more")


def _print_story(about: tuple[int, int], found: Replay) -> None:
    number, piece = about
    swarm = found.past.swarms.get(number)
    if swarm is None:
        raise ConfigError(f"--story {number}:{piece}: no swarm of that number in this log")
    if piece >= swarm.layout.count:
        raise ConfigError(f"--story {number}:{piece}: swarm {number} has pieces 0 to {swarm.layout.count - 1}")
    print(f"the story of piece {piece} of swarm {number} (peer 0 is the supernode's own store):")
    for line in found.story:
        print(f"  {line}")


def document(found: Replay) -> dict[str, object]:
    """For programs."""
    return {
        "same": found.difference is None and not found.broken,
        "broken": found.broken,
        "ended": found.ended,
        "commands_digest": found.digest.hex(),
        "checks": found.checks,
        **_figures(found),
        "by_swarm": [
            {
                "swarm": swarm.number,
                "size_bytes": swarm.layout.size_bytes,
                "pieces": swarm.layout.count,
                "pieces_stored_at_peers": swarm.stored_pieces,
                "completed_s": sorted(swarm.completed_s),
            }
            for swarm in found.past.swarms.values()
        ],
    }
