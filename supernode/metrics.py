"""The supernode's Prometheus metrics, beside those of every service."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

from proto.runtime.metrics import ServiceMetrics
from supernode.control.ports import ControlObserver
from supernode.jobs.job import JobState
from supernode.registry_events.event import EventState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from proto.ids import Digest, PeerId

# Longer than a node without a word from its supernode waits, and than a stalled origin is waited for.
STALLED_S: Final = 60.0
EVENT_STATES: Final = tuple(state.value for state in EventState)
EVENT_RESULTS: Final = ("queued", "repeated", "unmatched", "unreadable", "refused", "done", "failed")
JOB_STATES: Final = tuple(state.value for state in JobState)


class Metrics(ServiceMetrics, ControlObserver):
    """Counting only; no digest and no peer is ever a label."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions_open = self._gauge("layercast_sessions_open", "Sessions with peers.")
        self.refused = self._counter("layercast_refused", "Sessions refused or ended, by code.", "code")
        # An alert looks for a rise of it, which a first 1 is not.
        self.refused.labels("version")
        self.joins = self._counter("layercast_joins", "Certificates asked for, by result.", "result")
        for result in ("joined", "renewed"):
            self.joins.labels(result)
        self.seed_unreachable = self._gauge(
            "layercast_seed_unreachable", "Connected nodes that cannot connect to the supernode's port for pieces."
        )
        self.quarantined = self._gauge("layercast_quarantined", "Nodes put aside for corrupt pieces now.")
        self.quarantines = self._counter("layercast_quarantines", "Nodes put aside for corrupt pieces.")
        self.elections = self._counter("layercast_elections", "Nodes that were to ask an origin for all.")
        self.origins_opened = self._counter("layercast_origins_opened", "Blobs that every node was let ask for itself.")
        self.swarms_stalled = self._gauge(
            "layercast_swarms_stalled", f"Swarms that nodes wait for and of which nothing came for {STALLED_S:g} s."
        )
        self.accusations = self._counter(
            "layercast_accusations", "Transfers between peers that failed, by what their receivers said.", "reason"
        )
        for reason in ("busy", "connection", "corrupt", "protocol", "ticket", "timeout"):
            self.accusations.labels(reason)
        self.jobs = self._gauge("layercast_jobs", "Preheat jobs that are known, by state.", "state")
        for state in JOB_STATES:
            self.jobs.labels(state)
        self.events = self._gauge("layercast_registry_events", "Registry events not done with, by state.", "state")
        for state in EVENT_STATES:
            self.events.labels(state)
        self.events_received = self._counter(
            "layercast_registry_events_received", "What became of what registries told.", "result"
        )
        for result in EVENT_RESULTS:
            self.events_received.labels(result)
        for source in ("origin", "peer"):
            self.bytes_received.labels(source)

    def count_jobs(self, states: Iterable[str]) -> None:
        """The state of each job that is known now."""
        counts = Counter(states)
        for state in JOB_STATES:
            self.jobs.labels(state).set(counts[state])

    def count_event(self, result: str, number: int) -> None:
        """So many registry events came to this."""
        self.events_received.labels(result).inc(number)

    def count_events(self, counts: Mapping[str, int]) -> None:
        """How many are in each state now."""
        for state, number in counts.items():
            self.events.labels(state).set(number)

    def sessions_changed(self, count: int) -> None:
        self.sessions_open.set(count)

    def swarms_changed(self, count: int) -> None:
        self.swarms_open.set(count)

    def swarms_silent(self, silent_s: Iterable[float]) -> None:
        """For how long nothing came of each open swarm; infinite where nobody waits for anything."""
        self.swarms_stalled.set(sum(STALLED_S <= each < math.inf for each in silent_s))

    def lease_granted(self, lease_id: int, source: PeerId, receiver: PeerId, *, inline: bool) -> None:
        self.leases.labels("granted").inc()

    def lease_ended(self, lease_id: int, outcome: str) -> None:
        if outcome:
            self.leases.labels(outcome).inc()

    def received_from_peer(self, count_bytes: int) -> None:
        self.bytes_received.labels("peer").inc(count_bytes)

    def node_elected(self) -> None:
        self.elections.inc()

    def origin_opened(self, digest: Digest) -> None:
        self.origins_opened.inc()

    def source_accused(self, reason: str) -> None:
        self.accusations.labels(reason).inc()

    def quarantines_changed(self, count: int, *, began: bool) -> None:
        self.quarantined.set(count)
        if began:
            self.quarantines.inc()

    def digest_checked(self, *, matches: bool) -> None:
        self.digest_checks.labels("ok" if matches else "mismatch").inc()
