"""From a real supernode's event log: how long each step of each lease took, what links did meanwhile, and a Profile.

The clocks of nodes are not compared: a report says for how long its request waited, for how long the answer, and how
long the transfer took; what is left of the time from grant to report are the two messages. It prints nothing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.simulator.profile import Delay, Profile
from proto.errors import LocalError
from proto.pieces import PieceLayout
from supernode.scheduler import contract
from supernode.scheduler.contract import SEED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from supernode.event_log.format import Reader

PARTS: Final = 20
# Overlaps of less than this part of a transfer are none: ends and beginnings are known by a message's way only.
_ALONE_PART: Final = 0.05


@dataclass(slots=True)
class Lease:
    """One that ended with its piece. Times are seconds of the supernode's clock."""

    source: int
    receiver: int
    size_bytes: int
    ahead: bool
    behind: int
    granted_s: float
    stored_s: float
    waited_s: float
    answered_s: float
    elapsed_s: float
    # The first between these two.
    connects: bool
    # Neither of its links carried anything else meanwhile.
    alone: bool = False
    # Of the time to its answer that in which one of its links carried another: the simulator has that by itself.
    held_up_s: float = 0.0

    @property
    def control_s(self) -> float:
        """The grant's way and the report's."""
        return max(0.0, self.stored_s - self.granted_s - self.waited_s - self.answered_s - self.elapsed_s)

    @property
    def last_s(self) -> float:
        """When its last byte came."""
        return self.stored_s - self.control_s / 2

    @property
    def first_s(self) -> float:
        """When its first byte came."""
        return self.last_s - self.elapsed_s

    @property
    def free(self) -> bool:
        """It waits for no other transfer."""
        return not self.ahead and not self.behind


@dataclass(frozen=True, slots=True)
class LinkUse:
    """What one direction of a node did between its first and its last byte, in parts of that time."""

    idle_part: float
    shared_part: float
    # Median seconds without a byte between two transfers that follow one another; negative where they overlap.
    gap_s: float


@dataclass(slots=True)
class Log:
    """What a log has of one run."""

    leases: list[Lease] = field(default_factory=list)
    up: dict[int, LinkUse] = field(default_factory=dict)
    down: dict[int, LinkUse] = field(default_factory=dict)

    def profile(self, goodput_bytes_s: float | None) -> Profile:
        """Raises LocalError where the log has too little."""
        try:
            warm = [one for one in self.leases if not one.connects and not one.behind]
            alone = [one.size_bytes / one.elapsed_s for one in self.leases if one.alone and one.elapsed_s > 0.0]
            share = min(1.0, median(alone) / goodput_bytes_s) if goodput_bytes_s and alone else 1.0
            return Profile(
                control=Delay.of([one.control_s / 2 for one in self.leases], PARTS),
                wake=Delay.of([one.waited_s for one in warm], PARTS),
                connect=Delay.of([one.waited_s for one in self.leases if one.connects and not one.behind], PARTS),
                request=Delay.of([max(0.0, one.answered_s - one.held_up_s) for one in warm if not one.ahead], PARTS),
                share=round(share, 4),
            )
        except ValueError:
            raise LocalError(
                "the log has too few leases that wait for nothing; record a longer run of several nodes, with this "
                "version at all nodes"
            ) from None


def read_log(reader: Reader) -> Log:
    """All leases that brought their piece, and what links did. Raises LocalError for a damaged file."""
    layouts: dict[int, PieceLayout] = {}
    granted: dict[int, tuple[contract.GrantLease, float]] = {}
    met: set[tuple[int, int]] = set()
    log = Log()
    for record in reader:
        for entry in record.entries:
            if entry is None:
                continue
            event = entry.event
            if isinstance(event, contract.SwarmOpened):
                layouts[event.swarm] = PieceLayout(event.size_bytes, event.piece_size_bytes)
            elif isinstance(event, contract.PieceStored) and event.lease_id in granted:
                grant, at_s = granted.pop(event.lease_id)
                between = (grant.receiver, grant.source)
                if grant.receiver != SEED:
                    size_bytes = layouts[grant.swarm].length(grant.piece)
                    log.leases.append(_lease(grant, at_s, event, entry.now, size_bytes, connects=between not in met))
                met.add(between)
            for command in entry.commands or ():
                if isinstance(command, contract.GrantLease) and not command.inline:
                    granted[command.lease_id] = (command, entry.now)
    _look_at_links(log)
    return log


def _lease(
    grant: contract.GrantLease,
    granted_s: float,
    event: contract.PieceStored,
    stored_s: float,
    size_bytes: int,
    *,
    connects: bool,
) -> Lease:
    return Lease(
        source=grant.source,
        receiver=grant.receiver,
        size_bytes=size_bytes,
        ahead=grant.ahead,
        behind=grant.behind,
        granted_s=granted_s,
        stored_s=stored_s,
        waited_s=event.waited_s,
        answered_s=event.answered_s,
        elapsed_s=event.elapsed_s,
        connects=connects,
    )


def _look_at_links(log: Log) -> None:
    by_source: dict[int, list[Lease]] = defaultdict(list)
    by_receiver: dict[int, list[Lease]] = defaultdict(list)
    for lease in log.leases:
        by_source[lease.source].append(lease)
        by_receiver[lease.receiver].append(lease)
        lease.alone = True
    log.up = {node: _use(leases) for node, leases in by_source.items()}
    log.down = {node: _use(leases) for node, leases in by_receiver.items()}
    for lease in log.leases:
        others = [*by_source[lease.source], *by_receiver[lease.receiver]]
        lease.held_up_s = _held_up_s(lease, others)


def _held_up_s(lease: Lease, others: Iterable[Lease]) -> float:
    """How long the others were on their way between its request and its first byte."""
    held_up_s, until_s = 0.0, lease.first_s - lease.answered_s
    for other in sorted(others, key=lambda one: one.first_s):
        begins_s, ends_s = max(until_s, other.first_s), min(lease.first_s, other.last_s)
        if ends_s > begins_s:
            held_up_s += ends_s - begins_s
            until_s = ends_s
    return held_up_s


def _use(leases: list[Lease]) -> LinkUse:
    """Of the transfers over one link; those that shared it are not alone."""
    leases.sort(key=lambda one: one.first_s)
    idle_s = shared_s = 0.0
    gaps: list[float] = []
    before = leases[0]
    for lease in leases[1:]:
        gap_s = lease.first_s - before.last_s
        gaps.append(gap_s)
        idle_s += max(0.0, gap_s)
        overlap_s = min(before.last_s, lease.last_s) - lease.first_s
        shared_s += max(0.0, overlap_s)
        if overlap_s > _ALONE_PART * min(before.elapsed_s, lease.elapsed_s):
            before.alone = lease.alone = False
        if lease.last_s > before.last_s:
            before = lease
    whole_s = max(1e-9, before.last_s - leases[0].first_s)
    return LinkUse(idle_s / whole_s, shared_s / whole_s, median(gaps) if gaps else 0.0)


def mean_use(uses: Iterable[LinkUse]) -> LinkUse | None:
    """Of several links; None for none."""
    found = list(uses)
    if not found:
        return None
    count = len(found)
    return LinkUse(
        sum(one.idle_part for one in found) / count,
        sum(one.shared_part for one in found) / count,
        median(one.gap_s for one in found),
    )


def quantile_ms(times_s: Sequence[float], part: float) -> float | None:
    """Milliseconds that this part of them does not exceed; None for none."""
    ordered = sorted(times_s)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1000 if ordered else None
