"""Figures on the terminal: a scenario's runs, what was assumed first, without which a ratio means nothing.

A figure that is not known is an empty cell.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.report.summary import quantile, ratio
from proto.pieces import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.report.summary import Group, Report, Summary

# Wide enough for a log file, where there is no terminal to ask.
WIDTH: Final = 120
# For progress and complaints, apart from the figures.
console: Final = Console(stderr=True, highlight=False)

_GROUPS: Final = ("class, fate", "nodes", "complete", "p50", "p99", "bound", "p99 / bound")


def text(value: float | None, form: str, unit: str = "") -> str:
    """In this format, with a unit after it."""
    return "" if value is None else f"{value:{form}}{unit}"


def seconds(value: float | None) -> str:
    """To the millisecond."""
    return text(value, ",.3f", " s")


def size(value: float | None) -> str:
    """In the largest binary unit that is not above it."""
    if value is None:
        return ""
    for unit, unit_bytes in (("GiB", MIB * 1024), ("MiB", MIB), ("KiB", 1024)):
        if value >= unit_bytes:
            return f"{value / unit_bytes:.4g} {unit}"
    return f"{value:.0f} B"


def _rate(bytes_s: float) -> str:
    return f"{bytes_s * 8 / 1e6:g} Mbit/s" if bytes_s else "unlimited"


# The name of each figure and how it is written; times and ratios first.
_FIGURES: Final[tuple[tuple[str, Callable[[Summary], str]], ...]] = (
    ("last node", lambda one: seconds(one.makespan_s)),
    ("p99", lambda one: seconds(one.p99_s)),
    ("p50", lambda one: seconds(one.p50_s)),
    ("p1", lambda one: seconds(one.p1_s)),
    ("(p99 - p1) / p50", lambda one: text(one.spread, ".1%")),
    ("first byte, p50", lambda one: seconds(one.first_byte_p50_s)),
    ("first byte of a layer, p50", lambda one: seconds(one.layer_wait_p50_s)),
    ("last node after the origin's first byte", lambda one: seconds(one.after_origin_s)),
    ("last node / fluid bound", lambda one: text(one.x_fluid, ".3f")),
    ("last node / piece bound", lambda one: text(one.x_piece, ".3f")),
    ("less time than native", lambda one: text(one.reduction_vs_native, ".2%")),
    ("last node / native", lambda one: text(one.x_native, ".3f")),
    ("own time / own bound, p50", lambda one: text(quantile(sorted(one.own_x_bound.values()), 0.5), ".3f")),
    ("own time / own bound, p99", lambda one: text(quantile(sorted(one.own_x_bound.values()), 0.99), ".3f")),
    ("origin bytes / size", lambda one: text(one.origin_x_size, ".3f")),
    ("origin bytes sent twice", lambda one: size(one.run.origin_repeated_bytes)),
    ("origin requests per blob", lambda one: text(one.origin_gets_per_blob, "g")),
    ("sent by the supernode", lambda one: size(one.run.seed_bytes)),
    ("sent by peers", lambda one: size(one.run.peer_bytes)),
    ("after the trouble at its rate again in", lambda one: seconds(one.run.back_at_rate_s)),
    ("cross-rack bytes / (racks x size)", lambda one: text(one.cross_rack_x_minimum, ".3f")),
    ("control bytes", lambda one: size(one.run.control_bytes)),
    ("CPU-seconds per GiB delivered", lambda one: text(one.run.cpu_s_per_gib, ".2f")),
    ("CPU a node and layer", lambda one: text(one.cpu_ms_per_layer, ".1f", " ms")),
    ("cores busy", lambda one: text(one.run.cpu_busy, ".0%")),
    ("of that the kernel's shaped links", lambda one: text(one.run.cpu_network, ".0%")),
    ("memory of a node", lambda one: text(one.run.node_rss_mib, ".0f", " MiB")),
    ("most memory that a node held", lambda one: text(one.run.node_peak_mib, ".0f", " MiB")),
    ("memory of the supernode", lambda one: text(one.run.supernode_rss_mib, ".0f", " MiB")),
    ("nodes not complete, or failed", lambda one: str(one.errors)),
)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], console: Console | None = None
) -> None:
    """The first column is text, the others are figures."""
    table = Table(title=Text(title), title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if number == 0 else "right", no_wrap=number > 0)
    for row in rows:
        table.add_row(*map(Text, row))
    (console or _terminal()).print(table)


def print_report(report: Report, console: Console | None = None) -> None:
    """All figures of all modes."""
    console, figures = console or _terminal(), report.figures
    for line in (*([report.title] if report.title else []), *_assumptions(report)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    print_table("physical limits", ("", "time", "x fluid"), _bound_rows(report), console)
    rows = [(name, *(write(one) for one in figures)) for name, write in _FIGURES]
    # A figure that no mode has is left out.
    known = [row for row in rows if any(row[1:])]
    print_table("results", ("", *(one.run.mode for one in figures)), known, console)
    for one in figures:
        mode, part = one.run.mode, one.run.size_fraction
        if one.groups:
            name = f"{mode}: nodes by class and fate, from their own requests"
            print_table(name, _GROUPS, map(_group_row, one.groups), console)
        if part != 1.0:
            console.print(f"{mode}: run with {part:.4g} of the size, its times scaled up", soft_wrap=True)
        if one.errors:
            complaint = f"{mode}: {one.errors} nodes failed or are not complete; the times are those of the others"
            console.print(complaint, soft_wrap=True)


def _terminal() -> Console:
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH)


def _assumptions(report: Report) -> list[str]:
    """What the figures rest on, a line each: sizes, links as set and as measured, requests and faults."""
    scenario, parts = report.scenario, sum(one.parts for one in report.scenario.classes)
    blobs = f" as {len(scenario.blobs)} blobs, {scenario.parallel} at a time," if len(scenario.blobs) > 1 else ""
    largest = max(scenario.layout(blob).length(0) for blob in range(len(scenario.blobs)))
    ends = [f"origin {_rate(scenario.origin_bytes_s)}", f"supernode {_rate(scenario.supernode_bytes_s)}"]
    for one in scenario.classes:
        share = "" if len(scenario.classes) == 1 else f" ({one.parts} of {parts})"
        down = "" if one.up_bytes_s == one.down_bytes_s else f" up, {_rate(one.down_bytes_s)} down"
        ends.append(f"{one.name}{share} {_rate(one.up_bytes_s)}{down}")
    if scenario.racks:
        ends.append(f"{scenario.racks} racks, trunks of {_rate(scenario.trunk_bytes_s)}, origin and supernode outside")
    ends.append(f"{'declared' if scenario.declared else 'not declared'} to the supernode")
    if report.limits.goodput != 1.0:
        ends.append(f"goodput {report.limits.goodput:.4f} of each")
    pieces = f"{scenario.pieces} pieces of up to {size(largest)}"
    lines = [f"{scenario.nodes} nodes, {size(scenario.size_bytes)}{blobs} in {pieces}", f"links: {'; '.join(ends)}"]
    if report.links:
        lines.append(", ".join(f"{name} {value}" for name, value in report.links.items()))
    for name, section in (("requests", scenario.arrivals), ("origin", scenario.origin), ("faults", scenario.faults)):
        usual = asdict(type(section)())
        unusual = [f"{key} {value:g}" for key, value in asdict(section).items() if value != usual[key]]
        if unusual:
            lines.append(f"{name}: {', '.join(unusual)}")
    return lines


def _bound_rows(report: Report) -> list[tuple[str, ...]]:
    """Each limit, its time, and the time over the fluid bound."""
    limits = report.limits
    bounds: list[tuple[str, float | None]] = [
        ("fluid bound", limits.fluid_s),
        ("piece bound, with the origin's hop", limits.piece_s),
        ("racks' trunks and uplinks", limits.racks_s),
        ("every node from the origin (native)", limits.native_s),
        ("whole blob at the supernode first (torrent)", limits.torrent_s),
    ]
    if len(limits.class_s) > 1:
        bounds += [(f"downlink of {name}", time_s) for name, time_s in limits.class_s.items()]
    found = [
        (name, seconds(at_s), text(ratio(at_s, limits.fluid_s), ".3f")) for name, at_s in bounds if at_s is not None
    ]
    return [*found, ("less time than native, at most", text(limits.reduction_vs_native, ".2%"), "")]


def _group_row(group: Group) -> tuple[str, ...]:
    """The columns of _GROUPS."""
    name = f"{group.class_name}, {group.fate}" if group.fate else group.class_name
    times = (seconds(group.p50_s), seconds(group.p99_s), seconds(group.bound_s))
    return (name, str(group.nodes), str(group.complete), *times, text(group.x_bound, ".3f"))
