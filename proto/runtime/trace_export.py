"""Where a service's traces go: nowhere by default, and then nothing that sends them is imported."""

from __future__ import annotations

from proto.runtime.traces import Traces


def open_traces(endpoint: str | None, ratio: float, program: str, instance: str) -> Traces:
    """Those that are sent to this URL's /v1/traces; `ratio` of the client requests. Raises ConfigError."""
    if endpoint is None:
        return Traces()
    from proto.runtime.otlp import OtlpTraces

    return OtlpTraces(endpoint, ratio, program, instance)
