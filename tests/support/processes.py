"""Programs under test: what benchmarks.harness.processes has, under the name that tests use."""

from benchmarks.harness.processes import (
    LOG_LINES_MAX,
    STOP_TIMEOUT_S,
    ManagedProcess,
    ProcessError,
    command_line,
    run,
    wait_until,
)

__all__ = ["LOG_LINES_MAX", "STOP_TIMEOUT_S", "ManagedProcess", "ProcessError", "command_line", "run", "wait_until"]
