"""Prometheus text is read as tests ask for it."""

from __future__ import annotations

from benchmarks.cluster.metrics import parse

TEXT = """\
# HELP layercast_bytes_total Payload bytes received, by source.
# TYPE layercast_bytes_total counter
layercast_bytes_total{source="peer"} 100.0
layercast_bytes_total{source="origin"} 20.0
# TYPE layercast_sessions_open gauge
layercast_sessions_open 3
"""


def test_a_sample_is_found_by_its_labels() -> None:
    assert parse(TEXT).value("layercast_bytes_total", source="peer") == 100


def test_without_labels_all_samples_are_summed() -> None:
    assert parse(TEXT).value("layercast_bytes_total") == 120


def test_what_is_not_there_counts_as_nothing() -> None:
    assert parse(TEXT).value("layercast_bytes_total", source="store") == 0
