"""A scenario's runs as one HTML page that needs nothing else: the terminal's own report, and plots. No script."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks.report.document import machine
from benchmarks.report.plots import INK, PAPER
from benchmarks.report.terminal import WIDTH, print_report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.bounds import Bounds
    from benchmarks.report.plots import Plot
    from benchmarks.results import ModeRun
    from benchmarks.scenario import Scenario

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1.5rem; }}
pre {{ font: 14px/1.2 ui-monospace, monospace; overflow-x: auto; }}
figure {{ margin: 2rem 0; max-width: 60rem; }}
figure svg {{ height: auto; width: 100%; }}
</style>
</head>
<body>
<h1>{title}</h1>
{plots}
<pre>{text}</pre>
</body>
</html>
"""


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
    console = Console(file=io.StringIO(), record=True, width=WIDTH)
    print_report(scenario, limits, runs, links=links, console=console)
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in machine().items())
    return _PAGE.format(
        title=escape(title),
        plots="\n".join(_figure(plot) for plot in plots),
        text=escape(f"{console.export_text()}\nmachine: {said}"),
    )


def _figure(plot: Plot) -> str:
    """Inline, with ink and paper of the page around it, be it light or dark."""
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", plot.svg).replace(INK, "currentColor").replace(PAPER, "Canvas")
    label = escape(plot.caption, quote=True)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return f"<figure>\n{svg}<figcaption>{escape(plot.caption)}</figcaption>\n</figure>"
