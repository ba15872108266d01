"""A reader that leaves, as `head` does, is no error; another pipe that breaks is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.cluster.processes import WAIT_S
from proto.runtime.output import written


def without_a_reader(program: str) -> tuple[int, str]:
    """Exit code and standard error of a Python program whose output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", program],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    finally:
        os.close(writing)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("printed", ["print('x')", "print('x' * 100_000)", "sys.exit(print('x'))"])
def test_a_reader_that_has_enough_is_told_nothing(printed: str) -> None:
    program = f"import sys; from proto.runtime.output import written; sys.exit(written(lambda: {printed} or 0))"
    assert without_a_reader(program) == (1, "")


def test_another_pipe_that_breaks_is_an_error() -> None:
    def broken() -> int:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        written(broken)
