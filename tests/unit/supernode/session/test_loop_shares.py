"""Who has more read than its share of the event loop's time waits, and nobody else."""

from __future__ import annotations

from supernode.session.loop_shares import COMMON_BURST_S, COMMON_PART, OWN_BURST_S, OWN_PART, LoopShares

FRAME_S = 0.05


def read_without_end(shares: LoopShares, parties: int, seconds: float) -> float:
    """So many parties send one costly frame after the other: how long the loop was busy with them."""
    now_s = busy_s = 0.0
    ready_s = dict.fromkeys(range(parties), 0.0)
    while now_s < seconds:
        party = min(ready_s, key=lambda each: ready_s[each])
        now_s = max(now_s, ready_s[party]) + FRAME_S
        busy_s += FRAME_S
        ready_s[party] = now_s + shares.spend(party, FRAME_S, now_s)
    return busy_s


def test_one_party_has_its_own_part_and_what_is_for_all() -> None:
    busy_s = read_without_end(LoopShares(0.0), parties=1, seconds=100.0)
    at_most = 100.0 * (OWN_PART + COMMON_PART) + OWN_BURST_S + COMMON_BURST_S + FRAME_S
    assert at_most - 2.0 <= busy_s <= at_most


def test_what_is_for_all_is_no_more_for_many() -> None:
    busy_s = read_without_end(LoopShares(0.0), parties=8, seconds=100.0)
    assert busy_s <= 100.0 * (8 * OWN_PART + COMMON_PART) + 8 * OWN_BURST_S + COMMON_BURST_S + FRAME_S


def test_who_keeps_to_its_part_never_waits_beside_who_does_not() -> None:
    shares = LoopShares(0.0)
    for tick in range(10_000):
        now_s = tick * 0.01
        shares.spend("greedy", FRAME_S, now_s)
        assert shares.spend("honest", 0.01 * OWN_PART, now_s) == 0.0


def test_a_node_that_comes_back_with_much_to_say_says_it_at_once() -> None:
    assert LoopShares(0.0).spend("node", OWN_BURST_S + COMMON_BURST_S, 1.0) == 0.0
