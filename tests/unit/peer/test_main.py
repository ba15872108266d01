"""The token of `--join` is taken out of the arguments, which every user of the machine can list."""

from __future__ import annotations

import pytest

from peer.__main__ import without_token


@pytest.mark.parametrize("given", [["--join", "lc1.a.b.c"], ["--join=lc1.a.b.c"]])
def test_the_token_is_found_and_the_rest_stays(given: list[str]) -> None:
    argv = ["python", "-m", "peer", "--zone", "eu", *given, "--open"]
    assert without_token(argv) == (["python", "-m", "peer", "--zone", "eu", "--open"], "lc1.a.b.c")


def test_without_one_nothing_changes() -> None:
    argv = ["layercast-peer", "--join-file", "/etc/token"]
    assert without_token(argv) == (argv, "")
