"""docs/clients.md is what the tests did, and a program that is missing on one machine changes nothing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import clients_table
from tests.support.clients_table import DOCUMENT, RESULTS_VARIABLE, ROWS, marks, note_results, read, split, table

if TYPE_CHECKING:
    from pathlib import Path

ROW = ROWS[0]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(RESULTS_VARIABLE, str(tmp_path))
    return tmp_path


def marked(results: Path, before: str) -> str:
    return marks(results, {ROW: before})[ROW]


def test_the_document_has_every_row_once_and_in_order() -> None:
    _, lines, _ = split(DOCUMENT.read_text())
    assert lines == table(read(lines))


@pytest.mark.parametrize(("how", "before"), [("run", "not run"), ("replayed", "not run"), ("run", "replayed")])
def test_a_test_that_passed_marks_its_row(results: Path, how: str, before: str) -> None:
    note_results([(ROW, how, "passed")])
    assert marked(results, before) == how


def test_without_a_test_a_row_is_not_run_whatever_the_document_says(results: Path) -> None:
    assert marked(results, "run") == "not run"


def test_a_test_that_failed_marks_nothing(results: Path) -> None:
    note_results([(ROW, "run", "failed")])
    assert marked(results, "run") == "not run"


def test_where_its_test_was_skipped_a_row_stays_as_it_is(results: Path) -> None:
    note_results([(ROW, "run", "skipped")])
    note_results([(ROW, "replayed", "passed")])
    assert marked(results, "run") == "run"


def test_a_table_that_differs_is_told(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "clients.md"
    document.write_text("\n".join(["# Clients", "", *table(dict.fromkeys(ROWS, "not run")), "", "end"]) + "\n")
    monkeypatch.setattr(clients_table, "DOCUMENT", document)
    monkeypatch.setattr(clients_table, "ROOT", tmp_path)
    assert clients_table.main("check", str(results)) == 0
    note_results([(ROW, "run", "passed")])
    assert clients_table.main("check", str(results)) == 1
    assert f"| {' | '.join(ROW)} | run |" in capsys.readouterr().out
    assert clients_table.main("write", str(results)) == 0
    assert clients_table.main("check", str(results)) == 0
