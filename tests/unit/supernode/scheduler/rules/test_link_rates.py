"""Rule 5: what transfers teach of links, and who serves whom by it."""

from __future__ import annotations

import pytest

from supernode.scheduler import contract
from supernode.scheduler.contract import (
    SEED,
    PeerLost,
    PieceEvicted,
    PieceStored,
)
from supernode.scheduler.records import UP, Direction, Link
from supernode.scheduler.rules import link_rates
from supernode.scheduler.settings import PACED_MIN, RATED_BYTES_MIN
from tests.unit.supernode.scheduler.support import PIECE_BYTES, Playbook, grants, mask, only_grant

# A piece takes a second at this rate, and twenty at that of the slow node.
RATE = float(PIECE_BYTES)


SLOW_RATE = RATE / 20


QUARTER = RATE / 4


FAST, SLOW = (2, 3, 4), (5, 6, 7)


def holders() -> Playbook:
    """Six sources that hold two pieces, three of them fast."""
    play = Playbook()
    play.join(*FAST, rate=RATE)
    play.join(*SLOW, rate=QUARTER)
    play.open_at_peers(2)
    for peer in (*FAST, *SLOW):
        play.hold(peer, "**")
    return play


@pytest.mark.parametrize(("rate", "alike"), [(RATE, FAST), (QUARTER, SLOW)])
def test_a_receiver_takes_from_sources_about_as_fast(rate: float, alike: tuple[int, ...]) -> None:
    play = holders()
    chosen = []
    for peer in (10, 11, 12):
        play.join(peer, rate=rate)
        chosen.append(grants(play.want(peer))[0].source)
    assert set(chosen) <= set(alike)


def chosen_one_after_another(zone: str) -> set[int]:
    """The sources of a dozen slow receivers of which each finds all sources free."""
    play = holders()
    chosen = set()
    for peer in range(10, 22):
        play.join(peer, zone=zone, rate=QUARTER)
        chosen.add(grants(play.want(peer))[0].source)
        play.tell(PeerLost(peer, "gone"))
    return chosen


def test_in_a_rack_rates_pair_nobody_for_they_may_be_the_trunks() -> None:
    assert chosen_one_after_another("region/zone") <= set(SLOW)
    assert chosen_one_after_another("region/zone/rack") & set(FAST)


def test_a_receiver_takes_from_a_source_of_another_rate_rather_than_from_none() -> None:
    play = Playbook()
    play.join(1, rate=RATE)
    play.join(2, rate=QUARTER)
    play.open_at_peers(1)
    play.hold(1, "*")
    assert only_grant(play.want(2)).source == 1


@pytest.mark.parametrize(("rate", "alike"), [(RATE, FAST), (QUARTER, SLOW)])
def test_a_source_serves_receivers_about_as_fast(rate: float, alike: tuple[int, ...]) -> None:
    play = Playbook()
    play.join(*FAST, rate=RATE)
    play.join(*SLOW, rate=QUARTER)
    play.join(1, rate=rate)
    play.open_at_peers(1)
    for peer in (*FAST, *SLOW):
        play.want(peer)
    assert grants(play.hold(1, "*"))[0].receiver in alike


def test_a_link_that_may_be_faster_than_it_was_seen_to_be_is_held_apart_from_slower_ones_alone() -> None:
    play = holders()
    state = play.scheduler.inspect()
    everybody = sum(node.bit for node in state.nodes.values())
    fast = sum(state.nodes[peer].bit for peer in FAST)
    slow = sum(state.nodes[peer].bit for peer in SLOW)
    link = Link(Direction(UP), 8, None)
    assert state.up.alike(everybody, link) == everybody
    link_rates.learn(link, QUARTER, 1.0, 1.0, 0.0)
    assert state.up.alike(everybody, link) == everybody
    for _ in range(3):
        link_rates.learn(link, 3 * RATE, 1.0, 1.0, 0.0)
    assert state.up.alike(everybody, link) & (fast | slow) == fast


