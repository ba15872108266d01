"""What upstreams answered with no success."""

from __future__ import annotations

from peer.registry.failures import UPSTREAMS_MAX, Failures
from proto.errors import UpstreamError, UpstreamKind


def test_failures_are_counted_by_upstream_and_kind_with_the_last_one_s_words() -> None:
    now_s = 0.0
    failures = Failures(lambda: now_s)
    failures.count("docker.io", UpstreamError("answered 503", UpstreamKind.UNAVAILABLE))
    failures.count("docker.io", UpstreamError("answered 429", UpstreamKind.RATE_LIMITED))
    now_s = 5.0
    assert failures.rows() == {
        "docker.io": {
            "failures": {"unavailable": 1, "rate_limited": 1},
            "last_failure": "answered 429",
            "last_failure_ago_s": 5.0,
        }
    }


def test_so_many_upstreams_are_remembered() -> None:
    failures = Failures()
    for number in range(UPSTREAMS_MAX + 1):
        failures.count(f"r{number}", UpstreamError("gone", UpstreamKind.UNKNOWN))
    assert len(failures.rows()) == UPSTREAMS_MAX
    assert "r0" not in failures.rows()
