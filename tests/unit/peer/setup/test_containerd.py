from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from peer.setup import containerd
from peer.setup.contract import SetupRefused
from tests.unit.peer.setup.machine import MIRROR, Machine

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT = "/etc/containerd/certs.d/_default/hosts.toml"
QUAY = "/etc/containerd/certs.d/quay.io/hosts.toml"
CRI = 'plugins."io.containerd.grpc.v1.cri"'


def test_comments_and_order_stay(tmp_path: Path) -> None:
    text = (
        f"# Ours.\nversion = 2 # two\n\n[{CRI}.registry] # here\n  config_path = ''\n\n[debug] # last\n  level = '1'\n"
    )
    machine = Machine(tmp_path, {containerd.CONFIG: text})
    machine.set_up("containerd")
    assert machine.read(containerd.CONFIG) == text.replace("''", '"/etc/containerd/certs.d"')


def test_a_folder_that_is_configured_is_used(tmp_path: Path) -> None:
    text = f'version = 2\n[{CRI}.registry]\nconfig_path = "/data/certs.d"\n'
    machine = Machine(tmp_path, {containerd.CONFIG: text})
    machine.set_up("containerd")
    assert machine.read(containerd.CONFIG) == text
    assert MIRROR in machine.read("/data/certs.d/_default/hosts.toml")


@pytest.mark.parametrize(
    ("version", "section"),
    [
        ("", "cri"),
        ("version = 2", "io.containerd.grpc.v1.cri"),
        ("version = 3", "io.containerd.cri.v1.images"),
    ],
)
def test_each_version_of_the_file_has_its_own_section(version: str, section: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path, {containerd.CONFIG: f"root = '/data'\n{version}\n"})
    machine.set_up("containerd")
    config = tomllib.loads(machine.read(containerd.CONFIG))
    assert config["plugins"][section]["registry"] == {"config_path": "/etc/containerd/certs.d"}


def test_the_peer_stands_before_other_hosts(tmp_path: Path) -> None:
    text = 'server = "https://quay.io"\n\n# Near.\n[host."https://q.example"]\n  capabilities = ["pull"]\n'
    machine = Machine(tmp_path, {QUAY: text})
    machine.set_up("containerd", "quay.io")
    after = machine.read(QUAY)
    assert list(tomllib.loads(after)["host"]) == [MIRROR, "https://q.example"]
    assert after.endswith('\n# Near.\n[host."https://q.example"]\n  capabilities = ["pull"]\n')


def test_a_folder_with_certificates_alone_goes_on_trusting_them(tmp_path: Path) -> None:
    folder = "/etc/containerd/certs.d/10.0.0.5_5000_"
    names = ("ca.crt", "node.cert", "node.key")
    machine = Machine(tmp_path, {f"{folder}/{name}": "PEM\n" for name in names})
    machine.set_up("containerd", "10.0.0.5:5000")
    hosts = tomllib.loads(machine.read(f"{folder}/hosts.toml"))
    assert hosts["server"] == "https://10.0.0.5:5000"
    assert hosts["ca"] == ["ca.crt"]
    assert hosts["client"] == [["node.cert", "node.key"]]
    assert list(hosts["host"]) == [MIRROR]


def test_a_folder_that_hides_the_default_is_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {QUAY: 'server = "https://quay.io"\n'})
    assert any("add --registry quay.io" in note for note in machine.set_up("containerd").notes)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (f'[{CRI}.registry.mirrors."docker.io"]\nendpoint = ["https://a.example"]\n', r"registry\.mirrors"),
        (f'[{CRI}.registry.configs."a.example".tls]\ninsecure_skip_verify = true\n', r"configs\.\*\.tls"),
        ("version = 4", "not TOML"),
    ],
)
def test_what_the_cri_plugin_would_not_take_is_refused(lines: str, why: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path, {containerd.CONFIG: f"version = 2\n{lines}"})
    with pytest.raises(SetupRefused, match=why):
        machine.set_up("containerd")
    assert list(machine.files()) == [containerd.CONFIG]


