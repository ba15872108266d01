"""How benchmarks show and keep their figures: tables on the terminal, JSON, a page with plots. It measures nothing."""

from __future__ import annotations

from benchmarks.report.outputs import Outputs, document, machine, write_json
from benchmarks.report.summary import Report
from benchmarks.report.terminal import console, print_report, print_table

__all__ = ["Outputs", "Report", "console", "document", "machine", "print_report", "print_table", "write_json"]
