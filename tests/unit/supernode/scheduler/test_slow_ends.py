"""Transfers whose one end is slow: what runs beside them, what follows them, and what is learned from them."""

from __future__ import annotations

import pytest

from supernode.scheduler.contract import (
    SEED,
    Command,
    FetchFromOrigin,
    GrantLease,
    OriginEnded,
    PieceEvicted,
    PieceStored,
)
from supernode.scheduler.link import Link
from supernode.scheduler.machine import Scheduler
from supernode.scheduler.settings import SchedulerSettings
from tests.unit.supernode.scheduler.support import PIECE_BYTES, Playbook, grants, mask, only_grant

# A piece takes a second at this rate, and twenty at that of the slow node.
RATE = float(PIECE_BYTES)
SLOW_RATE = RATE / 20


def fetch_of(commands: list[Command]) -> FetchFromOrigin:
    """The one fetch among the commands."""
    (found,) = [command for command in commands if isinstance(command, FetchFromOrigin)]
    return found


def grants_until(play: Playbook, until_s: float) -> list[tuple[float, GrantLease]]:
    """Leases, with their times, while no transfer ends."""
    found = []
    while (due := play.scheduler.next_wakeup()) is not None and due <= until_s:
        found += [(play.now, lease) for lease in grants(play.wake())]
    play.now = until_s
    return found


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


def test_nothing_follows_a_slow_transfer_while_a_fast_one_fills_the_link() -> None:
    play = one_source(1, rate=RATE, slow_rate=SLOW_RATE)
    slow = only_grant(play.want(2, swarm=2))
    grants_until(play, 18.5)
    fast = grants(play.want(3))[0]
    assert (slow.source, fast.source, fast.ahead) == (1, 1, False)
    grants_until(play, 19.1)
    # The slow transfer ends in less than a twentieth of its time now, the fast one does not.
    assert grants(play.want(4)) == []


def test_a_transfer_beside_a_slow_one_does_not_make_the_link_look_twice_as_fast() -> None:
    play = one_source(3)
    first, second = grants(play.want(2, swarm=2))
    book = play.scheduler._core.book
    book.typical_flow = RATE
    link = book.nodes[1].up
    for _ in range(4):
        link.learn(RATE, 1.0, 1.0, 0.0)
    last = only_grant(play.stored(first, elapsed_s=20.0))
    play.stored(second, elapsed_s=20.0)
    play.want(3)
    for _ in range(8):
        beside = next(
            lease
            for lease in play.scheduler._core.leases.values()
            if lease.receiver.peer == 3 and lease.started_at is not None
        )
        play.tell(PieceStored(1, 3, beside.piece, beside.number, 1.05), after_s=1.05)
        assert last.lease_id in play.scheduler._core.leases
        assert (link.carries or 0.0) < 1.2 * RATE


def test_beside_a_first_copy_slower_than_the_origin_sends_the_seed_begins_another() -> None:
    play = Playbook(Scheduler(seed=1, epoch=1, seed_upload_slots=4))
    play.join(1, 2, 3)
    play.open("....")
    for peer in (1, 2, 3):
        play.want(peer)
    first = only_grant(play.seed_gets(0, after_s=1.0))
    granted = [(play.now, lease) for lease in grants(play.seed_gets(1, after_s=1.0))] + grants_until(play, 4.0)
    beside = [(at_s, lease) for at_s, lease in granted if not lease.ahead]
    assert [lease.source for _, lease in beside] == [SEED]
    ((at_s, second),) = beside
    assert at_s == pytest.approx(2.5, abs=0.1)
    assert (second.piece, second.receiver != first.receiver) == (1, True)


def test_who_has_room_follows_what_the_seed_is_hoped_to_carry() -> None:
    # The playbook checks after each event that the book knows who has room.
    play = Playbook(Scheduler(seed=1, epoch=1, seed_upload_slots=2))
    play.join(1)
    play.open("." * 8)
    play.want(1)
    only_grant(play.seed_gets(0, after_s=1.0))
    assert grants_until(play, 3.0) == []
    book = play.scheduler._core.book
    seed = book.nodes[SEED]
    seed.up.forget_gap()
    book.refresh_up(seed)
    assert not seed.gives
    granted = [lease for piece in range(1, 8) for lease in grants(play.seed_gets(piece, after_s=0.001))]
    assert [(lease.source, lease.ahead) for lease in granted][:1] == [(SEED, False)]


def test_time_without_a_fetch_does_not_count_against_the_origin() -> None:
    play = Playbook(Scheduler(seed=1, epoch=1, seed_upload_slots=4))
    play.join(1)
    play.open(".", inline=True)
    asked = fetch_of(play.want(1))
    play.stored(only_grant(play.seed_gets(0, after_s=1.0)))
    play.tell(OriginEnded(asked.fetch_id, 1, True), after_s=1.0)
    play.open("..", swarm=2)
    play.now += 3600.0
    play.want(1, swarm=2)
    lease = only_grant(play.seed_gets(0, swarm=2, after_s=1.0))
    assert play.scheduler._core.book.nodes[SEED].up.hoped == RATE
    assert lease.expires_in_s == SchedulerSettings().expiry_unknown_s


