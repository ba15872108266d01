"""Missing programs are named with the package that holds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cluster.programs import PACKAGES, ProgramMissing, clean_environment, program

PACKAGE_LIST = Path(__file__).parents[4] / ".ci" / "packages"


def test_the_install_script_knows_the_same_packages() -> None:
    lines = (line.split() for line in PACKAGE_LIST.read_text().splitlines() if not line.startswith("#"))
    assert {words[0]: words[1] for words in lines} == PACKAGES


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(ProgramMissing, match=r"dockerd is not installed: apt-get install docker\.io"):
        program("dockerd")


def test_programs_under_test_see_no_proxy_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert "HTTPS_PROXY" not in clean_environment()
