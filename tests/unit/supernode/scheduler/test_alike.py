"""Transfers between links that are about as fast: who is chosen where rates differ, and when nobody is."""

from __future__ import annotations

import pytest

from supernode.scheduler.contract import PeerLost
from supernode.scheduler.link import Link
from supernode.scheduler.nodes import like
from tests.unit.supernode.scheduler.support import PIECE_BYTES, Playbook, grants, only_grant

RATE = float(PIECE_BYTES)
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
    book = play.scheduler._core.book
    everybody = sum(node.bit for node in book.nodes.values())
    fast = sum(book.nodes[peer].bit for peer in FAST)
    slow = sum(book.nodes[peer].bit for peer in SLOW)
    link = Link(8, None)
    assert like(book.up_bands, everybody, link) == everybody
    link.learn(QUARTER, 1.0, 1.0, 0.0)
    assert like(book.up_bands, everybody, link) == everybody
    link.learn(3 * RATE, 1.0, 1.0, 0.0)
    assert like(book.up_bands, everybody, link) & (fast | slow) == fast


def test_whose_rate_was_learned_is_found_by_it_until_it_is_lost() -> None:
    play = Playbook()
    play.join(1)
    book = play.scheduler._core.book
    node = book.nodes[1]
    for _ in range(2):
        node.up.learn(QUARTER, 1.0, 1.0, RATE)
    book.band(node)
    assert list(book.up_bands.values()) == [node.bit]
    node.up.learn(4 * RATE, 1.0, 1.0, RATE)
    book.band(node)
    assert not book.up_bands
    for _ in range(2):
        node.up.learn(2 * RATE, 1.0, 1.0, 16 * RATE)
    book.band(node)
    assert list(book.up_bands.values()) == [node.bit]
    play.tell(PeerLost(1, "gone"))
    assert not book.up_bands
