"""What a remote can make us log has a limit, and what was left out is counted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proto.runtime.logs import LogLimit

if TYPE_CHECKING:
    import pytest

LOGGER = logging.getLogger(__name__)


def test_lines_beyond_the_limit_are_counted_and_told_in_the_next_period(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    limit = LogLimit(lines_max=2, period_s=60.0, clock=lambda: now_s)
    with caplog.at_level(logging.INFO):
        for number in range(5):
            limit.log(LOGGER, logging.INFO, "refused number=%d", number)
        assert caplog.messages == ["refused number=0", "refused number=1"]
        now_s = 60.0
        limit.log(LOGGER, logging.INFO, "refused number=%d", 5)
    assert caplog.messages[2:] == ["lines_left_out count=3 kind=refused", "refused number=5"]
