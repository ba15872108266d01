"""RateLimiter: what passes in a time, and who need not wait."""

from __future__ import annotations

import threading
import time

import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.transport.rates import RateLimiter


def test_without_a_limit_nobody_waits() -> None:
    limiter = RateLimiter()
    assert not limiter.limited
    taking = threading.Thread(target=limiter.take, args=(1 << 60,))
    taking.start()
    taking.join(WAIT_S)
    assert not taking.is_alive()


def test_several_threads_share_the_rate() -> None:
    limiter = RateLimiter(1_000_000)

    def take() -> None:
        for _ in range(10):
            limiter.take(16 * 1024)

    threads = [threading.Thread(target=take) for _ in range(4)]
    started_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # 640 KiB; the burst and the last one's debt pass at once.
    assert time.monotonic() - started_s > 0.45


def test_lifting_the_limit_wakes_who_waits() -> None:
    limiter = RateLimiter(1000)
    limiter.take(1 << 30)
    waiting = threading.Thread(target=limiter.take, args=(1,))
    waiting.start()
    limiter.set_rate(0)
    waiting.join(WAIT_S)
    assert not waiting.is_alive()


def test_a_pause_earns_no_more_than_the_burst() -> None:
    limiter = RateLimiter(100_000)
    time.sleep(0.3)
    started_s = time.monotonic()
    for _ in range(4):
        limiter.take(16 * 1024)
    assert time.monotonic() - started_s > 0.2


def test_a_negative_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        RateLimiter(-1)
