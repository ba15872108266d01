"""The least time in which the links of a swarm's nodes could bring what they want. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def least_s(
    bytes_due: int, size_bytes: int, uplinks: Iterable[float], downlinks: Iterable[float], *, seed_alone: float
) -> float | None:
    """Seconds that no schedule can beat, None while no link's rate is known; the swarm alone on its links.

    `bytes_due` is for all nodes together, rates are bytes/s, 0.0 where not known: such a link counts as quick as the
    quickest. `uplinks` are of all that can send, `downlinks` of those that receive. `seed_alone`: the rate at which the
    first copies have to leave the supernode, 0.0 where others had some.
    Kumar and Ross, "Peer-Assisted File Distribution: The Minimum Distribution Time" (2006):
    `max(F/u_s, F/min(d_i), N*F/(u_s + sum(u_i)))`.
    """
    ups = list(uplinks)
    known = [rate for rate in ups if rate]
    slowest = min((rate for rate in downlinks if rate), default=0.0)
    if not known and not slowest:
        return None
    least = size_bytes / slowest if slowest else 0.0
    if known:
        quickest = max(known)
        least = max(least, bytes_due / sum(rate or quickest for rate in ups))
    return max(least, size_bytes / seed_alone) if seed_alone else least
