"""Where a scenario's runs are kept: the flags that say it, a check before a long run, and the writing after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report.document import document, write_json
from benchmarks.report.terminal import print_report
from proto.errors import ConfigError, LocalError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from benchmarks.bounds import Bounds
    from benchmarks.results import ModeRun
    from benchmarks.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Outputs:
    """Files of a report besides what the terminal shows. None: not wanted."""

    json_path: Path | None = None
    html_path: Path | None = None
    plots_dir: Path | None = None

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """The flags."""
        parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
        parser.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page with plots there")
        parser.add_argument("--plots", type=Path, metavar="DIR", help="write the plots there, as SVG")

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Outputs:
        """What the flags ask for. Raises ConfigError where it could not be written after a long run."""
        outputs = cls(arguments.json, arguments.html, arguments.plots)
        outputs.check()
        return outputs

    def check(self) -> None:
        """Raises ConfigError where something could not be written."""
        for path in (self.json_path, self.html_path):
            if path is not None and (path.is_dir() or not path.parent.is_dir()):
                raise ConfigError(f"{path}: no file can be written there, its folder must exist")
        if self.plots_dir is not None and self.plots_dir.exists() and not self.plots_dir.is_dir():
            raise ConfigError(f"{self.plots_dir}: a folder for the plots is needed, this is a file")
        if self.html_path is not None or self.plots_dir is not None:
            from benchmarks.report.plots import require_matplotlib

            require_matplotlib()

    def publish(
        self,
        scenario: Scenario,
        limits: Bounds,
        runs: Sequence[ModeRun],
        *,
        title: str,
        links: Mapping[str, object] | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        """Print the tables and write the files. `links` and `more` are document()'s. Raises LocalError."""
        print_report(scenario, limits, runs, title=title, links=links)
        if self.json_path is not None:
            write_json(self.json_path, document(scenario, limits, runs, links=links, more=more))
        if self.html_path is None and self.plots_dir is None:
            return
        # Only here: they take matplotlib with them.
        from benchmarks.report.page import page
        from benchmarks.report.plots import draw

        plots = draw(scenario, limits, runs)
        try:
            if self.html_path is not None:
                self.html_path.write_text(page(scenario, limits, runs, plots, title=title, links=links))
            if self.plots_dir is not None:
                self.plots_dir.mkdir(parents=True, exist_ok=True)
                for plot in plots:
                    (self.plots_dir / f"{plot.name}.svg").write_text(plot.svg)
        except OSError as error:
            raise LocalError(f"the report cannot be written: {error}") from None
