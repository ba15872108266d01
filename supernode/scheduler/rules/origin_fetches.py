"""Rule 10, the origin once: the supernode asks it for what no live peer has, one fetch a swarm; where that failed, one
elected peer may try for all.

Only decides and keeps count; asking is the shell's. A piece is asked for again only when every copy of it is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler import copies
from supernode.scheduler.contract import ID_BITS, SEED, EndFetch, FetchFromOrigin, OpenOrigin, TryOrigin
from supernode.scheduler.rules import preheats
from supernode.scheduler.story import WHOLE
from supernode.scheduler.timers import TimerKind

if TYPE_CHECKING:
    from supernode.scheduler.contract import PeerOffers
    from supernode.scheduler.records import OriginPlan, Swarm
    from supernode.scheduler.state import State


def missing(state: State, swarm: Swarm, plan: OriginPlan) -> int:
    """Pieces that somebody wants, that no live node holds, or only by a word, and that may be asked for."""
    if plan.recover_peers and state.now < plan.recover_until:
        # Nodes of before a restart may still come back with them, or be asking for them by themselves.
        return 0
    absent = swarm.needed_by_any & ~(swarm.held_by_any & ~swarm.unvouched) & ~swarm.seed.leased
    held = fetching = 0
    for offered, soon, until in plan.offers.values():
        held |= offered
        if state.now < until:
            fetching |= soon
    # What is offered is of use once nothing else is missing: the digest is of the whole.
    return absent & ~(fetching | held) if fetching else absent


def offered(state: State, swarm: Swarm, event: PeerOffers) -> None:
    """A peer has pieces that nobody vouches for, or fetches some by itself."""
    plan = state.plans[swarm.number]
    before = plan.offers.pop(event.peer, (0, 0, 0.0))
    if event.held or event.fetching:
        plan.offers[event.peer] = (event.held, event.fetching, state.now + event.for_s)
    if event.fetching:
        state.timers.set(state.now + event.for_s, TimerKind.SWARM, swarm.number)
    if event.fetching != before[1]:
        text = "peer %d fetches %d pieces by itself, and offers %d"
        values = event.peer, event.fetching.bit_count(), event.held.bit_count()
        state.record(swarm.number, WHOLE, text, *values)
    review(state, swarm)


def review(state: State, swarm: Swarm) -> None:
    """Ask the origin if it is time to; call after anything that can make a piece missing or a wait end."""
    plan = state.plans[swarm.number]
    if plan.fetch_id:
        _make_way(state, swarm, plan)
        return
    if _election_stands(state, swarm, plan):
        return
    if state.now < plan.retry_at:
        return
    wanted = missing(state, swarm, plan)
    if not wanted:
        return
    if swarm.number in state.preheats:
        if preheats.pulls_are_fetched(state):
            return
    else:
        state.pull_fetches = 1
        for preheat in state.preheats.values():
            _end_early(state, preheat, "a pull")
    # Who reads ranges waits for these; all else comes after them.
    wanted = wanted & swarm.asked or wanted
    state.last_fetch += 1
    plan.fetch_id = state.epoch << ID_BITS | state.last_fetch
    plan.asked = wanted
    state.origin_pace.asked(state.now, alone=state.fetches == 0)
    state.fetches += 1
    swarm.fetching = wanted
    swarm.evicted_by_seed &= ~wanted
    copies.refresh_need(swarm.seed)
    state.counters["origin_fetches"] += 1
    state.record(swarm.number, WHOLE, "fetch %x of %d pieces", plan.fetch_id, wanted.bit_count())
    state.commands.append(FetchFromOrigin(plan.fetch_id, swarm.number, wanted))


def _make_way(state: State, swarm: Swarm, plan: OriginPlan) -> None:
    """End the fetch that runs if clients wait for pieces by ranges that it does not bring, or brings much later."""
    if plan.ending or not swarm.fetching & ~swarm.asked:
        return
    urgent = swarm.asked & swarm.needed_by_any & ~swarm.held_by_any & ~swarm.seed.leased
    soon, left = 0, swarm.fetching
    for _ in range(state.settings.range_pieces_soon):
        soon |= left & -left
        left &= left - 1
    if urgent & ~soon:
        _end_early(state, swarm, f"{urgent.bit_count()} pieces")


def _end_early(state: State, swarm: Swarm, other: str) -> None:
    """End the fetch that runs after the piece in hand; what is left is asked for again later."""
    plan = state.plans[swarm.number]
    if plan.fetch_id and not plan.ending:
        plan.ending = True
        state.record(swarm.number, WHOLE, "fetch %x makes way for %s", plan.fetch_id, other)
        state.commands.append(EndFetch(plan.fetch_id, swarm.number))


def timer_due(state: State, swarm: Swarm) -> None:
    """A time that was set for the swarm has come: the end of a wait, or of an elected peer's patience."""
    plan = state.plans[swarm.number]
    if plan.elected is not None and state.now < plan.elected_until:
        state.timers.set(plan.elected_until, TimerKind.SWARM, swarm.number)
    review(state, swarm)