def test_a_slow_origin_gives_the_first_transfer_no_more_time() -> None:
    play = Playbook(Scheduler(seed=1, epoch=1, seed_upload_slots=4))
    play.join(1)
    play.open("..")
    play.want(1)
    lease = only_grant(play.seed_gets(0, after_s=600.0))
    assert lease.expires_in_s == SchedulerSettings().expiry_unknown_s


def test_the_seed_hopes_for_less_with_each_transfer_that_was_slower() -> None:
    link = Playbook().scheduler._core.book.nodes[SEED].up
    link.hope(RATE)
    assert link.expected_flow(None) == RATE
    for _ in range(8):
        link.learn(SLOW_RATE, 1.0, 1.0, 0.0)
    assert link.hoped < 0.1 * RATE
    link.learn(RATE, 1.0, 1.0, 0.0)
    assert link.hoped == 0.0


def test_one_slow_transfer_sinks_nobody_two_do() -> None:
    play = Playbook()
    play.join(1)
    book = play.scheduler._core.book
    node = book.nodes[1]
    book.typical_flow = RATE
    node.up.learn(SLOW_RATE, 1.0, 1.0, 0.0)
    book.judge(node)
    assert not book.sunk
    node.up.learn(SLOW_RATE, 1.0, 1.0, 0.0)
    book.judge(node)
    assert book.sunk == node.bit


def test_what_a_rack_has_at_a_slow_node_alone_comes_from_that_one() -> None:
    play = Playbook()
    play.join(1, 2, zone="r/z/a", rate=RATE)
    play.join(3, 4, zone="r/z/b", rate=RATE)
    play.open_at_peers(1)
    slow = play.scheduler._core.book.nodes[1]
    slow.faults = 2
    play.scheduler._core.book.judge(slow)
    for holder in (1, 3, 4):
        play.hold(holder, "*")
    assert only_grant(play.want(2)).source == 1


def known_after_each(link: Link, transfers: int, *, there: float) -> list[float]:
    """What is known of it after each of so many transfers at half the rate, with an other end that carries `there`."""
    found = []
    for _ in range(transfers):
        link.learn(RATE / 2, 1.0, 1.0, there)
        found.append(link.known(slow=RATE / 4))
    return found


def test_a_link_is_known_by_transfers_whose_other_end_could_have_done_more() -> None:
    assert known_after_each(Link(8, None), 3, there=RATE) == [0.0, RATE / 2, RATE / 2]


def test_one_transfer_whose_other_end_could_have_done_far_more_tells_what_a_link_carries() -> None:
    assert known_after_each(Link(8, None), 2, there=2.0 * RATE) == [RATE / 2, RATE / 2]


@pytest.mark.parametrize("there", [0.0, RATE / 2])
def test_nothing_is_known_of_a_link_whose_transfers_the_others_may_have_held_up(there: float) -> None:
    assert known_after_each(Link(8, None), 8, there=there) == [0.0] * 8


def test_a_quick_transfer_makes_what_slower_ones_taught_unknown_again() -> None:
    link = Link(8, None)
    known_after_each(link, 2, there=RATE)
    link.learn(RATE, 1.0, 1.0, RATE)
    assert link.known(slow=RATE / 4) == 0.0


def test_transfers_with_slower_nodes_do_not_make_a_link_look_slower() -> None:
    link = Link(8, None)
    link.learn(RATE, 1.0, 1.0, RATE)
    for _ in range(16):
        link.learn(RATE / 4, 1.0, 1.0, RATE / 4)
    assert link.carries == RATE


def test_a_link_measured_once_takes_another_beside_a_transfer_to_a_node_known_to_be_slower() -> None:
    play = one_source(1, slow_rate=SLOW_RATE)
    play.scheduler._core.book.nodes[1].up.learn(RATE, 1.0, 1.0, 0.0)
    first = only_grant(play.want(2, swarm=2))
    assert [(lease.source, lease.ahead) for lease in grants(play.want(3))][:1] == [(first.source, False)]


def test_what_is_slow_is_known_at_once() -> None:
    link = Playbook().scheduler._core.book.nodes[SEED].up
    link.learn(SLOW_RATE, 1.0, 1.0, 0.0)
    assert link.known(slow=RATE / 4) == SLOW_RATE


def test_a_link_that_turns_out_to_carry_less_takes_more_at_once() -> None:
    play = Playbook()
    sources = (1, 4, 5, 6)
    play.join(*sources, 3, rate=10.0 * RATE)
    play.join(2)
    play.scheduler._core.book.nodes[2].down.learn(10.0 * RATE, 1.0, 1.0, 0.0)
    play.open_at_peers(4)
    everything = "*" * 12
    play.open(everything, swarm=2)
    play.tell(PieceEvicted(2, SEED, mask(everything)))
    for source in sources:
        play.hold(source, everything, swarm=2)
    play.want(2, swarm=2)
    # Each is given up on after three times its time, and counts for a third at most from then on.
    grants_until(play, 2.5)
    stuck = list(play.scheduler._core.leases.values())
    assert [lease.stuck for lease in stuck] == [True] * 3
    idle = set(sources) - {lease.source.peer for lease in stuck}
    play.hold(stuck[0].source.peer, "****")
    beside = grants(play.want(3))[0]
    assert beside.source == stuck[0].source.peer
    # When that one ends, the transfer beside it is seen to take far less still.
    granted = grants(play.stored(beside, elapsed_s=0.1))
    assert {lease.source in idle for lease in granted if lease.receiver == 2} == {True}
