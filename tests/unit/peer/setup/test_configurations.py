"""Twelve configurations of each client: set up, set up again, taken back byte by byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.client_configurations import CONFIGURATIONS
from tests.unit.peer.setup.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path

EACH = [
    pytest.param(client, files, id=f"{client}-{number}")
    for client, configurations in CONFIGURATIONS.items()
    for number, files in enumerate(configurations)
]
# Two clients with one file need no two tests of it, and JSON has no comments.
WITH_COMMENTS = [each for each in EACH if each.values[0] not in ("docker", "crio")]


def test_there_are_twelve_of_each() -> None:
    assert {len(configurations) for configurations in CONFIGURATIONS.values()} == {12}


@pytest.mark.parametrize(("client", "files"), EACH)
def test_what_was_set_up_twice_changes_once_and_is_taken_back_byte_by_byte(
    client: str, files: dict[str, str], tmp_path: Path
) -> None:
    machine = Machine(tmp_path, files)
    folders = machine.folders()
    assert machine.set_up(client).changes
    after = machine.files()
    assert any("127.0.0.1:65001" in text for text in after.values())
    assert machine.set_up(client).changes == []
    assert machine.files() == after
    assert machine.undo(client).changes
    assert machine.files() == files
    assert machine.folders() == folders


@pytest.mark.parametrize(("client", "files"), EACH[::5])
def test_another_mirror_and_registry_replace_the_first_and_are_taken_back(
    client: str, files: dict[str, str], tmp_path: Path
) -> None:
    machine = Machine(tmp_path, files)
    machine.set_up(client)
    registries = () if client == "docker" else ("registry.example.com:5000",)
    machine.set_up(client, *registries, mirror="http://127.0.0.1:7001")
    assert not any("65001" in text for text in machine.files().values())
    machine.undo(client)
    assert machine.files() == files


@pytest.mark.parametrize(("client", "files"), WITH_COMMENTS)
def test_lines_that_others_add_around_ours_stay(client: str, files: dict[str, str], tmp_path: Path) -> None:
    machine = Machine(tmp_path, files)
    machine.set_up(client)
    for path, text in machine.files().items():
        if path in files and text.endswith("\n"):
            machine.write(path, f"# Before.\n{text}# Behind.\n")
    machine.undo(client)
    for path, text in machine.files().items():
        left = [line for line in text.splitlines() if line not in ("# Before.", "# Behind.")]
        assert left == files[path].splitlines()
