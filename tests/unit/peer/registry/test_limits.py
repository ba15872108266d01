"""How fast each origin may send: one limit for all fetches of an origin, which others do not share."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from benchmarks.cluster.processes import WAIT_S
from peer.registry.limits import OriginLimits
from peer.transport.rates import RateLimiter

if TYPE_CHECKING:
    import pytest


def test_each_origin_has_its_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[RateLimiter, list[int]] = {}
    monkeypatch.setattr(RateLimiter, "take", lambda limiter, size: taken.setdefault(limiter, []).append(size))
    limits = OriginLimits(1000)
    for upstream, size_bytes in (("a.example", 1), ("b.example", 2), ("a.example", 3)):
        limits.received(upstream, size_bytes)
    assert list(taken.values()) == [[1, 3], [2]]
    assert {limiter.rate_bytes_s for limiter in taken} == {1000}


def test_who_waits_goes_on_when_the_limit_is_lifted() -> None:
    limits = OriginLimits(1)
    limits.received("a.example", 1 << 20)
    waiting = threading.Thread(target=limits.received, args=("a.example", 1), daemon=True)
    waiting.start()
    limits.set_rate(0)
    waiting.join(WAIT_S)
    assert not waiting.is_alive()


def test_without_a_limit_nobody_waits() -> None:
    limits = OriginLimits()
    for _ in range(3):
        limits.received("a.example", 1 << 40)