def ended(state: State, swarm: Swarm, ok: bool, retry_after_s: float = 0.0) -> None:
    """The fetch in flight ended. `retry_after_s`: the origin wants to be left alone, and is, by everybody."""
    plan = state.plans[swarm.number]
    left = swarm.fetching
    made_way = plan.ending and not retry_after_s
    plan.fetch_id = 0
    plan.asked = 0
    plan.ending = False
    state.fetches -= 1
    state.origin_pace.pause()
    swarm.fetching = 0
    copies.refresh_need(swarm.seed)
    state.seed.wake()
    state.record(swarm.number, WHOLE, "fetch ended, ok %s, %d pieces left", ok, left.bit_count())
    if made_way:
        pass
    elif ok and not left:
        plan.failures = 0
        plan.retry_at = 0.0
        plan.tried.clear()
        plan.opened = False
    else:
        state.counters["origin_failures"] += 1
        _wait(state, swarm, plan, retry_after_s)
        if not ok and not retry_after_s:
            _elect(state, swarm, plan)
    review(state, swarm)
    review_preheats(state)


def review_preheats(state: State) -> None:
    """A fetch ended, or is a pull's no more: the origin may be asked for preheats now."""
    state.pull_fetches = -1
    if state.preheats and not preheats.pulls_are_fetched(state):
        for preheat in list(state.preheats.values()):
            review(state, preheat)


def _wait(state: State, swarm: Swarm, plan: OriginPlan, at_least_s: float = 0.0) -> None:
    settings = state.settings
    # Bounded before the power: an origin may fail for days.
    delay_s = min(settings.origin_backoff_max_s, settings.origin_backoff_s * 2 ** min(plan.failures, 16))
    plan.failures += 1
    plan.retry_at = state.now + max(delay_s, at_least_s)
    state.timers.set(plan.retry_at, TimerKind.SWARM, swarm.number)


# --- elections -----------------------------------------------------------------------------------------------------


def _election_stands(state: State, swarm: Swarm, plan: OriginPlan) -> bool:
    """Whether an elected peer is at it. One that made no headway is given up for the next."""
    if plan.elected is not None and state.now >= plan.elected_until:
        state.record(swarm.number, WHOLE, "elected %d made no headway", plan.elected)
        plan.elected = None
        _elect(state, swarm, plan)
    return plan.elected is not None


def _elect(state: State, swarm: Swarm, plan: OriginPlan) -> None:
    """Let one wanting peer try, another than before; once enough have failed, all may.

    Nobody is needed for what peers have, if only by a word.
    """
    absent = swarm.full & ~swarm.held_by_any
    if plan.opened or plan.elected is not None or not absent & swarm.needed_by_any:
        return
    candidates = [
        member
        for peer, member in swarm.members.items()
        if peer != SEED and member.wanted and copies.wants(member) & ~member.have and peer not in plan.tried
    ]
    if not candidates and not plan.tried:
        return
    if candidates and len(plan.tried) < state.settings.elections_max:
        reading = [member for member in candidates if member.reader is not None]
        member = state.rng.choice(reading or candidates)
        plan.elected = member.node.peer
        plan.tried.append(plan.elected)
        state.counters["elections"] += 1
        state.record(swarm.number, WHOLE, "elected %d", plan.elected)
        _extend(state, swarm, plan)
        state.commands.append(TryOrigin(swarm.number, plan.elected, absent))
        return
    plan.opened = True
    # All ask for themselves now: the supernode leaves the origin to them for a while.
    _wait(state, swarm, plan)
    state.counters["origins_opened"] += 1
    state.record(swarm.number, WHOLE, "origin open to all")
    state.commands.append(OpenOrigin(swarm.number))


def headway(state: State, swarm: Swarm, peer: int) -> None:
    """A peer stored something that no lease brought: if it is the elected one, its time starts anew."""
    plan = state.plans[swarm.number]
    if plan.elected == peer:
        _extend(state, swarm, plan)


def _extend(state: State, swarm: Swarm, plan: OriginPlan) -> None:
    first = plan.elected_until <= state.now
    plan.elected_until = state.now + state.settings.elected_stall_s
    if first:
        state.timers.set(plan.elected_until, TimerKind.SWARM, swarm.number)


def tried(state: State, swarm: Swarm, peer: int, ok: bool, retry_after_s: float = 0.0) -> None:
    """A peer's attempt ended, or the peer is gone or wants nothing any more (not ok): it counts if it was elected."""
    plan = state.plans[swarm.number]
    if plan.elected != peer:
        return
    plan.elected = None
    plan.elected_until = 0.0
    state.record(swarm.number, WHOLE, "elected %d ended, ok %s", peer, ok)
    if ok:
        plan.tried.clear()
        # What it holds now is there for the asking.
        plan.retry_at = 0.0
    elif retry_after_s:
        _wait(state, swarm, plan, retry_after_s)
    else:
        _elect(state, swarm, plan)
    review(state, swarm)


def forget(state: State, swarm: Swarm) -> None:
    """Nobody wants anything of the swarm any more."""
    plan = state.plans[swarm.number]
    plan.elected = None
    plan.tried.clear()
    plan.opened = False
    plan.recover_peers.clear()
    plan.offers.clear()
