"""Where the stores of a run lie."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from benchmarks.fanout import disk_space
from benchmarks.fanout.disk_space import find_disk_space, stores_bytes
from proto.errors import LocalError

MIB = 1 << 20
Usage = namedtuple("Usage", "free")


def with_space(monkeypatch: pytest.MonkeyPatch, *, memory: int, tmpfs: int, disk: int) -> None:
    monkeypatch.setattr(disk_space, "available_memory_bytes", lambda: memory * MIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage((tmpfs if path == Path("/dev/shm") else disk) * MIB))


def test_stores_are_in_memory_if_they_fit_beside_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_space(monkeypatch, memory=24_000, tmpfs=24_000, disk=90_000)
    assert find_disk_space(100, 64 * MIB, tmp_path, None).in_memory
    assert find_disk_space(250, 64 * MIB, tmp_path, None).folder == tmp_path
    assert find_disk_space(100, 64 * MIB, Path("/"), tmp_path).folder == tmp_path


def test_too_little_room_is_said_before_anything_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_space(monkeypatch, memory=24_000, tmpfs=24_000, disk=90_000)
    assert stores_bytes(200, 1024 * MIB) > 90_000 * MIB
    with pytest.raises(LocalError, match="free"):
        find_disk_space(200, 1024 * MIB, tmp_path, None)
    with pytest.raises(LocalError, match="of memory"):
        find_disk_space(900, MIB, tmp_path, None)
