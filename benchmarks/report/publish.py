"""Shows and keeps a scenario's runs, in every form that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.report.document import document
from benchmarks.report.tables import print_report
from benchmarks.report.terminal import write_json
from proto.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.bounds import Bounds
    from benchmarks.figures import ModeRun
    from benchmarks.scenario import Scenario


def check_outputs(
    *, json_path: Path | None = None, html_path: Path | None = None, plots_dir: Path | None = None
) -> None:
    """Before a long run: that what it gives can be kept. Raises ConfigError."""
    for path in (json_path, html_path):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise ConfigError(f"{path}: no file can be written there, its folder must exist")
    if plots_dir is not None and plots_dir.exists() and not plots_dir.is_dir():
        raise ConfigError(f"{plots_dir}: a folder for the plots is needed, this is a file")
    if html_path is not None or plots_dir is not None:
        from benchmarks.report.plots import require_matplotlib

        require_matplotlib()


def publish(
    scenario: Scenario,
    limits: Bounds,
    runs: Sequence[ModeRun],
    *,
    title: str,
    json_path: Path | None = None,
    html_path: Path | None = None,
    plots_dir: Path | None = None,
    links: Mapping[str, object] | None = None,
    more: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Prints the tables and writes what has a path; plots as NAME.svg into `plots_dir`. Gives the JSON document.

    `links` and `more` are document()'s. Raises OSError, and ConfigError for plots without matplotlib.
    """
    print_report(scenario, limits, runs, title=title, links=links)
    content = document(scenario, limits, runs, links=links, more=more)
    if json_path is not None:
        write_json(json_path, content)
    if html_path is None and plots_dir is None:
        return content
    # Only here: they take matplotlib with them.
    from benchmarks.report.page import page
    from benchmarks.report.plots import draw

    plots = draw(scenario, limits, runs)
    if html_path is not None:
        html_path.write_text(page(scenario, limits, runs, plots, title=title, links=links))
    if plots_dir is not None:
        plots_dir.mkdir(parents=True, exist_ok=True)
        for plot in plots:
            (plots_dir / f"{plot.name}.svg").write_text(plot.svg)
    return content
