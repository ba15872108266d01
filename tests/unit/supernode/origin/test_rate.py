"""How fast origins send: the median of what lately came, by what is long enough to tell."""

from __future__ import annotations

import pytest

from proto.pieces import MIB
from supernode.origin.rate import OriginRate


def test_nothing_is_known_before_a_body_came() -> None:
    assert OriginRate().bytes_s() == 0.0


def test_a_stall_is_not_believed_before_it_is_usual() -> None:
    rate = OriginRate()
    for elapsed_s in (0.1, 10.0, 0.1):
        rate.came(MIB, elapsed_s)
    assert rate.bytes_s() == pytest.approx(10 * MIB)


def test_what_was_long_ago_is_forgotten() -> None:
    rate = OriginRate()
    for elapsed_s in [0.1] * 20 + [1.0] * 8:
        rate.came(MIB, elapsed_s)
    assert rate.bytes_s() == pytest.approx(MIB)


def test_what_comes_at_once_tells_nothing() -> None:
    rate = OriginRate()
    rate.came(64 * 1024, 1e-6)
    assert rate.bytes_s() == 0.0
