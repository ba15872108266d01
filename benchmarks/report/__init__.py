"""How benchmarks show and keep their figures: tables on the terminal, JSON, plots and a page. It measures nothing."""

from __future__ import annotations

from benchmarks.report.document import document
from benchmarks.report.publish import check_outputs, publish
from benchmarks.report.tables import print_report
from benchmarks.report.terminal import machine, print_table, write_json

__all__ = ["check_outputs", "document", "machine", "print_report", "print_table", "publish", "write_json"]
