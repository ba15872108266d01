"""What a dead fan-out left is found by its name and removed; what belongs to others is left alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster import cleanup
from benchmarks.cluster.cleanup import RunName, clean_up, dead, raise_sysctls, restore_sysctls, run_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Beyond what the kernel gives out.
NOBODY = RunName(2**22 + 1, 17)
ME_BEFORE = RunName(os.getpid(), 1)


@pytest.fixture
def no_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "netns"
    folder.mkdir()
    monkeypatch.setattr(cleanup, "NETNS_DIR", folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    (tmp_path / "sys").mkdir()
    monkeypatch.setattr(cleanup, "_sysctl", lambda key: tmp_path / "sys" / key)
    return lambda key: tmp_path / "sys" / key


def test_a_name_tells_its_run() -> None:
    own = RunName.own()
    assert run_of(f"{own}hub") == own
    assert own.alive


def test_names_of_others_are_nobodys() -> None:
    assert [run_of(name) for name in ("lc1a-0yn3", "docker0", "lcrun", "lcrun-x-1-n0")] == [None] * 4


def test_dead_are_those_whose_process_is_gone_or_is_another_by_now() -> None:
    names = [f"{NOBODY}n0", f"{ME_BEFORE}n1", f"{RunName.own()}n2", "lc1a-0yn3"]
    assert dead(names) == sorted([f"{NOBODY}n0", f"{ME_BEFORE}n1"])


def test_folders_of_dead_runs_are_removed_and_others_kept(tmp_path: Path, no_namespaces: Path) -> None:
    root = tmp_path / "root"
    for name in (f"{NOBODY}abc", f"{RunName.own()}def", "mine"):
        (root / name / "inner").mkdir(parents=True)
    clean_up([root, root])
    assert sorted(path.name for path in root.iterdir()) == sorted([f"{RunName.own()}def", "mine"])


def test_settings_are_raised_once_and_restored(tmp_path: Path, settings: Callable[[str], Path]) -> None:
    settings("low").write_text("128\n")
    settings("high").write_text("9000\n")
    raise_sysctls(tmp_path, {"low": 1000, "high": 1000})
    assert [settings(key).read_text().strip() for key in ("low", "high")] == ["1000", "9000"]
    restore_sysctls(tmp_path)
    restore_sysctls(tmp_path)
    assert settings("low").read_text() == "128"


def test_settings_that_a_container_does_not_show_are_left_alone(
    tmp_path: Path, settings: Callable[[str], Path]
) -> None:
    settings("low").write_text("128\n")
    raise_sysctls(tmp_path, {"low": 1000, "hidden": 1000})
    assert settings("low").read_text() == "1000"
    assert not settings("hidden").exists()


def test_settings_that_a_dead_run_raised_are_restored(
    tmp_path: Path, no_namespaces: Path, settings: Callable[[str], Path]
) -> None:
    folder = tmp_path / "root" / f"{NOBODY}abc"
    folder.mkdir(parents=True)
    settings("low").write_text("128\n")
    raise_sysctls(folder, {"low": 1000})
    clean_up([tmp_path / "root"])
    assert settings("low").read_text() == "128"
