"""`layercast top`: what a supernode's cluster does, again and again: swarms, nodes and bytes a second. Reads only."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from peer.cli import metrics_text
from peer.cli.screen import console
from peer.cli.service_reader import SupernodeReader, add_supernode_arguments
from proto.config.settings import argument_type
from proto.config.values import parse_duration, parse_int, within

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from rich.table import Table

_DESCRIPTION: Final = """\
Show what a cluster does, again and again until Ctrl-C: its swarms, its nodes, and how many bytes a second come from
the origins and leave the supernode. With --json each look is one line.
"""
# A screen's.
_SWARMS_SHOWN: Final = 30


@dataclass(frozen=True, slots=True)
class Look:
    """Rates are since the look before, in bytes a second; 0 in the first."""

    sessions: int
    swarms_open: int
    quarantined: int
    origin_bytes_s: float
    sent_bytes_s: float
    swarms: list[dict[str, Any]]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("top", help="what a cluster does now", description=_DESCRIPTION)
    add_supernode_arguments(parser)
    parser.add_argument(
        "--interval", type=argument_type(within(parse_duration, 0.2, 3600.0, "0.2s to 1h")), default="2s",
        metavar="TIME", help="between two looks [default: 2s]",
    )  # fmt: skip
    parser.add_argument(
        "--count", type=argument_type(within(parse_int, 1, 1_000_000, "1 to 1000000")), metavar="N",
        help="look so often, then end [default: until Ctrl-C]",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for programs: a line a look")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns 0 after --count looks, or Ctrl-C. Raises CommandError where the supernode does not answer."""
    reader = SupernodeReader(arguments)
    try:
        found = looks(reader, arguments.interval, arguments.count)
        if arguments.json:
            for look in found:
                print(json.dumps(asdict(look)), flush=True)
        else:
            _show(reader.url, found)
    except KeyboardInterrupt:
        pass
    finally:
        reader.close()
    return 0


def looks(
    reader: SupernodeReader, interval_s: float, count: int | None, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Look]:
    """One after the other. Raises CommandError."""
    before: dict[str, float] = {}
    before_s = 0.0
    number = 0
    while count is None or number < count:
        if number:
            sleep(interval_s)
        status, now_s = reader.json("/v1/status"), time.monotonic()
        after = metrics_text.samples(reader.text("/metrics"))
        span_s = now_s - before_s if before else 0.0
        yield Look(
            status["sessions"],
            status["swarms_open"],
            len(status["quarantined"]),
            _rate(before, after, "layercast_bytes_total source=origin", span_s),
            _rate(before, after, "layercast_uploaded_bytes_total", span_s),
            status["swarms"],
        )
        before, before_s, number = after, now_s, number + 1


def _rate(before: dict[str, float], after: dict[str, float], name: str, span_s: float) -> float:
    """0 across a restart, which begins to count anew."""
    if not span_s:
        return 0.0
    return max(0.0, after.get(name, 0.0) - before.get(name, 0.0)) / span_s


def _show(url: str, found: Iterator[Look]) -> None:
    from rich.live import Live

    screen = console()
    if not screen.is_terminal:
        for look in found:
            screen.print(_table(url, look))
        return
    with Live(console=screen, auto_refresh=False, transient=False) as live:
        for look in found:
            live.update(_table(url, look), refresh=True)


def _table(url: str, look: Look) -> Table:
    from rich.table import Table

    title = (
        f"{url}: {look.sessions} nodes, {look.quarantined} quarantined, {look.swarms_open} swarms; "
        f"{metrics_text.size(look.origin_bytes_s)}/s from origins, {metrics_text.size(look.sent_bytes_s)}/s to nodes"
    )
    table = Table("blob", "size", "seed has", "members", "wanted by", "origin", title=title, title_justify="left")
    for swarm in look.swarms[:_SWARMS_SHOWN]:
        table.add_row(
            str(swarm["digest"])[:19],
            metrics_text.size(swarm["size_bytes"]),
            f"{swarm['seed_pieces']}/{swarm['pieces']}",
            str(swarm["members"]),
            str(swarm["wanted_by"]),
            str(swarm["origin"]),
        )
    return table
