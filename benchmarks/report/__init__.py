"""How benchmarks show and keep their figures: tables on the terminal, JSON, a page with plots. It measures nothing."""

from __future__ import annotations

from benchmarks.report.document import document, machine, write_json
from benchmarks.report.outputs import Outputs
from benchmarks.report.terminal import console, print_report, print_table

__all__ = ["Outputs", "console", "document", "machine", "print_report", "print_table", "write_json"]
