"""Accusations: one member's word counts for itself alone, that of members apart for all."""

from __future__ import annotations

import pytest

from proto.wire.tickets import Identity
from supernode.control.accusations import KEPT_S, REFUSALS_MIN, Accusations
from supernode.control.peer_session import PeerInfo
from supernode.scheduler.contract import FailReason

SOURCE = Identity.generate().peer


def member(host: str, zone: str = "") -> PeerInfo:
    return PeerInfo(Identity.generate().peer, "boot", f"{host}:65002", zone, 4, 4, None, None, "test")


def judged(accusations: Accusations, *accusers: PeerInfo, reason: FailReason = FailReason.TIMEOUT) -> list[FailReason]:
    return [accusations.judge(SOURCE, accuser, reason, 100.0) for accuser in accusers]


def test_one_member_lowers_a_source_for_itself_alone_however_often_it_says_so() -> None:
    accuser = member("10.0.0.1")
    assert set(judged(Accusations(), *[accuser] * 10)) == {FailReason.DISPUTED}


def test_identities_of_one_address_are_one_voice() -> None:
    assert set(judged(Accusations(), *(member("10.0.0.1") for _ in range(12)))) == {FailReason.DISPUTED}


def test_members_of_one_rack_are_one_voice() -> None:
    rack = [member(f"10.0.0.{number}", "eu/a/rack7") for number in range(1, 5)]
    assert set(judged(Accusations(), *rack)) == {FailReason.DISPUTED}


@pytest.mark.parametrize(("zones"), [("", ""), ("eu/a/rack1", "eu/a/rack2"), ("eu/a/rack1", "")])
def test_members_apart_that_agree_are_believed(zones: tuple[str, str]) -> None:
    found = judged(Accusations(), member("10.0.0.1", zones[0]), member("10.0.0.2", zones[1]))
    assert found == [FailReason.DISPUTED, FailReason.TIMEOUT]


def test_corrupt_bytes_are_a_fault_like_others_until_they_are_proved() -> None:
    found = judged(Accusations(), member("10.0.0.1"), member("10.0.0.2"), reason=FailReason.CORRUPT)
    assert found == [FailReason.DISPUTED, FailReason.PROTOCOL]


@pytest.mark.parametrize("reason", [FailReason.BUSY, FailReason.TICKET])
def test_a_source_that_refuses_everybody_again_and_again_is_faulty(reason: FailReason) -> None:
    accusations = Accusations()
    one, two = member("10.0.0.1"), member("10.0.0.2")
    assert judged(accusations, *[one] * REFUSALS_MIN, reason=reason) == [reason] * REFUSALS_MIN
    found = judged(accusations, *[two] * REFUSALS_MIN, reason=reason)
    assert found == [*[reason] * (REFUSALS_MIN - 1), FailReason.PROTOCOL]


def test_what_was_said_is_over_with_a_piece_that_came_or_with_time() -> None:
    accusations = Accusations()
    one, two = member("10.0.0.1"), member("10.0.0.2")
    judged(accusations, one)
    accusations.served(SOURCE, one)
    assert judged(accusations, two) == [FailReason.DISPUTED]
    assert accusations.judge(SOURCE, one, FailReason.TIMEOUT, 100.0 + KEPT_S) is FailReason.DISPUTED
