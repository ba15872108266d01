"""UploadTurns: who is served next, who waits and who is refused, so that nobody takes more than their share."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from peer.transport.upload_turns import (
    BESIDE_SLOW_FACTOR,
    QUESTIONS_WAITING_MAX,
    SHARE_AFTER_S,
    Turn,
    UploadTurns,
)
from proto.ids import PeerId


def turn(address: str = "10.0.0.1", peer: int = 1, *, ahead: bool = False, asked_s: float = 0.0) -> Turn:
    return Turn(address, PeerId(bytes([peer]) * 32), asked_s, ahead)


def running(turns: UploadTurns, *asked: Turn) -> None:
    """All of them are being served."""
    for each in asked:
        assert turns.ask(each) is None
        assert turns.take() is each


def test_one_that_alone_asks_gets_every_slot() -> None:
    turns = UploadTurns(slots=3, queue_max=1)
    running(turns, turn(), turn(), turn())


def test_beyond_slots_and_queue_it_is_refused() -> None:
    turns = UploadTurns(slots=1, queue_max=1)
    running(turns, turn())
    waits, refused = turn(), turn()
    assert turns.ask(waits) is None
    assert turns.ask(refused) is refused
    assert len(turns) == 2


def test_a_full_queue_is_shared_among_addresses() -> None:
    turns = UploadTurns(slots=1, queue_max=2)
    running(turns, turn("10.0.0.1"))
    first, last = turn("10.0.0.1"), turn("10.0.0.1")
    turns.ask(first)
    turns.ask(last)
    other = turn("10.0.0.2", peer=2)
    assert turns.ask(other) is last
    turns.over(first)
    assert turns.take() is None
    assert not turns.ready


def test_at_one_address_the_queue_is_shared_among_peers() -> None:
    turns = UploadTurns(slots=1, queue_max=2)
    running(turns, turn(peer=1))
    greedy = [turn(peer=1), turn(peer=1)]
    for each in greedy:
        turns.ask(each)
    assert turns.ask(turn(peer=2)) is greedy[1]


def test_who_holds_fewer_slots_is_served_first() -> None:
    turns = UploadTurns(slots=2, queue_max=4)
    busy = turn("10.0.0.1"), turn("10.0.0.1")
    running(turns, *busy)
    again, other = turn("10.0.0.1"), turn("10.0.0.2", peer=2)
    turns.ask(again)
    turns.ask(other)
    turns.over(busy[0])
    assert turns.take() is other


def test_a_request_ahead_waits_for_the_end_of_a_transfer() -> None:
    turns = UploadTurns(slots=2, queue_max=0)
    first, ahead = turn(), turn(ahead=True)
    running(turns, first)
    assert turns.ask(ahead) is None
    assert turns.take() is None
    turns.over(first)
    assert turns.take() is ahead


def test_a_request_ahead_begins_at_once_where_nothing_is_under_way() -> None:
    turns = UploadTurns(slots=1, queue_max=0)
    running(turns, turn(ahead=True))


def test_requests_ahead_take_no_slot_and_no_place_from_others() -> None:
    turns = UploadTurns(slots=8, queue_max=8)
    running(turns, turn())
    for _ in range(15):
        assert turns.ask(turn(ahead=True)) is None
    running(turns, *(turn("10.0.0.2", peer=2) for _ in range(7)))


def test_questions_are_answered_beside_transfers_whatever_they_take() -> None:
    turns = UploadTurns(slots=1, queue_max=0)
    running(turns, turn())
    question = Turn("10.0.0.2", PeerId(bytes(32)), 0.0, question=True)
    running(turns, question)
    assert turns.ask(turn(ahead=True)) is None
    turns.over(question)
    assert turns.take() is None


def test_questions_are_bounded_and_shared_among_addresses() -> None:
    turns = UploadTurns(slots=1, queue_max=0)
    greedy = [Turn("10.0.0.1", PeerId(bytes(32)), 0.0, question=True) for _ in range(200)]
    refused = [each for each in greedy if turns.ask(each) is not None]
    assert len(turns) == QUESTIONS_WAITING_MAX
    assert len(refused) == 200 - QUESTIONS_WAITING_MAX
    assert turns.ask(Turn("10.0.0.2", PeerId(bytes(32)), 0.0, question=True)) in greedy


def test_a_trickle_is_no_end_to_wait_for() -> None:
    turns = UploadTurns(slots=2, queue_max=0)
    trickle, ahead = turn(), turn("10.0.0.2", ahead=True)
    running(turns, trickle)
    turns.ask(ahead)
    trickle.slow = True
    assert turns.look(1.0) is None
    assert turns.take() is ahead


def test_slow_transfers_leave_their_slots_to_others_but_not_without_end() -> None:
    turns = UploadTurns(slots=1, queue_max=1)
    for _ in range(BESIDE_SLOW_FACTOR):
        slow = turn()
        running(turns, slow)
        slow.slow = True
    turns.ask(turn())
    assert not turns.ready


def test_one_that_waits_gets_a_slot_of_whoever_holds_many() -> None:
    turns = UploadTurns(slots=3, queue_max=3)
    greedy = [turn("10.0.0.1", asked_s=1.0), turn("10.0.0.1", asked_s=2.0)]
    running(turns, *greedy, turn("10.0.0.3", peer=3))
    turns.ask(turn("10.0.0.2", peer=2, asked_s=3.0))
    assert turns.look(3.0 + SHARE_AFTER_S / 2) is None
    assert turns.look(3.0 + SHARE_AFTER_S) is greedy[0]


def test_nobody_is_cut_off_for_who_holds_as_many() -> None:
    turns = UploadTurns(slots=2, queue_max=3)
    running(turns, turn("10.0.0.1"), turn("10.0.0.2", peer=2))
    turns.ask(turn("10.0.0.3", peer=3))
    turns.ask(turn("10.0.0.1"))
    assert turns.look(10 * SHARE_AFTER_S) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6), st.booleans(), st.booleans()), max_size=80))
def test_places_are_bounded_and_each_request_is_somewhere_or_refused(steps: list[tuple[int, int, bool, bool]]) -> None:
    slots, queue_max = 2, 3
    turns = UploadTurns(slots, queue_max)
    alive: list[Turn] = []
    for now, (what, who, ahead, slow) in enumerate(steps):
        if what < 3:
            alive.append(turn(f"10.0.0.{who}", who, ahead=ahead, asked_s=float(now)))
            refused = turns.ask(alive[-1])
            if refused is not None:
                alive.remove(refused)
                assert not refused.running
        elif alive:
            turns.over(alive.pop(who % len(alive)))
        for each in alive:
            each.slow = each.running and slow
        turns.look(float(now))
        while (begun := turns.take()) is not None:
            assert begun in alive
        served = [each for each in alive if each.running]
        assert len(turns) == len(alive)
        assert len(served) <= BESIDE_SLOW_FACTOR * slots
        assert len(alive) - len(served) <= (queue_max + 1 + slots) + (slots + queue_max)


def test_a_second_one_waits_though_nobody_has_taken_the_first_yet() -> None:
    turns = UploadTurns(slots=1, queue_max=1)
    first, second = turn(), turn()
    turns.ask(first)
    assert not turns.waits(first)
    turns.ask(second)
    assert turns.waits(second)
