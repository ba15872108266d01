"""Sends traces by OTLP over HTTP, with opentelemetry-sdk: imported where `otlp_endpoint` is set, and nowhere else.

A collector that is away costs spans, one line a minute, and nothing more.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

from proto import VERSION
from proto.errors import ConfigError
from proto.runtime.logs import LogLimit
from proto.runtime.traces import CONTEXT_BYTES, Span, Traces

try:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
except ImportError as error:
    raise ConfigError(f"otlp_endpoint: {error.name} is missing: pip install 'layercast[tracing]'") from None

logger = logging.getLogger(__name__)

_EXPORT_S: Final = 5.0
_CLOSE_S: Final = 2.0
# Some thousand spans of 1 KiB each at most; more are dropped.
_WAITING_MAX: Final = 8192


class OtlpTraces(Traces):
    """To one collector, in a thread. Its headers, as a login, are OTEL_EXPORTER_OTLP_HEADERS in the environment."""

    on = True

    def __init__(self, endpoint: str, ratio: float, program: str, instance: str) -> None:
        names = {"service.name": program, "service.version": VERSION, "service.instance.id": instance}
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)), resource=Resource(names), shutdown_on_exit=False
        )
        self._processor = BatchSpanProcessor(
            _Told(f"{endpoint.rstrip('/')}/v1/traces"), max_queue_size=_WAITING_MAX, schedule_delay_millis=1000
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("layercast", VERSION)
        # Our own line says it, and not as often.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def begin(
        self, name: str, parent: Span | bytes | None = None, *, ns: int | None = None, **attributes: str | int | float
    ) -> Span:
        """See Traces."""
        around = trace.set_span_in_context(_parent(parent)) if parent else None
        return _OtlpSpan(self._tracer.start_span(name, around, attributes=_named(attributes), start_time=ns))

    def close(self) -> None:
        """See Traces."""
        # The library waits for a collector that does not answer as long as that has spans to get, whatever it is told.
        closing = threading.Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)


class _OtlpSpan(Span):
    def __init__(self, span: Any) -> None:
        self.span = span
        found = span.get_span_context()
        self.context = found.trace_id.to_bytes(16) + found.span_id.to_bytes(8) + bytes([int(found.trace_flags)])

    def end(self, error: str = "", **attributes: str | int | float) -> None:
        self.span.set_attributes(_named(attributes))
        if error:
            self.span.set_status(trace.StatusCode.ERROR, error)
        self.span.end()


class _Told:
    """The exporter, and a line where it fails. By its own class' interface, SpanExporter."""

    _failed = LogLimit(lines_max=1)

    def __init__(self, url: str) -> None:
        self._url = url
        self._exporter = OTLPSpanExporter(endpoint=url, timeout=_EXPORT_S)

    def export(self, spans: Any) -> Any:
        found = self._exporter.export(spans)
        if found.name != "SUCCESS":
            self._failed.log(logger, logging.WARNING, "traces_not_sent to=%s count=%d", self._url, len(spans))
        return found

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))


def _parent(parent: Span | bytes) -> Any:
    if isinstance(parent, _OtlpSpan):
        return parent.span
    context = parent if isinstance(parent, bytes) else parent.context
    if len(context) != CONTEXT_BYTES:
        return trace.INVALID_SPAN
    ids = int.from_bytes(context[:16]), int.from_bytes(context[16:24])
    return trace.NonRecordingSpan(
        trace.SpanContext(*ids, is_remote=True, trace_flags=trace.TraceFlags(context[24] & trace.TraceFlags.SAMPLED))
    )


def _named(attributes: dict[str, str | int | float]) -> dict[str, str | int | float]:
    """`http_status` is layercast.http_status to who collects; what has a name in the conventions has that."""
    return {_CONVENTIONS.get(name, f"layercast.{name}"): value for name, value in attributes.items()}


_CONVENTIONS: Final = {
    "method": "http.request.method",
    "path": "url.path",
    "status": "http.response.status_code",
    "agent": "user_agent.original",
}
