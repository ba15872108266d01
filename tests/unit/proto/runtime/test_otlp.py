"""Traces that go to a collector: one that does not answer keeps no service from ending."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult

from benchmarks.cluster.processes import WAIT_S, wait_until
from proto.runtime import otlp

if TYPE_CHECKING:
    import pytest


def test_close_leaves_a_collector_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = threading.Event(), threading.Event()

    def export(_: OTLPSpanExporter, spans: Any) -> SpanExportResult:
        asked.set()
        answers.wait()
        return SpanExportResult.SUCCESS

    monkeypatch.setattr(OTLPSpanExporter, "export", export)
    monkeypatch.setattr(otlp, "_CLOSE_S", 0.05)
    before = set(threading.enumerate())
    traces = otlp.OtlpTraces("http://127.0.0.1:1", 1.0, "test", "one")
    try:
        traces.begin("span").end()
        assert asked.wait(WAIT_S)
        closing = threading.Thread(target=traces.close, daemon=True)
        closing.start()
        closing.join(WAIT_S)
        assert not closing.is_alive()
    finally:
        answers.set()
    wait_until(lambda: set(threading.enumerate()) <= before, "the library's threads have ended")
