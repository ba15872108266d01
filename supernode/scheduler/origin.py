"""Who asks the origin for what: the supernode for what no live peer has, one fetch a swarm; where it failed, one peer.

Only decides and keeps count; asking is the shell's. A piece is asked for again only when every copy of it is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler.contract import ID_BITS, SEED, FetchFromOrigin, OpenOrigin, TryOrigin
from supernode.scheduler.story import WHOLE
from supernode.scheduler.timers import TimerKind

if TYPE_CHECKING:
    from supernode.scheduler.leases import Core
    from supernode.scheduler.swarm import Swarm


class OriginPlan:
    """How one swarm stands with its origin."""

    __slots__ = (
        "asked",
        "elected",
        "elected_until",
        "failures",
        "fetch_id",
        "once_ready",
        "opened",
        "recover_peers",
        "recover_until",
        "retry_at",
        "tried",
    )

    def __init__(self, once_ready: int, recover_until: float, recover_peers: tuple[int, ...]) -> None:
        # The fetch in flight (0: none) and the pieces it was asked for.
        self.fetch_id = 0
        self.asked = 0
        self.failures = 0
        self.retry_at = 0.0
        self.elected: int | None = None
        self.elected_until = 0.0
        # Peers elected since the origin last failed, in order.
        self.tried: list[int] = []
        self.opened = False
        self.once_ready = once_ready
        self.recover_until = recover_until
        self.recover_peers = dict.fromkeys(recover_peers)

    def recovering(self, now: float) -> bool:
        """Whether nodes may still come back with pieces that were ready before a restart."""
        return bool(self.recover_peers) and now < self.recover_until


def missing(core: Core, swarm: Swarm, plan: OriginPlan) -> int:
    """Pieces that somebody wants, that no live node holds, and that may be asked for."""
    absent = swarm.open_pieces & ~swarm.held_by_any & ~swarm.seed.leased
    if plan.once_ready and plan.recovering(core.now):
        absent &= ~plan.once_ready
    return absent


def review(core: Core, swarm: Swarm, plan: OriginPlan) -> None:
    """Ask the origin if it is time to; call after anything that can make a piece missing or a wait end."""
    if plan.fetch_id:
        return
    if _election_stands(core, swarm, plan):
        return
    if core.now < plan.retry_at:
        return
    wanted = missing(core, swarm, plan)
    if not wanted:
        return
    core.last_fetch += 1
    plan.fetch_id = core.epoch << ID_BITS | core.last_fetch
    plan.asked = wanted
    core.arrivals.asked(core.now, alone=core.fetches == 0)
    core.fetches += 1
    swarm.fetching = wanted
    swarm.evicted_by_seed &= ~wanted
    swarm.refresh_need(swarm.seed)
    core.counters["origin_fetches"] += 1
    core.stories.tell(core.now, swarm.number, WHOLE, "fetch %x of %d pieces", plan.fetch_id, wanted.bit_count())
    core.commands.append(FetchFromOrigin(plan.fetch_id, swarm.number, wanted))


def _election_stands(core: Core, swarm: Swarm, plan: OriginPlan) -> bool:
    """Whether an elected peer is at it. One that made no headway is given up for the next."""
    if plan.elected is not None and core.now >= plan.elected_until:
        core.stories.tell(core.now, swarm.number, WHOLE, "elected %d made no headway", plan.elected)
        plan.elected = None
        elect(core, swarm, plan)
    return plan.elected is not None


def ended(core: Core, swarm: Swarm, plan: OriginPlan, ok: bool) -> None:
    """The fetch in flight ended."""
    left = swarm.fetching
    plan.fetch_id = 0
    plan.asked = 0
    core.fetches -= 1
    core.arrivals.pause()
    swarm.fetching = 0
    swarm.refresh_need(swarm.seed)
    core.wake(swarm.seed.node)
    core.stories.tell(core.now, swarm.number, WHOLE, "fetch ended, ok %s, %d pieces left", ok, left.bit_count())
    if ok and not left:
        plan.failures = 0
        plan.retry_at = 0.0
        plan.tried.clear()
        plan.opened = False
        return
    core.counters["origin_failures"] += 1
    _wait(core, swarm, plan)
    if not ok:
        elect(core, swarm, plan)


def _wait(core: Core, swarm: Swarm, plan: OriginPlan) -> None:
    settings = core.settings
    # Bounded before the power: an origin may fail for days.
    delay_s = min(settings.origin_backoff_max_s, settings.origin_backoff_s * 2 ** min(plan.failures, 16))
    plan.failures += 1
    plan.retry_at = core.now + delay_s
    core.timers.set(plan.retry_at, TimerKind.SWARM, swarm.number)


def elect(core: Core, swarm: Swarm, plan: OriginPlan) -> None:
    """Let one wanting peer try, another than before; once enough have failed, all may."""
    if plan.opened or plan.elected is not None:
        return
    candidates = [
        member
        for peer, member in swarm.members.items()
        if peer != SEED and member.wanted and member.have != swarm.full and peer not in plan.tried
    ]
    if not candidates and not plan.tried:
        return
    if candidates and len(plan.tried) < core.settings.elections_max:
        reading = [member for member in candidates if member.reader is not None]
        member = core.rng.choice(reading or candidates)
        plan.elected = member.node.peer
        plan.tried.append(plan.elected)
        core.counters["elections"] += 1
        core.stories.tell(core.now, swarm.number, WHOLE, "elected %d", plan.elected)
        headway(core, swarm, plan)
        core.commands.append(TryOrigin(swarm.number, plan.elected))
        return
    plan.opened = True
    # All ask for themselves now: the supernode leaves the origin to them for a while.
    _wait(core, swarm, plan)
    core.counters["origins_opened"] += 1
    core.stories.tell(core.now, swarm.number, WHOLE, "origin open to all")
    core.commands.append(OpenOrigin(swarm.number))


def headway(core: Core, swarm: Swarm, plan: OriginPlan) -> None:
    """The elected peer has just begun or stored something: its time starts anew."""
    first = plan.elected_until <= core.now
    plan.elected_until = core.now + core.settings.elected_stall_s
    if first:
        core.timers.set(plan.elected_until, TimerKind.SWARM, swarm.number)


def tried(core: Core, swarm: Swarm, plan: OriginPlan, peer: int, ok: bool) -> None:
    """The elected peer's attempt ended, or the peer is gone or wants nothing any more (not ok)."""
    if plan.elected != peer:
        return
    plan.elected = None
    plan.elected_until = 0.0
    core.stories.tell(core.now, swarm.number, WHOLE, "elected %d ended, ok %s", peer, ok)
    if ok:
        plan.tried.clear()
    else:
        elect(core, swarm, plan)
    review(core, swarm, plan)
