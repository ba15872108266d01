"""The goodput of a calibration is that of the steady flow."""

from __future__ import annotations

import pytest

from benchmarks.fanout.calibration import Goodput, steady_rate
from proto.errors import LocalError


def test_a_steady_rate_leaves_out_the_beginning() -> None:
    arrivals = [(0.0, 9000), (0.5, 9000), (1.0, 500), (2.0, 100), (3.0, 100)]
    assert steady_rate(arrivals, settled_s=1.0) == 100.0


def test_a_flow_that_ends_at_once_has_no_rate() -> None:
    with pytest.raises(LocalError, match="ended at once"):
        steady_rate([(0.0, 10)], settled_s=0.5)


def test_a_goodput_far_from_what_frames_allow_is_doubtful() -> None:
    assert Goodput(0.90, 0.956).doubtful
    assert not Goodput(0.95, 0.956).doubtful
