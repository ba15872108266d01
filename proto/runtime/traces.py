"""Spans of what becomes of a client's request, for who collects them by OTLP. Off by default, and then nothing happens.

Attributes are names, sizes and outcomes: no credential, and no query of a URL. Not to be used where nobody asked first
whether it is on.
"""

from __future__ import annotations

from typing import Final

# Of a span that began elsewhere: its trace's id, its own, and whether it is sampled (W3C Trace Context).
CONTEXT_BYTES: Final = 16 + 8 + 1


class Span:
    """One that nobody collects."""

    # CONTEXT_BYTES, by which another program continues the trace; empty: it cannot.
    context: bytes = b""

    def end(self, error: str = "", **attributes: str | int | float) -> None:
        """It is over; at once. `error` says what went wrong."""


class Traces:
    """Collects nothing. Safe from any thread."""

    on = False

    def begin(
        self, name: str, parent: Span | bytes | None = None, *, ns: int | None = None, **attributes: str | int | float
    ) -> Span:
        """A span that began now, or at `ns` Unix nanoseconds."""
        return Span()

    def close(self) -> None:
        """What waits is sent first, for some seconds at most."""
