"""Files on a disk: all of a client's are written or none, by whom they belong to, and they can be taken back."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from peer.setup import containerd, docker
from peer.setup.contract import SetupRefused
from peer.setup.diff import unified
from peer.setup.disk import DiskFiles
from tests.unit.peer.setup.machine import MIRROR, Machine

if TYPE_CHECKING:
    from pathlib import Path

BACKUP = "var/lib/layercast/setup/docker/before/etc/docker/daemon.json"


def test_the_mode_stays_and_the_backup_is_for_its_owner_alone(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {docker.CONFIG: '{"debug": true}'})
    file = tmp_path / docker.CONFIG.lstrip("/")
    file.chmod(0o640)
    machine.set_up("docker")
    assert file.stat().st_mode & 0o777 == 0o640
    backup = tmp_path / BACKUP
    assert backup.read_text() == '{"debug": true}'
    assert backup.stat().st_mode & 0o777 == 0o600
    machine.undo("docker")
    assert file.stat().st_mode & 0o777 == 0o640
    assert not (tmp_path / "var/lib/layercast/setup").exists()


def test_a_link_is_refused(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {"/data/daemon.json": "{}"})
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/docker/daemon.json").symlink_to("../../data/daemon.json")
    with pytest.raises(SetupRefused, match="is a symbolic link to"):
        machine.set_up("docker")
    assert machine.read("/data/daemon.json") == "{}"


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/docker").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SetupRefused, match="lead out of"):
        machine.set_up("docker")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_where_the_file_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "etc/docker/daemon.json").mkdir(parents=True)
    with pytest.raises(SetupRefused, match="no file"):
        Machine(tmp_path).set_up("docker")


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/docker/daemon.json").write_bytes(b"\xff")
    with pytest.raises(SetupRefused, match="not UTF-8"):
        Machine(tmp_path).set_up("docker")


def test_a_disk_that_fails_in_between_leaves_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, {docker.CONFIG: "{}"})
    write, written = DiskFiles.write, []

    def fails_at_the_drop_in(self: DiskFiles, path: str, text: str, mode: int | None = None) -> None:
        if path == docker.DROP_IN:
            raise OSError(28, "No space left on device", path)
        written.append(path)
        write(self, path, text, mode)

    monkeypatch.setattr(DiskFiles, "write", fails_at_the_drop_in)
    with pytest.raises(SetupRefused, match="No space left on device: nothing was changed"):
        machine.set_up("docker", proxy=True, ca="PEM\n")
    assert docker.CA in written
    assert machine.files() == {docker.CONFIG: "{}"}


@pytest.mark.parametrize("path", [docker.CONFIG, docker.CA, docker.DROP_IN])
def test_a_file_that_cannot_be_replaced_leaves_all_as_it_was(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an immutable one: what was never written need not be put back, and the record says what is."""
    files = {docker.CONFIG: "{}", docker.CA: "OLD\n"}
    machine = Machine(tmp_path, files)
    write = DiskFiles.write

    def fails(self: DiskFiles, at: str, text: str, mode: int | None = None) -> None:
        if at == path:
            raise PermissionError(1, "Operation not permitted", at)
        write(self, at, text, mode)

    monkeypatch.setattr(DiskFiles, "write", fails)
    with pytest.raises(SetupRefused, match="Operation not permitted: nothing was changed"):
        machine.set_up("docker", proxy=True, ca="PEM\n")
    assert machine.files() == files
    with pytest.raises(SetupRefused, match="was not set up by this command"):
        machine.undo("docker")


def test_owner_and_further_attributes_stay(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {docker.CONFIG: "{}"})
    file = tmp_path / docker.CONFIG.lstrip("/")
    try:
        os.setxattr(file, "user.note", b"ours")
    except OSError:
        pytest.skip("this disk keeps no attributes")
    if os.geteuid() == 0:
        os.chown(file, 1234, 2345)
    before = file.stat()
    for step in (machine.set_up, machine.undo):
        step("docker")
        after = file.stat()
        assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
        assert os.getxattr(file, "user.note") == b"ours"


def test_what_would_be_no_json_without_our_line_is_left(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {docker.CONFIG: "{\n}\n"})
    machine.set_up("docker")
    changed = machine.read(docker.CONFIG).replace("{\n", '{\n  "debug": true,\n', 1)
    machine.write(docker.CONFIG, changed)
    with pytest.raises(SetupRefused, match="was changed since"):
        machine.undo("docker")
    assert machine.read(docker.CONFIG) == changed


def test_a_key_below_our_header_does_not_come_under_another(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {containerd.CONFIG: "version = 2\n\n[debug]\n  level = 'info'\n"})
    machine.set_up("containerd")
    changed = machine.read(containerd.CONFIG) + "headers = {}\n"
    machine.write(containerd.CONFIG, changed)
    with pytest.raises(SetupRefused, match="was changed since"):
        machine.undo("containerd")
    assert machine.read(containerd.CONFIG) == changed


def test_a_mirror_that_was_added_behind_ours_stays(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {docker.CONFIG: '{\n  "registry-mirrors": [\n    "https://a.example"\n  ]\n}\n'})
    machine.set_up("docker")
    text = machine.read(docker.CONFIG).replace('a.example"\n', 'a.example",\n    "https://b.example"\n')
    machine.write(docker.CONFIG, text)
    machine.undo("docker")
    assert json.loads(machine.read(docker.CONFIG)) == {"registry-mirrors": ["https://a.example", "https://b.example"]}


def test_what_was_never_set_up_is_not_taken_back(tmp_path: Path) -> None:
    with pytest.raises(SetupRefused, match="was not set up by this command"):
        Machine(tmp_path).undo("docker")


def test_lines_of_ours_that_were_changed_are_named_and_nothing_is_done(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.set_up("docker")
    changed = machine.read(docker.CONFIG).replace("65001", "7001")
    machine.write(docker.CONFIG, changed)
    with pytest.raises(SetupRefused, match=r'was changed since.*"registry-mirrors": \["http://127.0.0.1:65001"\]'):
        machine.undo("docker")
    assert machine.read(docker.CONFIG) == changed


def test_a_half_done_set_up_is_taken_back(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {docker.CONFIG: "{}"})
    machine.set_up("docker", proxy=True, ca="PEM\n")
    machine.write(docker.CONFIG, "{}")
    os.unlink(tmp_path / docker.CA.lstrip("/"))
    machine.undo("docker")
    assert machine.files() == {docker.CONFIG: "{}"}


@pytest.mark.parametrize(
    "line",
    [
        '      password: "hunter2"',
        "      password: hunter2",
        '{"auth": "hunter2"}',
        "identity_token = 'hunter2'",
        "Environment=HTTPS_PROXY=http://me:hunter2@proxy.example",
        '  Authorization = "Basic hunter2"',
    ],
)
def test_a_diff_shows_no_password(line: str) -> None:
    assert "hunter2" not in unified("/a", f"{line}\n", f"{line}\nmore\n")


def test_a_diff_shows_what_changes() -> None:
    assert unified("/a", None, f"a = '{MIRROR}'\n").splitlines() == [
        "--- /dev/null",
        "+++ /a",
        "@@ -0,0 +1 @@",
        f"+a = '{MIRROR}'",
    ]
