"""What a run's control by datagram came to, from the programs' own counters. It counts no bytes and starts nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from proto.datagram_metrics import DATAGRAM_EVENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.harness.metrics import Metrics

_ROUND_TRIP = "layercast_datagram_round_trip_seconds"


@dataclass(frozen=True, slots=True)
class Datagrams:
    """Of the supernode and all nodes together; `round_trip_s` is the mean, None where none was measured."""

    sent: int
    copied: int
    websocket: int
    round_trip_s: float | None

    def remark(self) -> str:
        """A line for the reader."""
        shown = "none measured" if self.round_trip_s is None else f"{1000 * self.round_trip_s:.0f} ms"
        return (
            f"control by datagram: {self.sent} sent, {self.copied} of them a second copy, {self.websocket} frames lost"
            f" to the WebSocket; mean round trip {shown}"
        )

    def figures(self) -> dict[str, object]:
        """For the JSON document."""
        return asdict(self)


def datagrams(scrapes: Sequence[Metrics]) -> Datagrams:
    """From a scrape of each program."""
    counts = {
        event: int(sum(one.value("layercast_datagrams_total", event=event) for one in scrapes))
        for event in DATAGRAM_EVENTS
    }
    measured = sum(one.value(f"{_ROUND_TRIP}_count") for one in scrapes)
    total_s = sum(one.value(f"{_ROUND_TRIP}_sum") for one in scrapes)
    return Datagrams(**counts, round_trip_s=total_s / measured if measured else None)
