"""`layercast-bench fit`: where the time of each lease went in a real run, and the simulator's profile of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import print_table, write_json
from benchmarks.simulator.fit import mean_use, quantile_ms, read_log
from benchmarks.simulator.profile import profile_document
from proto.config.values import parse_rate
from proto.errors import ConfigError, LocalError
from supernode.event_log.format import Reader
from supernode.scheduler.contract import SEED

if TYPE_CHECKING:
    import argparse

    from benchmarks.simulator.fit import Lease, LinkUse, Log

HELP = "where the time of each lease went, from a real run's event log; writes the simulator's profile of it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    add = parser.add_argument
    add("event_log", type=Path, metavar="EVENTLOG", help="what layercast-supernode --event-log FILE recorded")
    add("--goodput", metavar="RATE", help="of each link, to tell what part of it one transfer gets")
    add("--profile", type=Path, metavar="FILE", help="write the profile there, for `layercast-bench sim --profile`")


def run(arguments: argparse.Namespace) -> int:
    """Print, keep. Raises LocalError, ConfigError."""
    goodput = None
    if arguments.goodput is not None:
        try:
            goodput = parse_rate(arguments.goodput)
        except ValueError as error:
            raise ConfigError(f"--goodput {arguments.goodput}: {error}") from None
    path: Path = arguments.event_log
    try:
        with path.open("rb") as file:
            log = read_log(Reader(file, str(path)))
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror}") from None
    _print_steps(log)
    _print_links(log)
    profile = log.profile(goodput)
    if arguments.profile is not None:
        write_json(arguments.profile, profile_document(profile))
    print(
        f"means, ms: a message {profile.control.mean_s * 1000:.2f}, a wake-up {profile.wake.mean_s * 1000:.2f}, with a "
        f"connection {profile.connect.mean_s * 1000:.2f}, a request {profile.request.mean_s * 1000:.2f}; "
        f"{profile.share:.3f} of a link alone"
    )
    return 0


def _print_steps(log: Log) -> None:
    kinds = {
        "waits for nothing, new connection": [one for one in log.leases if one.free and one.connects],
        "waits for nothing": [one for one in log.leases if one.free and not one.connects],
        "ahead at its source": [one for one in log.leases if one.ahead and not one.behind],
        "behind at its receiver": [one for one in log.leases if one.behind and not one.ahead],
        "both": [one for one in log.leases if one.ahead and one.behind],
    }
    columns = ("leases, ms: median (90 %)", "count", "messages", "asked", "answered", "transfer")
    print_table("from grant to report", columns, [_step_row(name, found) for name, found in kinds.items()])


def _step_row(name: str, leases: list[Lease]) -> tuple[str, ...]:
    steps = (
        [one.control_s for one in leases],
        [one.waited_s for one in leases],
        [one.answered_s for one in leases],
        [one.elapsed_s for one in leases],
    )
    return (name, str(len(leases)), *(_middle_and_most(times) for times in steps))


def _middle_and_most(times_s: list[float]) -> str:
    middle, most = quantile_ms(times_s, 0.5), quantile_ms(times_s, 0.9)
    return "" if middle is None or most is None else f"{middle:.1f} ({most:.1f})"


def _print_links(log: Log) -> None:
    rows = [
        ("the seed's uplink", log.up.get(SEED)),
        ("nodes' uplinks", mean_use(use for node, use in log.up.items() if node != SEED)),
        ("nodes' downlinks", mean_use(log.down.values())),
    ]
    columns = ("from its first byte to its last", "idle", "shared", "median gap, ms")
    print_table("links", columns, [_use_row(name, use) for name, use in rows if use is not None])


def _use_row(name: str, use: LinkUse) -> tuple[str, ...]:
    return (name, f"{use.idle_part:.1%}", f"{use.shared_part:.1%}", f"{use.gap_s * 1000:.1f}")
