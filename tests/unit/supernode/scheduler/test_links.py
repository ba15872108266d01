"""How many transfers a link gets: one and one ahead, and one more while grants come too late to keep it busy."""

from __future__ import annotations

from supernode.scheduler.link import Link


def _busy_link(gap_s: float, transfers: int) -> Link:
    """A link over which transfers of 1 s end, each granted before the one before it ended and begun `gap_s` after."""
    link = Link(slots=8, declared=None)
    now = 0.0
    for _ in range(transfers):
        granted_at, ready_at = now - 0.5, now
        now += gap_s + 1.0
        link.saw_gap(granted_at, ready_at, 1.0, now)
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
    link = Link(slots=8, declared=None)
    for number in range(10):
        at = 10.0 * number + 5.0
        link.saw_gap(granted_at=at, ready_at=at, elapsed_s=1.0, now=at + 1.5)
    link.chains = 1
    link.used = link.carries = 1000.0
    assert not link.room_now()


def test_idling_while_the_other_end_is_busy_does_not_count() -> None:
    link = Link(slots=8, declared=None)
    for number in range(10):
        link.saw_gap(granted_at=number - 0.5, ready_at=number + 0.4, elapsed_s=0.6, now=number + 1.0)
    link.chains = 1
    link.used = link.carries = 1000.0
    assert not link.room_now()


def test_with_others_to_serve_gaps_count_for_nothing() -> None:
    link = _busy_link(gap_s=0.2, transfers=10)
    link.forget_gap()
    assert not link.room_now()
