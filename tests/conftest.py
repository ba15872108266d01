"""Rules that hold for every test: nothing is left behind, and a real client that is missing is never overlooked."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from benchmarks.cluster.programs import PACKAGES, find_program
from tests.support.clients_table import ROWS, note_results
from tests.support.leaks import Snapshot, TaskWatch
from tests.support.missing import skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Iterator


# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A shell without job control starts what runs in the background deaf to SIGINT, and so all that the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# What tests showed of clients in this run: the row of docs/clients.md, run or replayed, and how the test ended.
_SHOWN: list[tuple[tuple[str, str, str], str, str]] = []


def pytest_itemcollected(item: pytest.Item) -> None:
    """What a test shows goes with its reports, also from a process of xdist's."""
    for marker in item.iter_markers("pulls"):
        assert marker.args in ROWS, f"{item.nodeid}: tests/support/clients_table.py has no row {marker.args}"
        item.user_properties.append(("pulls", [list(marker.args), marker.kwargs.get("how", "run")]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Of each test the call, or what kept it from being called."""
    if report.when == "call" or report.outcome != "passed":
        for name, shown in report.user_properties:
            if name == "pulls" and isinstance(shown, list):
                _SHOWN.append((tuple(shown[0]), shown[1], report.outcome))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Once a run: xdist's processes tell the one that started them."""
    if not hasattr(session.config, "workerinput"):
        note_results(_SHOWN)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run; with CI=true that is a failure."""
    for marker in item.iter_markers("client"):
        if not marker.args:
            pytest.fail('name the programs: @pytest.mark.client("dockerd", "docker-registry")', pytrace=False)
        missing = [name for name in marker.args if find_program(name) is None]
        if missing:
            packages = " ".join(sorted({PACKAGES.get(name, name) for name in missing}))
            skip_or_fail(f"{', '.join(missing)} not installed: apt-get install {packages}")
    if item.get_closest_marker("root") and os.geteuid() != 0:
        skip_or_fail("needs root, for network namespaces and mounts")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread, a child, an open file or socket, or a running task.

    Autouse in the top conftest: it is set up before a test's own function-scoped fixtures and torn down after
    them. Fixtures of wider scope come before it and may keep what they hold.
    """
    before = Snapshot.take()
    tasks = TaskWatch()
    with tasks.watching():
        yield
        leaks = before.left_behind() + tasks.left
    if leaks:
        pytest.fail("left behind:\n  " + "\n  ".join(leaks), pytrace=False)
