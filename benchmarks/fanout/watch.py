"""What is seen of a run while it lasts: interface counters for the samples, a line for who waits for it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, get_args

from benchmarks.report import console
from benchmarks.results import Sample, Source
from proto.pieces import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.fanout.site import Site, Traffic

SOURCES: Final[tuple[Source, ...]] = get_args(Source)
# Enough for a plot; one reading of 200 interfaces takes 4 ms.
_SAMPLES_AIMED_AT: Final = 100
_PERIOD_MIN_S: Final = 0.25
_PERIOD_MAX_S: Final = 10.0
# Where something happens in mid-run, it is to be seen how soon all is well again.
_PERIOD_TROUBLE_S: Final = 0.5
_LINE_EVERY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Traffic since the barrier; `at_s` after it."""

    at_s: float
    traffic: Traffic


class Watcher:
    """Reads the counters in a thread of its own from `begin` to `end`. Without counters it has no readings.

    `troubled`: something happens in mid-run.
    """

    def __init__(self, site: Site, expected_s: float, *, troubled: bool = False) -> None:
        self._site = site
        period_max_s = _PERIOD_TROUBLE_S if troubled else _PERIOD_MAX_S
        self._period_s = min(period_max_s, max(_PERIOD_MIN_S, expected_s / _SAMPLES_AIMED_AT))
        self._readings: list[Reading] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._first = site.traffic()
        self._began_s = 0.0

    def begin(self, began_s: float) -> None:
        """The barrier fell at this monotonic time."""
        self._began_s = began_s
        if self._first is not None:
            self._thread = threading.Thread(target=self._run, name="watcher")
            self._thread.start()

    def end(self) -> list[Reading]:
        """All readings, the last one taken now."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._read()
        return self._readings

    @property
    def latest(self) -> Reading | None:
        """The last one so far."""
        return self._readings[-1] if self._readings else None

    def rate_bytes_s(self) -> float:
        """What all nodes together received, over the last two readings."""
        if len(self._readings) < 2:
            return 0.0
        before, last = self._readings[-2:]
        received = last.traffic.nodes_received_bytes - before.traffic.nodes_received_bytes
        return received / max(last.at_s - before.at_s, 1e-3)

    def _run(self) -> None:
        while not self._ended.wait(self._period_s):
            self._read()

    def _read(self) -> None:
        traffic = self._site.traffic()
        assert traffic is not None
        assert self._first is not None
        self._readings.append(Reading(time.monotonic() - self._began_s, traffic.since(self._first)))


def samples(
    readings: Sequence[Reading], exact: Mapping[Source, int], completed_s: Sequence[float]
) -> tuple[Sample, ...]:
    """Bytes by source over time: the counters' course, each source scaled to the nodes' own exact total at the end.

    The scale takes out retransmissions and whatever else passed. `completed_s`: of the nodes that are complete.
    """
    if not readings:
        return ()
    last = _counted(readings[-1].traffic)
    found = []
    for reading in readings:
        counted = _counted(reading.traffic)
        received = {one: round(exact.get(one, 0) * counted[one] / last[one]) if last[one] else 0 for one in SOURCES}
        done = sum(1 for at_s in completed_s if at_s <= reading.at_s)
        found.append(Sample(reading.at_s, received, done))
    return tuple(found)


def _counted(traffic: Traffic) -> dict[Source, int]:
    # What left the origin and did not go to the supernode went to nodes.
    direct = max(0, traffic.origin_sent_bytes - traffic.supernode_received_bytes)
    return {
        "origin": direct,
        "seed": traffic.supernode_sent_bytes,
        "peer": traffic.nodes_sent_bytes,
        "passthrough": direct,
    }


class Display:
    """How far a mode is: a line that changes on a terminal, a plain line now and then elsewhere; a context manager."""

    def __init__(self, mode: str, nodes: int) -> None:
        self._mode = mode
        self._nodes = nodes
        self._status = console.status(mode) if console.is_terminal else None
        self._began_s = time.monotonic()
        self._next_line_s = 0.0

    def __enter__(self) -> Display:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def step(self, text: str) -> None:
        """What is being done."""
        if self._status is not None:
            self._status.update(f"{self._mode}: {text}")
        else:
            console.print(f"{self._mode}: {text}", markup=False)

    def show(self, done: int, rate_bytes_s: float | None, origin_bytes: Callable[[], int]) -> None:
        """How far it is."""
        elapsed_s = time.monotonic() - self._began_s
        if self._status is None and elapsed_s < self._next_line_s and done < self._nodes:
            return
        self._next_line_s = elapsed_s + _LINE_EVERY_S
        rate = "" if rate_bytes_s is None else f", {rate_bytes_s * 8 / 1e6:.0f} Mbit/s in all"
        origin = f", origin {origin_bytes() / MIB:.1f} MiB"
        self.step(f"{elapsed_s:.0f} s, {done} of {self._nodes} nodes{rate}{origin}")
