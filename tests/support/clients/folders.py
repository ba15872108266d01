"""Folders that a client daemon leaves mounts and deep trees in, removed all the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cluster.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator


def remove_tree(directory: Path) -> None:
    """Unmount what is mounted below `directory`, then remove it; nothing is to be done the second time."""
    if not directory.exists():
        return
    for mount_point in mounts_below(directory):
        run(["umount", "--lazy", mount_point], check=False)
    shutil.rmtree(directory)


def mounts_below(directory: Path) -> Iterator[str]:
    """Mount points at and below `directory`, the innermost first."""
    root = str(directory.resolve())
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return reversed([point for point in points if point == root or point.startswith(root + "/")])


def write_hosts_toml(directory: Path, host: str, mirror_url: str) -> None:
    """containerd's certs.d entry: pull what is on `host` ("_default": any) through `mirror_url`.

    There is no `server` line, so the registry itself is the fallback.
    """
    folder = directory / host
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts.toml").write_text(f'[host."{mirror_url}"]\n  capabilities = ["pull", "resolve"]\n')
