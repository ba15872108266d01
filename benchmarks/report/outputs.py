"""Where a scenario's runs are kept: the terminal, one JSON document, one page, plots. The flags that say it, a check
before a long run, and the writing after it.
"""

from __future__ import annotations

import io
import json
import math
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console

from benchmarks.report.terminal import WIDTH, print_report
from proto.errors import ConfigError, LocalError

if TYPE_CHECKING:
    import argparse

    from benchmarks.report.summary import Report, Summary

_CPUINFO: Final = Path("/proc/cpuinfo")
# It needs nothing else, and has no script.
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title></head>
<body>
<h1>{title}</h1>
{plots}
<pre>{text}</pre>
</body>
</html>
"""


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

    def publish(self, report: Report) -> None:
        """Print the tables and write the files. Raises LocalError."""
        print_report(report)
        if self.json_path is not None:
            write_json(self.json_path, document(report))
        if self.html_path is None and self.plots_dir is None:
            return
        # Only here: it takes matplotlib with it.
        from benchmarks.report.plots import draw

        plots = draw(report)
        try:
            if self.html_path is not None:
                self.html_path.write_text(_page(report, plots))
            if self.plots_dir is not None:
                self.plots_dir.mkdir(parents=True, exist_ok=True)
                for name, svg in plots.items():
                    (self.plots_dir / f"{name}.svg").write_text(svg)
        except OSError as error:
            raise LocalError(f"the report cannot be written: {error}") from None


def _page(report: Report, plots: Mapping[str, str]) -> str:
    """The plots and the terminal's own report."""
    console = Console(file=io.StringIO(), record=True, width=WIDTH)
    print_report(report, console)
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in machine().items())
    # Within a page an SVG needs no namespaces.
    drawn = "\n".join(re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg) for svg in plots.values())
    text = escape(f"{console.export_text()}\nmachine: {said}")
    return _PAGE.format(title=escape(report.title), plots=drawn, text=text)


def document(report: Report) -> dict[str, object]:
    """The same keys for real and simulated runs. Times in seconds, rates in bytes/s; null is what a run cannot give,
    or an unlimited rate. `reduction_vs_native` is a part of native's time, of the scheduled mode where it ran.
    """
    scenario, limits = report.scenario, report.limits
    compared = report.of("scheduled") or report.of("torrent")
    bounds = _but(asdict(limits), "links", "class_s", "node_s")
    content: dict[str, object] = {
        "nodes": scenario.nodes,
        "size_bytes": scenario.size_bytes,
        "pieces": scenario.pieces,
        "links": {**_links(report), **report.links},
        "bounds": {**bounds, "classes": limits.class_s, "reduction_vs_native": limits.reduction_vs_native},
        "modes": {one.run.mode: _mode(one) for one in report.figures},
        "reduction_vs_native": None if compared is None else compared.reduction_vs_native,
        "scenario": asdict(scenario),
        **report.more,
        "machine": machine(),
    }
    return {key: _finite(value) for key, value in content.items()}


def _links(report: Report) -> dict[str, object]:
    """What the links were set to, and the goodputs that the bounds are computed with."""
    scenario, one = report.scenario, report.scenario.classes[0]
    alike = len(scenario.classes) == 1 and one.up_bytes_s == one.down_bytes_s
    return {
        # Only where all nodes have it, both ways.
        "node_bytes_s": one.up_bytes_s or math.inf if alike else None,
        "origin_bytes_s": scenario.origin_bytes_s or math.inf,
        "supernode_bytes_s": scenario.supernode_bytes_s or math.inf,
        "trunk_bytes_s": scenario.trunk_bytes_s or math.inf if scenario.racks else None,
        "racks": scenario.racks,
        "declared": scenario.declared,
        "goodputs": asdict(report.limits.links),
    }


def _mode(one: Summary) -> dict[str, object]:
    ran = _but(asdict(one.run), "mode", "nodes", "samples", "more")
    own_max = max(one.own_x_bound.values(), default=None)
    return {**ran, **_but(asdict(one), "run"), "own_x_bound_max": own_max, **one.run.more}


def _but(fields: Mapping[str, object], *names: str) -> dict[str, object]:
    """The fields that the document has not in another place or under another name."""
    return {key: value for key, value in fields.items() if key not in names}


def _finite(value: object) -> object:
    """JSON knows no infinity: what nothing limits is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def machine() -> dict[str, object]:
    """What a reader must know of the machine to compare figures."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {
        "processor": fields.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "sha_instructions": "sha_ni" in fields.get("flags", "").split(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Pretty-printed, keys as given. Raises LocalError."""
    try:
        path.write_text(json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise LocalError(f"--json {path}: {error.strerror}") from None
