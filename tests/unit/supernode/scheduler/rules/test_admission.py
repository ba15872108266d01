"""Rule 2: how many transfers a link gets: one and one ahead, and one more while it is measurably unfilled."""

from __future__ import annotations

from supernode.scheduler.contract import (
    SEED,
    GrantLease,
    PieceEvicted,
)
from supernode.scheduler.records import UP, Direction, Link
from supernode.scheduler.rules import link_rates
from tests.unit.supernode.scheduler.support import PIECE_BYTES, Playbook, grants, mask, only_grant

# A piece takes a second at this rate, and twenty at that of the slow node.
RATE = float(PIECE_BYTES)


SLOW_RATE = RATE / 20


def test_no_source_is_given_a_second_upload_while_another_has_none() -> None:
    play = Playbook()
    play.join(1, 2, 3)
    play.open_at_peers(4)
    play.hold(1, "****")
    play.hold(2, "****")
    assert {lease.source for lease in grants(play.want(3))} == {1, 2}


def _busy_link(gap_s: float, transfers: int) -> Link:
    """A link over which transfers of 1 s end, each granted before the one before it ended and begun `gap_s` after."""
    link = Link(Direction(UP), slots=8, declared=None)
    now = 0.0
    for _ in range(transfers):
        granted_at, ready_at = now - 0.5, now
        now += gap_s + 1.0
        link_rates.note_idle_time(link, granted_at, ready_at, 1.0, now)
    link.chains = 1
    link.used = link.carries = 1000.0
    return link


def test_a_link_that_is_kept_busy_takes_no_further_transfer() -> None:
    assert not _busy_link(gap_s=0.0, transfers=10).room_now()


def test_a_link_that_stands_idle_between_transfers_granted_ahead_takes_one_more() -> None:
    assert _busy_link(gap_s=0.2, transfers=10).room_now()


def test_it_takes_only_one_more() -> None:
    link = _busy_link(gap_s=0.2, transfers=10)
    link.chains = 2
    assert not link.room_now()


def test_idling_for_want_of_a_grant_does_not_count() -> None:
    link = Link(Direction(UP), slots=8, declared=None)
    for number in range(10):
        at = 10.0 * number + 5.0
        link_rates.note_idle_time(link, granted_at=at, ready_at=at, elapsed_s=1.0, now=at + 1.5)
    link.chains = 1
    link.used = link.carries = 1000.0
    assert not link.room_now()


def test_idling_while_the_other_end_is_busy_does_not_count() -> None:
    link = Link(Direction(UP), slots=8, declared=None)
    for number in range(10):
        link_rates.note_idle_time(link, granted_at=number - 0.5, ready_at=number + 0.4, elapsed_s=0.6, now=number + 1.0)
    link.chains = 1
    link.used = link.carries = 1000.0
    assert not link.room_now()


def test_with_others_to_serve_idle_time_counts_for_nothing() -> None:
    link = _busy_link(gap_s=0.2, transfers=10)
    link.idle_part = 0.0
    assert not link.room_now()


def one_source(slow_pieces: int, *, rate: float | None = None, slow_rate: float | None = None) -> Playbook:
    """Node 1 holds a swarm that 3 and 4 may want, and alone another, which nobody else than the slow node 2 wants."""
    play = Playbook()
    play.join(1, 3, 4, rate=rate)
    play.join(2, rate=slow_rate)
    play.open_at_peers(40)
    play.hold(1, "*" * 40)
    everything = "*" * slow_pieces
    play.open(everything, swarm=2)
    play.tell(PieceEvicted(2, SEED, mask(everything)))
    play.hold(1, everything, swarm=2)
    return play


def grants_until(play: Playbook, until_s: float) -> list[tuple[float, GrantLease]]:
    """Leases, with their times, while no transfer ends."""
    found = []
    while (due := play.scheduler.next_wakeup()) is not None and due <= until_s:
        found += [(play.now, lease) for lease in grants(play.wake())]
    play.now = until_s
    return found


def test_nothing_follows_a_slow_transfer_while_a_fast_one_fills_the_link() -> None:
    play = one_source(1, rate=RATE, slow_rate=SLOW_RATE)
    slow = only_grant(play.want(2, swarm=2))
    grants_until(play, 18.5)
    fast = grants(play.want(3))[0]
    assert (slow.source, fast.source, fast.ahead) == (1, 1, False)
    grants_until(play, 19.1)
    # The slow transfer ends in less than a twentieth of its time now, the fast one does not.
    assert grants(play.want(4)) == []


def test_a_link_measured_once_takes_another_beside_a_transfer_to_a_node_known_to_be_slower() -> None:
    play = one_source(1, slow_rate=SLOW_RATE)
    link_rates.learn(play.scheduler.inspect().nodes[1].up, RATE, 1.0, 1.0, 0.0)
    first = only_grant(play.want(2, swarm=2))
    assert [(lease.source, lease.ahead) for lease in grants(play.want(3))][:1] == [(first.source, False)]
