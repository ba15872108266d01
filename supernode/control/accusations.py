"""What members say of each other as sources, and whether members that have nothing to do with each other agree. Pure.

One member's word lowers a source's rank for itself alone: it may be its own link that fails, or it may lie. Nobody is
put aside for words; that takes proof, which is verification's to get.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proto.bounded_dict import BoundedDict
from proto.config.values import parse_host_port
from supernode.scheduler.contract import FailReason

if TYPE_CHECKING:
    from proto.ids import PeerId
    from supernode.control.peer_session import PeerInfo

# Older reports do not count.
KEPT_S: Final = 300.0
# Refusals of one member before they count: a source may be busy for good reasons.
REFUSALS_MIN: Final = 5
SOURCES_MAX: Final = 10_000
# Of one source; the last are kept.
ACCUSERS_MAX: Final = 16
_REFUSALS: Final = (FailReason.BUSY, FailReason.TICKET)


@dataclass(slots=True)
class _Accuser:
    """All members at one address count as one, and so do those of one rack."""

    rack: str
    times: int
    as_of_s: float


@dataclass(slots=True)
class Accusations:
    """Times are monotonic seconds."""

    _by_source: BoundedDict[PeerId, BoundedDict[str, _Accuser]] = field(
        default_factory=lambda: BoundedDict(SOURCES_MAX)
    )

    def judge(self, source: PeerId, accuser: PeerInfo, reason: FailReason, now_s: float) -> FailReason:
        """What a member's report of a failed transfer is worth: a fault for all, or an affair of these two."""
        against = self._by_source[source] = self._by_source.get(source) or BoundedDict(ACCUSERS_MAX)
        host = parse_host_port(accuser.address).host
        before = against.get(host)
        times = before.times if before is not None and now_s - before.as_of_s < KEPT_S else 0
        mine = against[host] = _Accuser(accuser.zone, times + 1, now_s)
        needed = REFUSALS_MIN if reason in _REFUSALS else 1
        agreed = mine.times >= needed and any(
            other is not mine and _apart(other.rack, mine.rack) and other.times >= needed
            for other in against.values()
            if now_s - other.as_of_s < KEPT_S
        )
        if reason in _REFUSALS:
            return FailReason.PROTOCOL if agreed else reason
        return _WITHOUT_PROOF.get(reason, reason) if agreed else FailReason.DISPUTED

    def served(self, source: PeerId, receiver: PeerInfo) -> None:
        """A member got a piece from it: what was said at that address before is over."""
        against = self._by_source.get(source)
        if against is not None:
            against.pop(parse_host_port(receiver.address).host, None)
            if not against:
                del self._by_source[source]


# Whether the bytes were corrupt is for the seed to find out.
_WITHOUT_PROOF: Final = {FailReason.CORRUPT: FailReason.PROTOCOL}


def _apart(rack: str, other: str) -> bool:
    """Neither names the rack of the other."""
    return not rack or rack != other
