"""`layercast setup` is killed at any step: what it did can be taken back all the same, byte by byte."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peer.setup import docker
from peer.setup.contract import SetupRefused
from tests.unit.peer.setup.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUAY = "/etc/containerd/certs.d/quay.io/hosts.toml"
# What other steps leave is in files and folders that one of these names, or takes away.
_STEPS = ((Path, "replace"), (Path, "rename"), (Path, "unlink"), (Path, "rmdir"))


class Killed(BaseException):
    """No code of ours sees it, as none sees SIGKILL."""


class Killer:
    """Ends what runs at its `at`-th step that changes the disk."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.at = 0
        self._taken = 0
        for owner, name in _STEPS:
            patch.setattr(owner, name, self._counted(getattr(owner, name)))
        patch.setattr(shutil, "rmtree", self._in_steps)

    def run(self, work: Callable[[], object], at: int) -> bool:
        """Whether it came to its end."""
        self.at, self._taken = at, 0
        try:
            work()
        except Killed:
            return False
        finally:
            self.at = 0
        return True

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*words: Any, **named: Any) -> Any:
            self._taken += 1
            if self._taken == self.at:
                raise Killed
            return step(*words, **named)

        return counted

    def _in_steps(self, folder: Path, *, ignore_errors: bool = False) -> None:
        """As the real one: one entry after the other, in any order."""
        assert ignore_errors
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            if entry.is_dir():
                self._in_steps(entry, ignore_errors=True)
            else:
                entry.unlink()
        if folder.is_dir():
            folder.rmdir()


@pytest.fixture
def killer() -> Iterator[Killer]:
    with pytest.MonkeyPatch.context() as patch:
        yield Killer(patch)


def left(machine: Machine) -> tuple[dict[str, str], set[str], list[str]]:
    """Files, folders, and what is kept of a record."""
    kept = machine.root / "var/lib/layercast/setup"
    return machine.files(), machine.folders(), sorted(entry.name for entry in kept.iterdir()) if kept.exists() else []


def taken_back(machine: Machine, client: str) -> None:
    try:
        machine.undo(client)
    except SetupRefused as refused:
        assert "was not set up by this command" in str(refused)  # noqa: PT017 - either is right


def steps(folder: Path) -> Iterator[tuple[int, Path]]:
    """A number, and a machine of its own for each."""
    for at in range(1, 500):
        yield at, folder / str(at)
    raise AssertionError("it never came to its end")


def test_the_first_time(killer: Killer, tmp_path: Path) -> None:
    files = {docker.CONFIG: '{"debug": true}'}
    for at, root in steps(tmp_path):
        machine = Machine(root, files)
        before = left(machine)
        whole = killer.run(lambda machine=machine: machine.set_up("docker", proxy=True, ca="PEM\n"), at)  # type: ignore[misc]
        taken_back(machine, "docker")
        if not whole and left(machine) != before:
            # Killed before there was a record: nothing but what began to be one is there, and goes with the next run.
            assert machine.files() == files
            machine.set_up("docker")
            machine.undo("docker")
        assert left(machine) == before
        if whole:
            return


def test_with_other_registries_than_before(killer: Killer, tmp_path: Path) -> None:
    files = {"/etc/containerd/config.toml": "version = 2\n", QUAY: '[host."https://a.example"]\n'}
    for at, root in steps(tmp_path):
        machine = Machine(root, files)
        before = left(machine)
        machine.set_up("containerd", "quay.io")
        again = lambda machine=machine: machine.set_up("containerd", "lab.example", mirror="http://127.0.0.1:7001")  # noqa: E731
        whole = killer.run(again, at)
        machine.undo("containerd")
        assert left(machine) == before
        if whole:
            return


def test_while_it_takes_back(killer: Killer, tmp_path: Path) -> None:
    files = {docker.CONFIG: '{"debug": true}'}
    for at, root in steps(tmp_path):
        machine = Machine(root, files)
        before = left(machine)
        machine.set_up("docker", proxy=True, ca="PEM\n")
        whole = killer.run(lambda machine=machine: machine.undo("docker"), at)  # type: ignore[misc]
        taken_back(machine, "docker")
        assert machine.files() == files
        machine.set_up("docker")
        machine.undo("docker")
        assert left(machine) == before
        if whole:
            return
