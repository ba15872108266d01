"""Draws a scenario's runs as SVG: nodes complete over time beside the bounds, and bytes by source. It writes no file.

matplotlib is imported only here, and only when a plot is drawn. Colours are those that Okabe and Ito chose for every
kind of colour vision; lines differ in their dashes too, and areas carry their names.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from benchmarks.report.terminal import seconds, size
from proto.errors import ConfigError
from proto.pieces import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmarks.report.summary import Report
    from benchmarks.results import Mode, ModeRun, Source

_MODES: dict[Mode, tuple[str, str]] = {
    "native": ("#009e73", "dashdot"),
    "torrent": ("#d55e00", "dashed"),
    "scheduled": ("#0072b2", "solid"),
}
# From the bottom of a stack to its top.
_SOURCES: dict[Source, tuple[str, str]] = {
    "origin": ("#e69f00", "origin"),
    "passthrough": ("#999999", "origin, passed through"),
    "seed": ("#cc79a7", "supernode"),
    "peer": ("#56b4e9", "peers"),
}
# Above such a ratio of the longest to the shortest time a linear axis would hide the shortest.
_LINEAR_MAX = 4.0
_GIB = 1024 * MIB


def require_matplotlib() -> None:
    """Raises ConfigError where plots cannot be drawn, so that a long run need not end with it."""
    try:
        import matplotlib  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise ConfigError("plots need matplotlib: pip install 'layercast[plots]'") from error


def draw(report: Report) -> dict[str, str]:
    """Every plot for which the runs have figures: its name, and one SVG element. Raises ConfigError."""
    plots = {}
    finished = [run for run in report.runs if report.completed_s(run)]
    sampled = [run for run in report.runs if run.samples]
    if finished:
        plots["completion"] = _svg("completion", 4.2, lambda figure: _completion(figure, report, finished))
    if sampled:
        plots["sources"] = _svg("sources", 1.2 + 2.1 * len(sampled), lambda figure: _sources(figure, report, sampled))
    return plots


def _svg(name: str, height_in: float, fill: Callable[[Figure], None]) -> str:
    """The same bytes for the same figures: no date in it, and ids from its name."""
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    style = matplotlib.rc_context(
        {
            # Text stays text: small, searchable, in the reader's own font.
            "svg.fonttype": "none",
            "svg.hashsalt": name,
            "font.family": "sans-serif",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "legend.frameon": False,
        }
    )
    written = io.StringIO()
    with style:
        figure = Figure(figsize=(8.0, height_in), layout="constrained")
        fill(figure)
        figure.savefig(written, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    # Without the document type, whose address a strict reader would want to load.
    return re.sub(r"\s+\n", "\n", written.getvalue()[written.getvalue().index("<svg") :])


def _completion(figure: Figure, report: Report, runs: Sequence[ModeRun]) -> None:
    axes, limits = figure.subplots(), report.limits
    times = {run.mode: report.completed_s(run) for run in runs}
    for mode, done_s in times.items():
        colour, dash = _MODES[mode]
        label = f"{mode}: last node at {seconds(done_s[-1])}"
        axes.step([done_s[0], *done_s], range(len(done_s) + 1), where="post", color=colour, ls=dash, lw=2, label=label)
    bounds = [("fluid bound", limits.fluid_s, "solid"), ("piece bound", limits.piece_s, "dotted")]
    if "native" in times:
        bounds.append(("native bound", limits.native_s, "dashed"))
    for name, at_s, dash in bounds:
        axes.axvline(at_s, color="black", ls=dash, lw=1.1, label=f"{name}: {seconds(at_s)}")
    last_s = [limits.fluid_s, *(done_s[-1] for done_s in times.values())]
    axes.set_xlabel("seconds from the first request")
    if max(last_s) > _LINEAR_MAX * min(last_s) > 0.0:
        axes.set_xscale("log")
    else:
        # What lies between the bound and the last node is what the plot is for: it gets three quarters.
        first_s = min(limits.fluid_s, *(done_s[0] for done_s in times.values()))
        margin_s = max(max(last_s) - first_s, 0.05 * max(last_s)) / 3
        axes.set_xlim(max(0.0, first_s - margin_s), max(last_s) + margin_s / 5)
    axes.set_ylabel(f"nodes complete, of {max(map(len, times.values()))}")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper left", ncols=2)


def _sources(figure: Figure, report: Report, runs: Sequence[ModeRun]) -> None:
    rows = figure.subplots(len(runs), squeeze=False)
    for axes, run in zip(rows[:, 0], runs, strict=True):
        _stack(axes, report.scenario.nodes * report.scenario.size_bytes, run)
    rows[-1, 0].set_xlabel("seconds from the first request")


def _stack(axes: Axes, wanted_bytes: int, run: ModeRun) -> None:
    # Where a part of the size was run, bytes are scaled up as its times are.
    series = {
        source: [sample.received_bytes.get(source, 0) / run.size_fraction for sample in run.samples]
        for source in _SOURCES
        if any(sample.received_bytes.get(source) for sample in run.samples)
    }
    if series:
        axes.stackplot(
            [sample.at_s for sample in run.samples],
            *([value / _GIB for value in values] for values in series.values()),
            labels=[f"{_SOURCES[source][1]}: {size(values[-1])}" for source, values in series.items()],
            colors=[_SOURCES[source][0] for source in series],
        )
    copies = f"a copy for each node: {size(wanted_bytes)}"
    axes.axhline(wanted_bytes / _GIB, color="black", lw=1.1, ls="dotted", label=copies)
    axes.set_title(run.mode, loc="left", fontweight="bold")
    axes.set_xlim(0.0, run.samples[-1].at_s or 1.0)
    axes.set_ylim(0.0, 1.05 * wanted_bytes / _GIB)
    axes.set_ylabel("received, GiB")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
