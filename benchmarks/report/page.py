"""A scenario's runs as one HTML page that needs nothing else: no script, no address. It draws no plot."""

from __future__ import annotations

import re
from html import escape
from string import Template
from typing import TYPE_CHECKING

from benchmarks.report.plots import DARK, FAINT, INK, PAPER
from benchmarks.report.summary import summaries
from benchmarks.report.tables import GROUPS, assumptions, bound_rows, figure_rows, group_rows, remarks
from benchmarks.report.terminal import machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.bounds import Bounds
    from benchmarks.figures import ModeRun
    from benchmarks.report.plots import Plot
    from benchmarks.scenario import Scenario

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; $light }
@media (prefers-color-scheme: dark) { :root { $dark } }
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
       max-width: 60rem; padding: 1.5rem; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { border-bottom: 1px solid var(--faint); font-size: 1.15rem; margin-top: 2.5rem; padding-bottom: .3rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--faint); padding: .3rem 1.2rem .3rem 0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5rem 0 2.5rem; }
figure svg { height: auto; max-width: 100%; width: 100%; }
figcaption { font-size: .9rem; margin-top: .4rem; }
</style>
</head>
<body>
<h1>$title</h1>
<h2>Assumptions</h2>
$assumptions
$results
$remarks
<h2>Plots</h2>
$plots
$tables
<h2>Machine</h2>
$machine
</body>
</html>
""")
# Each colour of the plots as a property of the page, which a dark page sets anew; three are the page's own too.
_NAMES = {colour: f"--colour-{colour[1:]}" for colour in DARK} | {INK: "--ink", FAINT: "--faint", PAPER: "--paper"}


def page(
    scenario: Scenario,
    limits: Bounds,
    runs: Sequence[ModeRun],
    plots: Sequence[Plot],
    *,
    title: str,
    links: Mapping[str, object] | None = None,
) -> str:
    """The whole page; `links` are those given to document()."""
    figures = summaries(scenario, limits, runs)
    results = _table("Results", ("", *(one.run.mode for one in figures)), figure_rows(figures))
    tables = [_table("Physical limits", ("", "time", "x fluid bound"), bound_rows(limits))]
    for one in figures:
        if one.groups:
            name = f"{one.run.mode}: nodes by class and fate, from their own requests"
            tables.append(_table(name, GROUPS, group_rows(one)))
    said = remarks(figures)
    return _PAGE.substitute(
        title=escape(title),
        light=_colours({colour: colour for colour in DARK}),
        dark=_colours(DARK),
        assumptions=_list(assumptions(scenario, limits, links)),
        results=results,
        remarks=f"<h2>Remarks</h2>\n{_list(said)}" if said else "",
        plots="\n".join(_figure(plot) for plot in plots),
        tables="\n".join(tables),
        machine=_list(f"{name.replace('_', ' ')}: {value}" for name, value in machine().items()),
    )


def _colours(shown: Mapping[str, str]) -> str:
    return " ".join(f"{_NAMES[colour]}: {shade};" for colour, shade in shown.items())


def _figure(plot: Plot) -> str:
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", plot.svg)
    for colour, name in _NAMES.items():
        svg = svg.replace(colour, f"var({name})")
    label = escape(plot.caption, quote=True)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return f"<figure>\n{svg}<figcaption>{escape(plot.caption)}</figcaption>\n</figure>"


def _table(name: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<h2>{escape(name)}</h2>\n<div class="scroll"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


def _list(lines: Iterable[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{escape(line)}</li>" for line in lines) + "\n</ul>"