def test_a_node_is_listed_by_its_learned_rate_until_it_is_lost() -> None:
    play = Playbook()
    play.join(1)
    state = play.scheduler.inspect()
    node = state.nodes[1]
    for _ in range(2):
        link_rates.learn(node.up, QUARTER, 1.0, 1.0, RATE)
    state.up.list_by_rate(node.up)
    assert list(state.up.bands.values()) == [node.bit]
    link_rates.learn(node.up, 4 * RATE, 1.0, 1.0, RATE)
    state.up.list_by_rate(node.up)
    assert not state.up.bands
    for _ in range(2):
        link_rates.learn(node.up, 2 * RATE, 1.0, 1.0, 16 * RATE)
    state.up.list_by_rate(node.up)
    assert list(state.up.bands.values()) == [node.bit]
    play.tell(PeerLost(1, "gone"))
    assert not state.up.bands


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


def test_a_transfer_beside_a_slow_one_does_not_make_the_link_look_twice_as_fast() -> None:
    play = one_source(3)
    first, second = grants(play.want(2, swarm=2))
    state = play.scheduler.inspect()
    state.typical_rate = RATE
    link = state.nodes[1].up
    for _ in range(4):
        link_rates.learn(link, RATE, 1.0, 1.0, 0.0)
    last = only_grant(play.stored(first, elapsed_s=20.0))
    play.stored(second, elapsed_s=20.0)
    play.want(3)
    for _ in range(8):
        beside = next(
            lease
            for lease in play.scheduler.inspect().leases.values()
            if lease.receiver.peer == 3 and lease.started_at is not None
        )
        play.tell(PieceStored(1, 3, beside.piece, beside.number, 1.05), after_s=1.05)
        assert last.lease_id in play.scheduler.inspect().leases
        assert (link.carries or 0.0) < 1.2 * RATE


def test_an_assumed_rate_falls_with_each_transfer_that_was_slower() -> None:
    link = Playbook().scheduler.inspect().nodes[SEED].up
    link_rates.assume_rate(link, RATE)
    assert link.assumed_speed() == RATE
    for _ in range(8):
        link_rates.learn(link, SLOW_RATE, 1.0, 1.0, 0.0)
    assert link.assumed < 0.1 * RATE
    link_rates.learn(link, RATE, 1.0, 1.0, 0.0)
    assert link.assumed == 0.0


def known_after_each(link: Link, transfers: int, *, there: float) -> list[float]:
    """What is known of it after each of so many transfers at half the rate, with an other end that carries `there`."""
    found = []
    for _ in range(transfers):
        link_rates.learn(link, RATE / 2, 1.0, 1.0, there)
        found.append(link.trusted_speed(slow=RATE / 4))
    return found


def test_a_link_is_known_by_transfers_whose_other_end_could_have_done_more() -> None:
    assert known_after_each(Link(Direction(UP), 8, None), 3, there=RATE) == [0.0, RATE / 2, RATE / 2]


def test_one_transfer_whose_other_end_could_have_done_far_more_tells_what_a_link_carries() -> None:
    assert known_after_each(Link(Direction(UP), 8, None), 2, there=2.0 * RATE) == [RATE / 2, RATE / 2]


@pytest.mark.parametrize("there", [0.0, RATE / 2])
def test_nothing_is_known_of_a_link_where_the_other_ends_may_have_been_the_bottleneck(there: float) -> None:
    assert known_after_each(Link(Direction(UP), 8, None), 8, there=there) == [0.0] * 8


def test_a_quick_transfer_makes_what_slower_ones_taught_unknown_again() -> None:
    link = Link(Direction(UP), 8, None)
    known_after_each(link, 2, there=RATE)
    link_rates.learn(link, RATE, 1.0, 1.0, RATE)
    assert link.trusted_speed(slow=RATE / 4) == 0.0


def test_transfers_with_slower_nodes_do_not_make_a_link_look_slower() -> None:
    link = Link(Direction(UP), 8, None)
    link_rates.learn(link, RATE, 1.0, 1.0, RATE)
    for _ in range(16):
        link_rates.learn(link, RATE / 4, 1.0, 1.0, RATE / 4)
    assert link.carries == RATE


def test_what_is_slow_is_known_at_once() -> None:
    link = Playbook().scheduler.inspect().nodes[SEED].up
    link_rates.learn(link, SLOW_RATE, 1.0, 1.0, 0.0)
    assert link.trusted_speed(slow=RATE / 4) == SLOW_RATE


