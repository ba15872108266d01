"""When the supernode is told how full a store is."""

from __future__ import annotations

from peer.node.store_reports import EVERY_MAX_S, EVERY_MIN_S, StoreReports
from proto.wire.messages import StoreReport

EMPTY, FULL = StoreReport(0, 100), StoreReport(100, 100)


def test_a_session_begins_with_a_report() -> None:
    reports = StoreReports()
    assert reports.is_due(EMPTY, 0.0)
    assert not reports.is_due(EMPTY, 1.0)
    reports.forget()
    assert reports.is_due(EMPTY, 2.0)


def test_what_changes_is_told_every_ten_seconds() -> None:
    reports = StoreReports()
    reports.is_due(EMPTY, 0.0)
    assert not reports.is_due(FULL, EVERY_MIN_S - 1)
    assert reports.is_due(FULL, EVERY_MIN_S)


def test_what_stays_is_told_again_once_a_minute() -> None:
    reports = StoreReports()
    reports.is_due(EMPTY, 0.0)
    assert not reports.is_due(EMPTY, EVERY_MAX_S - 1)
    assert reports.is_due(EMPTY, EVERY_MAX_S)
