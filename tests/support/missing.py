"""What this machine lacks: the test that needs it is skipped; with CI=true it fails, so that nothing is overlooked."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_or_fail(reason: str) -> NoReturn:
    """Of the running test. `reason` is one line that says what to do about it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true, and {reason}", pytrace=False)
    pytest.skip(reason)
