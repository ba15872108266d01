"""Who was shut out of a torrent for wrong blocks is tried again, one at a time, when nothing else comes."""

from __future__ import annotations

from peer.torrent.bans import STUCK_S, Suspects

HONEST, LIAR, INCOMING = "10.0.0.1:65004", "10.0.0.2:65004", "10.0.0.3:51234"


def shut_out(now: float) -> Suspects:
    suspects = Suspects(now)
    for address in (LIAR, LIAR, HONEST, LIAR, INCOMING):
        suspects.shut_out(address)
    return suspects


def test_nobody_shut_out_is_nothing_to_undo() -> None:
    assert not Suspects(0.0).is_stuck(1000.0)


def test_stuck_is_who_got_nothing_for_a_while() -> None:
    suspects = shut_out(0.0)
    assert not suspects.is_stuck(STUCK_S - 0.1)
    assert suspects.is_stuck(STUCK_S)
    suspects.moved_s = 2.0
    assert not suspects.is_stuck(STUCK_S)


def test_the_torrent_begins_anew_with_the_least_blamed_and_meets_the_others_later() -> None:
    suspects = shut_out(0.0)
    assert suspects.next(5.0) is None
    anew = suspects.anew(5.0, [LIAR, HONEST])
    assert anew.waiting == [LIAR]
    assert anew.leave_out([LIAR, HONEST]) == [HONEST]
    assert not anew.blamed
    assert not anew.is_stuck(5.0 + STUCK_S - 0.1)
    assert anew.is_stuck(5.0 + STUCK_S)
    assert anew.next(5.0 + STUCK_S) == LIAR
    assert not anew.is_stuck(1000.0)


def test_who_waits_still_waits_after_another_beginning() -> None:
    assert Suspects(0.0, waiting=[LIAR]).anew(1.0, [LIAR]).waiting == [LIAR]
