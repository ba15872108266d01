"""What holds for every unit test."""

from __future__ import annotations

import pytest

from benchmarks.cluster.processes import WAIT_S
from proto.runtime import service


@pytest.fixture(autouse=True)
def _patient_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that stops waits for its threads as long as a busy machine takes, and then fails the test."""
    monkeypatch.setattr(service, "_THREADS_END_S", WAIT_S)
