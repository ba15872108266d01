"""How much of a transfer is left when the next one is asked for."""

from __future__ import annotations

from peer.transport.request_lead import RequestLead
from proto.pieces import KIB, MIB


def test_a_sixteenth_of_a_piece_while_nothing_is_measured() -> None:
    assert RequestLead().size_bytes(4 * MIB) == 256 * KIB


def test_as_much_as_comes_until_a_request_is_answered() -> None:
    tail = RequestLead()
    tail.answered(0.002)
    tail.received(4 * MIB, 0.008)
    assert tail.size_bytes(4 * MIB) == 1 * MIB


def test_half_a_piece_at_most_where_answers_take_longer_than_pieces() -> None:
    tail = RequestLead()
    tail.answered(0.1)
    tail.received(256 * KIB, 0.01)
    assert tail.size_bytes(256 * KIB) == 128 * KIB


def test_one_slow_answer_hardly_changes_it() -> None:
    tail = RequestLead()
    for _ in range(8):
        tail.answered(0.001)
        tail.received(4 * MIB, 0.004)
    tail.answered(0.01)
    assert 1 * MIB < tail.size_bytes(4 * MIB) < 2.5 * MIB


def test_the_smallest_piece_has_a_tail_of_half_of_it() -> None:
    assert RequestLead().size_bytes(10_000) == 5_000