def test_mirrors_in_an_imported_file_are_refused(tmp_path: Path) -> None:
    mirrors = f'version = 2\n[{CRI}.registry.mirrors."docker.io"]\nendpoint = ["https://a.example"]\n'
    files = {
        containerd.CONFIG: 'version = 2\nimports = ["conf.d/*.toml"]\n',
        "/etc/containerd/conf.d/a.toml": mirrors,
    }
    with pytest.raises(SetupRefused, match="conf"):
        Machine(tmp_path, files).set_up("containerd")


def test_a_disabled_cri_plugin_is_told(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {containerd.CONFIG: 'disabled_plugins = ["cri"]\n'})
    assert any("disables the CRI plugin" in note for note in machine.set_up("containerd").notes)
    assert tomllib.loads(machine.read(DEFAULT)) == {"host": {MIRROR: {"capabilities": ["pull", "resolve"]}}}


def test_an_imported_section_that_replaces_the_whole_one_gets_the_folder(tmp_path: Path) -> None:
    """containerd 1 takes nothing of a plugin's section from the importing file then."""
    imported = "/etc/containerd/conf.d/99-gpu.toml"
    gpu = f'version = 2\n[{CRI}.containerd]\n  default_runtime_name = "nvidia"\n'
    files = {
        containerd.CONFIG: f'version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n[{CRI}.registry]\n'
        'config_path = "/data/certs.d"\n',
        imported: gpu,
    }
    machine = Machine(tmp_path, files)
    notes = machine.set_up("containerd").notes
    config = tomllib.loads(machine.read(imported))
    assert config["plugins"]["io.containerd.grpc.v1.cri"]["registry"] == {"config_path": "/data/certs.d"}
    assert MIRROR in machine.read("/data/certs.d/_default/hosts.toml")
    assert any(note.startswith(imported) for note in notes)
    assert machine.set_up("containerd").changes == []
    machine.undo("containerd")
    assert machine.files() == files


def test_a_file_that_an_imported_one_imports_counts(tmp_path: Path) -> None:
    files = {
        containerd.CONFIG: 'version = 2\nimports = ["a.toml"]\n',
        "/etc/containerd/a.toml": 'imports = ["b/b.toml"]\n',
        "/etc/containerd/b/b.toml": f'[{CRI}.registry]\nconfig_path = "/data/certs.d"\n',
    }
    machine = Machine(tmp_path, files)
    machine.set_up("containerd")
    assert MIRROR in machine.read("/data/certs.d/_default/hosts.toml")


def test_hosts_that_would_stay_before_the_peer_are_refused(tmp_path: Path) -> None:
    text = 'host."https://q.example".capabilities = ["pull"]\n'
    machine = Machine(tmp_path, {QUAY: text})
    with pytest.raises(SetupRefused, match="first by hand"):
        machine.set_up("containerd", "quay.io")


def test_certificates_beside_what_is_said_of_all_name_no_server(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {"/etc/containerd/certs.d/_default/ca.crt": "PEM\n"})
    machine.set_up("containerd")
    assert tomllib.loads(machine.read(DEFAULT)) == {
        "ca": ["ca.crt"],
        "host": {MIRROR: {"capabilities": ["pull", "resolve"]}},
    }


def test_a_file_that_begins_with_a_byte_order_mark_keeps_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {containerd.CONFIG: "\ufeffversion = 2\n", QUAY: '\ufeff[host."https://a.example"]\n'})
    machine.set_up("containerd", "quay.io")
    assert machine.read(containerd.CONFIG).startswith("\ufeffversion = 2\n")
    assert list(tomllib.loads(machine.read(QUAY)[1:])["host"]) == [MIRROR, "https://a.example"]


@pytest.mark.parametrize("text", ["version = [2]\n", 'version = "2"\n', "version = 2\nplugins = 1\n"])
def test_a_file_of_another_form_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(SetupRefused, match=r"config\.toml"):
        Machine(tmp_path, {containerd.CONFIG: text}).set_up("containerd")