def test_short_transfers_raise_no_rate_that_a_long_one_told() -> None:
    """A last piece of 37 KB comes from the buckets of the way, at many times what the link carries."""
    link = Link(Direction(UP), 8, None)
    link_rates.learn(link, RATE, 1.0, 1.0, 0.0)
    for _ in range(20):
        link_rates.learn(link, 3 * RATE, 1.0, 1.0, 0.0, long=False)
    assert link.speed() == RATE
    link_rates.learn(link, RATE / 2, 1.0, 1.0, 0.0, long=False)
    assert link.speed() < RATE


def test_the_short_last_piece_of_a_blob_is_such_a_transfer() -> None:
    play = Playbook()
    play.join(1)
    play.tell(contract.SwarmOpened(1, 2 * RATED_BYTES_MIN + 37_000, RATED_BYTES_MIN, 0b111))
    granted, speeds = grants(play.want(1)), []
    while granted:
        lease = granted.pop(0)
        granted += grants(play.stored(lease, elapsed_s=0.001 if lease.piece == 2 else 0.1))
        speeds.append(play.scheduler.inspect().nodes[1].down.speed())
    assert speeds == [pytest.approx(RATED_BYTES_MIN / 0.1)] * 3
    assert play.scheduler.inspect().typical_rate == pytest.approx(RATED_BYTES_MIN / 0.1)


def test_the_first_long_transfer_counts_in_place_of_all_short_ones() -> None:
    link = Link(Direction(UP), 8, None)
    for rate in (8 * RATE, 20 * RATE):
        link_rates.learn(link, rate, 1.0, 1.0, 100 * RATE, long=False)
    assert link.own_speed() > 8 * RATE
    link_rates.learn(link, RATE, 1.0, 1.0, 0.0)
    assert (link.speed(), link.own_speed()) == (RATE, 0.0)


def test_one_report_of_far_too_short_a_time_makes_no_link_look_twice_as_fast() -> None:
    """A receiver looked late at what had come."""
    link = Link(Direction(UP), 8, None)
    link_rates.learn(link, RATE, 1.0, 1.0, 0.0)
    link_rates.learn(link, 34 * RATE, 1.0, 1.0, 0.0)
    assert link.speed() < 2 * RATE


def test_a_report_of_hardly_any_time_says_nothing_of_a_link() -> None:
    play = Playbook()
    play.join(1)
    play.open("**")
    (lease, *_) = grants(play.want(1))
    play.tell(contract.PieceStored(lease.swarm, lease.receiver, lease.piece, lease.lease_id, 5e-324))
    state = play.scheduler.inspect()
    assert state.typical_rate is None
    assert state.nodes[1].down.carries is None


def pace_after(transfers: int, piece_bytes: int, last_s: float = 1.0) -> contract.Pace | None:
    """What is known once the seed has sent a node so many pieces, a second each but for the last."""
    play = Playbook()
    play.join(1)
    play.tell(contract.SwarmOpened(1, transfers * piece_bytes, piece_bytes, (1 << transfers) - 1))
    granted, stored = grants(play.want(1)), 0
    while granted:
        stored += 1
        granted += grants(play.stored(granted.pop(0), elapsed_s=1.0 if stored < transfers else last_s))
    return play.scheduler.pace()


def test_what_links_carry_is_told_once_enough_whole_pieces_came() -> None:
    assert pace_after(PACED_MIN - 1, RATED_BYTES_MIN) is None
    pace = pace_after(PACED_MIN, RATED_BYTES_MIN)
    assert pace is not None
    assert pace.rate_bytes_s == pytest.approx(RATED_BYTES_MIN)


def test_one_report_of_far_too_short_a_time_tells_little_of_what_links_carry() -> None:
    pace = pace_after(PACED_MIN, RATED_BYTES_MIN, last_s=1 / 34)
    assert pace is not None
    assert pace.rate_bytes_s <= RATED_BYTES_MIN * (1 + 1.001 / PACED_MIN)


def test_small_pieces_tell_no_rate() -> None:
    assert pace_after(PACED_MIN, RATED_BYTES_MIN - 1) is None
