"""What an origin wants to be left alone with: one blob, or all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peer.registry.base import ANYONE, Caller
from peer.registry.pauses import GROUP_PAUSE_MAX_S, LIMITED_MIN, Pauses
from proto.errors import UpstreamError, UpstreamKind
from proto.ids import Digest

if TYPE_CHECKING:
    from peer.registry.pauses import Key

HOST = "registry.example.com"
LIMITED = UpstreamError("wait", UpstreamKind.RATE_LIMITED, status=429, retry_after_s=600.0)


class Paused:
    """Pauses, at a time that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.pauses = Pauses(lambda: self.now_s)

    def key(self, number: int, caller: Caller = ANYONE, host: str = HOST) -> Key:
        return self.pauses.key(host, "library/thing", Digest.of(b"%d" % number), caller)

    def limit(self, *numbers: int) -> None:
        for number in numbers:
            self.pauses.heed(self.key(number), LIMITED)

    def left_s(self, number: int, caller: Caller = ANYONE, host: str = HOST) -> float:
        """For how long it is not asked for."""
        try:
            self.pauses.check(self.key(number, caller, host))
        except UpstreamError as error:
            return error.retry_after_s or 0.0
        return 0.0


@pytest.fixture
def paused() -> Paused:
    return Paused()


def test_a_blob_is_left_alone_for_as_long_as_the_origin_says(paused: Paused) -> None:
    paused.limit(1)
    paused.now_s += 100.0
    assert (paused.left_s(1), paused.left_s(2)) == (500.0, 0.0)


def test_an_origin_that_limits_several_blobs_in_a_row_is_asked_for_none(paused: Paused) -> None:
    paused.limit(*range(LIMITED_MIN))
    assert paused.left_s(99) == GROUP_PAUSE_MAX_S
    paused.now_s += GROUP_PAUSE_MAX_S
    assert paused.left_s(99) == 0.0


def test_the_same_blob_again_is_no_other_one(paused: Paused) -> None:
    paused.limit(*[1] * LIMITED_MIN)
    assert paused.left_s(99) == 0.0


def test_what_was_given_in_between_says_that_it_means_those_blobs_alone(paused: Paused) -> None:
    paused.limit(*range(LIMITED_MIN - 1))
    paused.pauses.given(paused.key(50))
    paused.limit(98)
    assert paused.left_s(99) == 0.0


def test_it_is_about_that_origin_and_that_caller_alone(paused: Paused) -> None:
    paused.limit(*range(LIMITED_MIN))
    assert paused.left_s(99, Caller("Bearer mine")) == 0.0
    assert paused.left_s(99, host="other.example.com") == 0.0


def test_an_origin_that_fails_for_a_while_limits_nobody(paused: Paused) -> None:
    for number in range(LIMITED_MIN):
        paused.pauses.heed(
            paused.key(number), UpstreamError("down", UpstreamKind.UNAVAILABLE, status=503, retry_after_s=600.0)
        )
    assert paused.left_s(99) == 0.0


def test_who_limits_us_is_told_while_it_lasts(paused: Paused) -> None:
    paused.limit(1, 2)
    paused.pauses.heed(paused.key(3, host="other.example.com"), UpstreamError("down", UpstreamKind.UNAVAILABLE))
    assert paused.pauses.limited() == {HOST: 600.0}
    paused.now_s += 600.0
    assert paused.pauses.limited() == {}
