"""Rule 1: what follows what, when it is decided, and how long a receiver has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from supernode.scheduler import contract
from supernode.scheduler.contract import CancelLease, FailReason
from supernode.scheduler.machine import Scheduler
from supernode.scheduler.rules import just_in_time
from supernode.scheduler.settings import SchedulerSettings
from tests.unit.supernode.scheduler.support import PIECE_BYTES, Playbook, grants, only_grant

if TYPE_CHECKING:
    from supernode.scheduler.records import Lease

# Of every node and the seed: a piece takes a second.
RATE = float(PIECE_BYTES)


def test_a_lone_reader_has_one_transfer_and_one_ahead() -> None:
    play = Playbook()
    play.join(1)
    play.open("...")
    play.want(1)
    first = only_grant(play.seed_gets(0))
    second = only_grant(play.seed_gets(1, after_s=0.9))
    assert (first.ahead, second.ahead) == (False, True)
    assert play.seed_gets(2, after_s=0.05) == []
    third = only_grant(play.stored(first, elapsed_s=1.0))
    assert (third.piece, third.ahead) == (2, True)


def test_after_a_time_out_the_node_gets_twice_the_time() -> None:
    play = Playbook()
    play.join(1)
    play.open("*")
    first = only_grant(play.want(1))
    play.wake_until(CancelLease)
    again = play.wake_until(contract.GrantLease)
    assert isinstance(again, contract.GrantLease)
    assert again.expires_in_s == 2 * first.expires_in_s


def test_a_receiver_whose_word_proves_nothing_is_given_longer_too() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open_at_peers(1)
    play.hold(1, "*")
    play.has_served(1)
    first = only_grant(play.want(2))
    play.tell(contract.FetchFailed(first.lease_id, FailReason.DISPUTED))
    again = play.wake_until(contract.GrantLease)
    assert isinstance(again, contract.GrantLease)
    assert again.expires_in_s == 2 * first.expires_in_s


def test_a_lease_names_the_one_that_it_follows_at_its_receiver() -> None:
    play = Playbook()
    play.join(1, 2, 3, rate=RATE)
    play.open_at_peers(2)
    play.hold(1, "* ")
    play.hold(2, " *")
    first, second = grants(play.want(3))
    assert (first.source, first.behind) == (1, 0)
    assert (second.source, second.behind, second.ahead) == (2, first.lease_id, False)


def test_what_follows_from_the_same_source_waits_there_alone() -> None:
    play = Playbook()
    play.join(1, 3, rate=RATE)
    play.open_at_peers(2)
    play.hold(1, "**")
    first, second = grants(play.want(3))
    assert (first.ahead, first.behind) == (False, 0)
    assert (second.ahead, second.behind) == (True, 0)


def test_a_slow_origin_gives_the_first_transfer_no_more_time() -> None:
    play = Playbook(Scheduler(seed=1, epoch=1, seed_upload_slots=4))
    play.join(1)
    play.open("..")
    play.want(1)
    lease = only_grant(play.seed_gets(0, after_s=600.0))
    assert lease.expires_in_s == SchedulerSettings().expiry_unknown_s


def slow_to_react(reaction_s: float) -> Playbook:
    """A grant takes so long to become a transfer, and a piece takes a second."""
    settings = SchedulerSettings(reaction_s=reaction_s, reaction_part=1.0)
    return Playbook(Scheduler(seed=1, epoch=1, settings=settings, seed_upload_slots=8))


def test_where_a_grant_takes_longer_than_a_transfer_several_wait_behind_one_another() -> None:
    play = slow_to_react(2.5)
    play.join(1, 3, rate=RATE)
    play.open_at_peers(5)
    play.hold(1, "*****")
    first, *waiting = grants(play.want(3))
    assert [lease.ahead for lease in (first, *waiting)] == [False, True, True]
    (fourth,) = grants(play.wake())
    # It will begin three seconds after the first, and takes 2.5 s to.
    assert play.now == 0.5
    assert fourth.ahead


def test_one_that_others_follow_already_while_it_waits_has_a_deadline_once_it_runs() -> None:
    play = slow_to_react(2.5)
    play.join(1, 3, rate=RATE)
    play.open_at_peers(5)
    play.hold(1, "*****")
    first, second, *_ = grants(play.want(3)) + grants(play.wake())
    play.stored(first, elapsed_s=1.0)
    ended = set()
    while second.lease_id not in ended:
        cancelled = play.wake_until(CancelLease)
        assert isinstance(cancelled, CancelLease)
        ended.add(cancelled.lease_id)


@dataclass
class Waiting:
    """A lease that waits for two others, or runs; how often it was looked at counts for all."""

    number: int
    before: tuple[Waiting, ...]
    looks: list[int]
    duration_s: float = 1.0
    inline: bool = False
    due_s: float = -1.0

    @property
    def started_at(self) -> float | None:
        self.looks.append(self.number)
        return None if self.before else 0.0


def test_when_a_waiting_transfer_will_be_over_is_told_by_one_look_at_each_before_it() -> None:
    state, looks = slow_to_react(3.0).scheduler.inspect(), list[int]()
    row = Waiting(1, (), looks), Waiting(2, (), looks)
    # Over two links a million ways lead to the first two.
    for number in range(3, 43, 2):
        row = Waiting(number, row, looks), Waiting(number + 1, row, looks)
    just_in_time.await_turn(state, cast("Lease", row[0]))
    assert state.timers.next_due() == row[0].due_s
    assert len(looks) <= 4 * 42


def test_a_piece_is_asked_for_before_the_one_before_it_begins_where_that_is_over_first() -> None:
    play = slow_to_react(1.2)
    play.join(1, 2, 4, 3, rate=RATE)
    play.open_at_peers(3)
    for peer, held in ((1, "*  "), (2, " * "), (4, "  *")):
        play.hold(peer, held)
    first, second, third = grants(play.want(3)) + grants(play.wake())
    # Its answer takes longer than half of the first transfer, the most that a receiver asks ahead by itself.
    assert (first.behind, second.behind) == (0, 0)
    assert third.behind == first.lease_id


def test_what_a_grant_takes_is_learned_and_one_stall_counts_for_little() -> None:
    play = slow_to_react(0.002)
    play.join(1, 2, 3, rate=RATE)
    play.open_at_peers(4)
    play.hold(1, "****")
    state = play.scheduler.inspect()
    play.tell(contract.PieceStored(1, 2, 0, only_grant(play.want(2)[:1]).lease_id, 1.0), after_s=61.0)
    assert state.reaction_s < 0.01
