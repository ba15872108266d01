"""Draws a scenario's runs as SVG: nodes complete over time, distance to the bounds, bytes by source. It writes no file.

matplotlib is imported only here, and only when a plot is drawn. Colours are those that Okabe and Ito chose for every
kind of colour vision; lines differ in their dashes too, and bars and areas carry their names.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.report.summary import completed_s, summaries
from benchmarks.report.units import seconds, size
from proto.errors import ConfigError
from proto.pieces import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import LineStyleType

    from benchmarks.bounds import Bounds
    from benchmarks.figures import Mode, ModeRun, Source
    from benchmarks.scenario import Scenario

INK, FAINT, PAPER = "#1f2328", "#d0d7de", "#ffffff"
# Colour and dash of each mode; colour and name of each source, from the bottom of a stack to its top.
_MODES: dict[Mode, tuple[str, LineStyleType]] = {
    "native": ("#009e73", (0, (6, 2, 1, 2))),
    "torrent": ("#d55e00", (0, (6, 2))),
    "scheduled": ("#0072b2", "-"),
}
_SOURCES: dict[Source, tuple[str, str]] = {
    "origin": ("#e69f00", "origin"),
    "passthrough": ("#999999", "origin, passed through"),
    "seed": ("#cc79a7", "supernode"),
    "peer": ("#56b4e9", "peers"),
}
# The same on a dark page.
DARK = {
    INK: "#e6edf3",
    FAINT: "#3d444d",
    PAPER: "#0d1117",
    "#009e73": "#2fc59a",
    "#d55e00": "#ff8c42",
    "#0072b2": "#4aa8e0",
}
# Above such a ratio of the longest to the shortest a linear axis would hide the shortest.
_LINEAR_MAX = 4.0
_GIB = 1024 * MIB
_WIDTH_IN = 8.0


@dataclass(frozen=True, slots=True)
class Plot:
    """`svg` is one element in light colours, with its namespaces, as a file of its own needs them."""

    name: str
    caption: str
    svg: str


def require_matplotlib() -> None:
    """Raises ConfigError where plots cannot be drawn, so that a long run need not end with it."""
    try:
        import matplotlib  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise ConfigError("plots need matplotlib: pip install 'layercast[plots]'") from error


def draw(scenario: Scenario, limits: Bounds, runs: Sequence[ModeRun]) -> tuple[Plot, ...]:
    """Every plot for which the runs have figures. Raises ConfigError without matplotlib."""
    plots = []
    finished = [run for run in runs if completed_s(scenario, run)]
    sampled = [run for run in runs if run.samples]
    if finished:
        plots.append(
            Plot(
                "completion",
                f"{_whose(scenario, finished)} complete over time, and the times that no schedule can beat.",
                _svg("completion", 4.2, lambda figure: _completion(figure, scenario, limits, finished)),
            )
        )
        plots.append(
            Plot(
                "distance",
                "The last node's time over the bounds. A bar begins at 1, the limit of the links: its length is what a"
                " mode leaves unused.",
                _svg("distance", 1.2 + 0.75 * len(finished), lambda figure: _distance(figure, scenario, limits, runs)),
            )
        )
    if sampled:
        plots.append(
            Plot(
                "sources",
                "Bytes that all nodes have received, by where they came from.",
                _svg("sources", 1.2 + 2.1 * len(sampled), lambda figure: _sources(figure, scenario, sampled)),
            )
        )
    return tuple(plots)


def _whose(scenario: Scenario, runs: Sequence[ModeRun]) -> str:
    if max(len(completed_s(scenario, run)) for run in runs) == scenario.nodes:
        return "Nodes"
    return "Nodes, but for those that join late, leave, are slow, corrupt or failed,"


def _svg(name: str, height_in: float, fill: Callable[[Figure], None]) -> str:
    """The same bytes for the same figures: no date in it, and ids from its name."""
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    written = io.StringIO()
    style = matplotlib.rc_context(
        {
            # Text stays text: small, searchable, in the reader's own font.
            "svg.fonttype": "none",
            "svg.hashsalt": name,
            "font.family": "sans-serif",
            "font.size": 10,
            "text.color": INK,
            "axes.edgecolor": FAINT,
            "axes.labelcolor": INK,
            "axes.facecolor": PAPER,
            "figure.facecolor": PAPER,
            "savefig.facecolor": PAPER,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": FAINT,
            "grid.linewidth": 0.6,
            "xtick.color": FAINT,
            "ytick.color": FAINT,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "xtick.minor.size": 0,
            "legend.frameon": False,
            "hatch.linewidth": 0.6,
        }
    )
    with style:
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        fill(figure)
        silent = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", metadata=silent)
    # Without the document type, whose address a strict reader would want to load.
    return re.sub(r"\s+\n", "\n", written.getvalue()[written.getvalue().index("<svg") :])


def _completion(figure: Figure, scenario: Scenario, limits: Bounds, runs: Sequence[ModeRun]) -> None:
    axes = figure.subplots()
    last_s, counts = [limits.fluid_s], []
    for run in runs:
        times = completed_s(scenario, run)
        colour, dash = _MODES[run.mode]
        label = f"{run.mode}: last node at {seconds(times[-1])}"
        axes.step([times[0], *times], range(len(times) + 1), where="post", color=colour, ls=dash, lw=2, label=label)
        last_s.append(times[-1])
        counts.append(len(times))
    lines: list[tuple[str, float, LineStyleType]] = [
        ("fluid bound", limits.fluid_s, "-"),
        ("piece bound", limits.piece_s, (0, (1, 1.5))),
    ]
    if any(run.mode == "native" for run in runs):
        lines.append(("native bound", limits.native_s, (0, (4, 3))))
        last_s.append(limits.native_s)
    for name, at_s, dash in lines:
        axes.axvline(at_s, color=INK, ls=dash, lw=1.1, label=f"{name}: {seconds(at_s)}")
    if max(last_s) > _LINEAR_MAX * min(last_s) > 0.0:
        _log_axis(axes, 0.8 * min(last_s), 1.25 * max(last_s))
        axes.set_xlabel("seconds from the first request (log)")
    else:
        # What lies between the bound and the last node is what the plot is for: it gets three quarters.
        first_s = min(limits.fluid_s, *(completed_s(scenario, run)[0] for run in runs))
        room_s = max(max(last_s) - first_s, 0.05 * max(last_s)) / 3
        axes.set_xlim(max(0.0, first_s - room_s), max(last_s) + room_s / 5)
        axes.set_xlabel("seconds from the first request")
    axes.set_ylim(0, 1.02 * max(counts))
    axes.set_ylabel(f"nodes complete, of {max(counts)}")
    figure.legend(loc="outside upper left", ncols=2)


def _distance(figure: Figure, scenario: Scenario, limits: Bounds, runs: Sequence[ModeRun]) -> None:
    axes = figure.subplots()
    shown = [one for one in summaries(scenario, limits, runs) if one.x_fluid is not None]
    farthest = max((one.x_fluid for one in shown if one.x_fluid is not None), default=1.0)
    for row, one in enumerate(reversed(shown)):
        colour, _ = _MODES[one.run.mode]
        for offset, name, value in ((0.2, "fluid", one.x_fluid), (-0.2, "piece", one.x_piece)):
            if value is None:
                continue
            fill = colour if name == "fluid" else PAPER
            hatch = None if name == "fluid" else "////"
            axes.barh(row + offset, value - 1.0, 0.36, left=1.0, color=fill, edgecolor=colour, hatch=hatch)
            axes.annotate(
                f"{value:.3f} x {name} bound",
                (max(value, 1.0), row + offset),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
            )
    axes.set_yticks(range(len(shown)), [one.run.mode for one in reversed(shown)])
    axes.grid(visible=False, axis="y")
    axes.axvline(1.0, color=INK, lw=1.4)
    # Room at the right for the longest bar's label.
    if farthest > _LINEAR_MAX:
        _log_axis(axes, 1.0, farthest**1.4)
        axes.set_xlabel("last node's time / bound (log)")
    else:
        axes.set_xlim(1.0, 1.0 + 1.4 * max(farthest - 1.0, 0.1))
        axes.set_xlabel("last node's time / bound")


def _sources(figure: Figure, scenario: Scenario, runs: Sequence[ModeRun]) -> None:
    rows = figure.subplots(len(runs), squeeze=False)
    for axes, run in zip(rows[:, 0], runs, strict=True):
        _stack(axes, scenario, run)
    rows[-1, 0].set_xlabel("seconds from the first request")


def _stack(axes: Axes, scenario: Scenario, run: ModeRun) -> None:
    at_s = [sample.at_s for sample in run.samples]
    sources = [source for source in _SOURCES if any(sample.received_bytes.get(source) for sample in run.samples)]
    # Where a part of the size was run, bytes are scaled up as its times are.
    series = [
        [sample.received_bytes.get(source, 0) / run.size_fraction for sample in run.samples] for source in sources
    ]
    labels = [f"{_SOURCES[source][1]}: {size(values[-1])}" for source, values in zip(sources, series, strict=True)]
    scaled = [[value / _GIB for value in values] for values in series]
    if sources:
        axes.stackplot(at_s, *scaled, labels=labels, colors=[_SOURCES[source][0] for source in sources])
    wanted = scenario.nodes * scenario.size_bytes
    axes.axhline(wanted / _GIB, color=INK, lw=1.1, ls=(0, (1, 1.5)), label=f"a copy for each node: {size(wanted)}")
    axes.set_title(run.mode, loc="left", fontweight="bold")
    axes.xaxis.set_major_formatter(lambda value, _place: f"{value:,g}")
    axes.set_xlim(0.0, at_s[-1] or 1.0)
    axes.set_ylim(0.0, 1.05 * wanted / _GIB)
    axes.set_ylabel("received, GiB")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _log_axis(axes: Axes, from_value: float, to_value: float) -> None:
    """Marked at 1, 2 and 5 of each power of ten, in plain figures; at powers of ten alone where that is too many."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(from_value, to_value)
    steps = (1.0, 2.0, 5.0) if to_value < 1000.0 * from_value else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(10.0, subs=steps))
    axes.xaxis.set_major_formatter(lambda value, _place: f"{value:,g}")
    axes.xaxis.set_minor_locator(NullLocator())
