"""Figures on the terminal: a scenario's runs, what was assumed first, without which a ratio means nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.report.summary import quantile, ratio, summaries
from benchmarks.report.units import rate, seconds, size, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchmarks.bounds import Bounds
    from benchmarks.report.summary import Summary
    from benchmarks.results import ModeRun
    from benchmarks.scenario import Scenario

# Wide enough for a log file, where there is no terminal to ask.
WIDTH: Final = 120
# For progress and complaints, apart from the figures.
console: Final = Console(stderr=True, highlight=False)

Row = tuple[str, ...]

_GROUPS: Final = ("class, fate", "nodes", "complete", "p50", "p99", "bound", "p99 / bound")
# The name of each figure and how it is written; times and ratios first.
_FIGURES: Final[tuple[tuple[str, Callable[[Summary], str]], ...]] = (
    ("last node", lambda one: seconds(one.makespan_s)),
    ("p99", lambda one: seconds(one.p99_s)),
    ("p50", lambda one: seconds(one.p50_s)),
    ("p1", lambda one: seconds(one.p1_s)),
    ("(p99 - p1) / p50", lambda one: text(one.spread, ".1%")),
    ("first byte, p50", lambda one: seconds(one.first_byte_p50_s)),
    ("last node after the origin's first byte", lambda one: seconds(one.after_origin_s)),
    ("last node / fluid bound", lambda one: text(one.x_fluid, ".3f")),
    ("last node / piece bound", lambda one: text(one.x_piece, ".3f")),
    ("less time than native", lambda one: text(one.reduction_vs_native, ".2%")),
    ("own time / own bound, p50", lambda one: text(_own(one, 0.5), ".3f")),
    ("own time / own bound, p99", lambda one: text(_own(one, 0.99), ".3f")),
    ("origin bytes / size", lambda one: text(one.origin_x_size, ".3f")),
    ("origin bytes sent twice", lambda one: size(one.run.origin_repeated_bytes)),
    ("origin requests per blob", lambda one: text(one.origin_gets_per_blob, "g")),
    ("sent by the supernode", lambda one: size(one.run.seed_bytes)),
    ("sent by peers", lambda one: size(one.run.peer_bytes)),
    ("cross-rack bytes / (racks x size)", lambda one: text(one.cross_rack_x_minimum, ".3f")),
    ("control bytes", lambda one: size(one.run.control_bytes)),
    ("CPU-seconds per GiB delivered", lambda one: text(one.run.cpu_s_per_gib, ".2f")),
    ("cores busy", lambda one: text(one.run.cpu_busy, ".0%")),
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


def print_report(
    scenario: Scenario,
    limits: Bounds,
    runs: Sequence[ModeRun],
    *,
    title: str = "",
    links: Mapping[str, object] | None = None,
    console: Console | None = None,
) -> None:
    """All figures of all modes; `links` are those given to document()."""
    console = console or _terminal()
    figures = summaries(scenario, limits, runs)
    for line in (*([title] if title else []), *_assumptions(scenario, limits, links)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    print_table("physical limits", ("", "time", "x fluid"), _bound_rows(limits), console)
    print_table("results", ("", *(one.run.mode for one in figures)), _figure_rows(figures), console)
    for one in figures:
        if one.groups:
            name = f"{one.run.mode}: nodes by class and fate, from their own requests"
            print_table(name, _GROUPS, _group_rows(one), console)
    for line in _remarks(figures):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _terminal() -> Console:
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH)


def _assumptions(scenario: Scenario, limits: Bounds, links: Mapping[str, object] | None) -> list[str]:
    """What the figures rest on, a line each: sizes, links as set and as measured, requests and faults."""
    blobs = f" as {len(scenario.blobs)} blobs, {scenario.parallel} at a time," if len(scenario.blobs) > 1 else ""
    largest = max(scenario.layout(blob).length(0) for blob in range(len(scenario.blobs)))
    pieces = f"{scenario.pieces} pieces of up to {size(largest)}"
    lines = [f"{scenario.nodes} nodes, {size(scenario.size_bytes)}{blobs} in {pieces}"]
    goodputs = limits.links
    ends = [
        f"origin {rate(scenario.origin_bytes_s, goodputs.origin_bytes_s)}",
        f"supernode {rate(scenario.supernode_bytes_s, goodputs.supernode_bytes_s)}",
    ]
    parts = sum(one.parts for one in scenario.classes)
    for one in scenario.classes:
        up, down = goodputs.classes[one.name]
        ways = rate(one.up_bytes_s, up)
        if (one.up_bytes_s, up) != (one.down_bytes_s, down):
            ways = f"up {ways}, down {rate(one.down_bytes_s, down)}"
        share = "" if len(scenario.classes) == 1 else f" ({one.parts} of {parts})"
        ends.append(f"{one.name}{share} {ways}")
    lines.append(f"links: {'; '.join(ends)}; {'declared' if scenario.declared else 'not declared'} to the supernode")
    if goodputs.trunk_bytes_s is not None:
        trunk = rate(scenario.trunk_bytes_s, goodputs.trunk_bytes_s)
        lines.append(f"{scenario.racks} racks, each behind a trunk of {trunk} each way; origin and supernode outside")
    if links:
        lines.append(", ".join(f"{name} {value}" for name, value in links.items()))
    for name, section in (("requests", scenario.arrivals), ("origin", scenario.origin), ("faults", scenario.faults)):
        usual = asdict(type(section)())
        unusual = [f"{key} {value:g}" for key, value in asdict(section).items() if value != usual[key]]
        if unusual:
            lines.append(f"{name}: {', '.join(unusual)}")
    return lines


def _bound_rows(limits: Bounds) -> list[Row]:
    """Each limit, its time, and the time over the fluid bound."""
    bounds: list[tuple[str, float | None]] = [
        ("fluid bound", limits.fluid_s),
        ("piece bound, with the origin's hop", limits.piece_s),
        ("racks' trunks and uplinks", limits.racks_s),
        ("every node from the origin (native)", limits.native_s),
        ("whole blob at the supernode first (torrent)", limits.torrent_s),
    ]
    if len(limits.class_s) > 1:
        bounds.extend((f"downlink of {name}", time_s) for name, time_s in limits.class_s.items())
    rows: list[Row] = [
        (name, seconds(time_s), text(ratio(time_s, limits.fluid_s), ".3f"))
        for name, time_s in bounds
        if time_s is not None
    ]
    if limits.reduction_vs_native is not None:
        rows.append(("less time than native, at most", f"{limits.reduction_vs_native:.2%}", ""))
    return rows


def _figure_rows(figures: Sequence[Summary]) -> list[Row]:
    """A row a figure, a column a mode; a figure that no mode has is left out."""
    rows = [(name, *(write(one) for one in figures)) for name, write in _FIGURES]
    return [row for row in rows if any(row[1:])]


def _group_rows(one: Summary) -> list[Row]:
    """The columns of _GROUPS."""
    return [
        (
            f"{group.class_name}, {group.fate}" if group.fate else group.class_name,
            str(group.nodes),
            str(group.complete),
            seconds(group.p50_s),
            seconds(group.p99_s),
            seconds(group.bound_s),
            text(group.x_bound, ".3f"),
        )
        for group in one.groups
    ]


def _remarks(figures: Sequence[Summary]) -> list[str]:
    """What the reader must know beyond the figures, a line each."""
    lines = []
    for one in figures:
        run = one.run
        if run.size_fraction != 1.0:
            lines.append(f"{run.mode}: run with {run.size_fraction:.4g} of the size, its times scaled up")
        if one.errors:
            lines.append(
                f"{run.mode}: {one.errors} nodes failed or are not complete; the times are those of the others"
            )
    return lines


def _own(one: Summary, part: float) -> float | None:
    ratios = sorted(each.x_bound for each in one.own if each.x_bound is not None)
    return quantile(ratios, part) if ratios else None
