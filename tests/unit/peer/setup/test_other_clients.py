"""registries.conf, buildkitd.toml and k3s's registries.yaml."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from peer.setup import buildkit, k3s, registries_conf
from peer.setup.contract import SetupRefused
from tests.unit.peer.setup.machine import MIRROR, Machine

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = "127.0.0.1:65001"


def drop_in(machine: Machine) -> dict[str, Any]:
    entries = tomllib.loads(machine.read(registries_conf.DROP_IN))["registry"]
    return {entry["prefix"]: entry for entry in entries}


def test_podman_has_a_mirror_for_each_well_known_registry_and_each_that_is_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.set_up("podman", "registry.example.com")
    for registry in ("docker.io", "quay.io", "registry.example.com"):
        assert drop_in(machine)[registry] == {
            "prefix": registry,
            "location": registry,
            "mirror": [{"location": f"{ADDRESS}/{registry}", "insecure": True}],
        }


def test_podman_has_no_mirror_for_a_registry_with_a_port_of_which_it_would_pull_nothing_more(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    notes = machine.set_up("podman", "registry.example.com:5000").notes
    assert "registry.example.com:5000" not in drop_in(machine)
    assert any(note.startswith("registry.example.com:5000 has a port") for note in notes)


def test_what_registries_conf_says_of_a_registry_is_said_again_behind_the_peer(tmp_path: Path) -> None:
    text = (
        '[[registry]]\nprefix = "quay.io"\nlocation = "q.example/quay"\n[[registry.mirror]]\nlocation = "n.example"\n'
    )
    machine = Machine(tmp_path, {registries_conf.CONFIG: text})
    machine.set_up("podman")
    assert drop_in(machine)["quay.io"] == {
        "prefix": "quay.io",
        "location": "q.example/quay",
        "mirror": [{"location": f"{ADDRESS}/q.example/quay", "insecure": True}, {"location": "n.example"}],
    }


def test_a_blocked_registry_stays_blocked(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {registries_conf.CONFIG: '[[registry]]\nlocation = "quay.io"\nblocked = true\n'})
    assert "quay.io stays blocked, as registries.conf says" in machine.set_up("podman").notes
    assert "quay.io" not in drop_in(machine)


def test_a_later_drop_in_that_would_win_is_refused(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {f"{registries_conf.FOLDER}/zzz.conf": '[[registry]]\nlocation = "quay.io"\n'})
    with pytest.raises(SetupRefused, match="rename it"):
        machine.set_up("crio")


def test_a_later_drop_in_of_another_registry_is_left(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {f"{registries_conf.FOLDER}/zzz.conf": '[[registry]]\nlocation = "lab.example"\n'})
    assert any("lab.example" in note for note in machine.set_up("crio").notes)


def test_a_file_of_version_1_counts(tmp_path: Path) -> None:
    text = '[registries.block]\nregistries = ["quay.io"]\n[registries.insecure]\nregistries = ["lab.example"]\n'
    machine = Machine(tmp_path, {registries_conf.CONFIG: text})
    assert "quay.io stays blocked, as registries.conf says" in machine.set_up("podman", "lab.example").notes
    assert "quay.io" not in drop_in(machine)
    assert drop_in(machine)["lab.example"]["insecure"] is True


@pytest.mark.parametrize(
    "text",
    ['registry = ["quay.io"]\n', '[[registry]]\nlocation = "quay.io"\nmirror = ["a.example"]\n', "\ufeff# Ours.\n"],
)
def test_a_registries_conf_that_podman_would_not_take_is_refused(text: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path, {registries_conf.CONFIG: text})
    with pytest.raises(SetupRefused, match=r"registries\.conf"):
        machine.set_up("podman")
    assert machine.files() == {registries_conf.CONFIG: text}


def test_crio_after_podman_is_done_already_and_either_takes_it_back(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.set_up("podman")
    assert machine.set_up("crio").changes == []
    machine.undo("crio")
    assert machine.files() == {}


def test_buildkit_has_a_mirror_for_each_registry_and_speaks_http_with_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {buildkit.CONFIG: '[registry."docker.io"]\n  mirrors = ["near.example"] # near\n'})
    machine.set_up("buildkit", "registry.example.com")
    registries = tomllib.loads(machine.read(buildkit.CONFIG))["registry"]
    assert registries["docker.io"] == {"mirrors": [ADDRESS, "near.example"]}
    assert registries["registry.example.com"] == {"mirrors": [ADDRESS]}
    assert registries[ADDRESS] == {"http": True}


def test_k3s_has_the_peer_for_all_and_before_the_endpoints_of_a_registry_that_is_named(tmp_path: Path) -> None:
    text = "mirrors:\n  quay.io:\n    endpoint:\n      - https://near.example # near\n"
    machine = Machine(tmp_path, {k3s.CONFIG: text})
    machine.set_up("k3s", "quay.io")
    after = machine.read(k3s.CONFIG)
    assert yaml.safe_load(after)["mirrors"] == {
        "*": {"endpoint": [MIRROR]},
        "quay.io": {"endpoint": [MIRROR, "https://near.example"]},
    }
    assert "      - https://near.example # near\n" in after


def test_k3s_names_a_registry_that_goes_past_the_peer(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {k3s.CONFIG: "mirrors:\n  quay.io:\n    endpoint: [https://near.example]\n"})
    assert any("add --registry quay.io" in note for note in machine.set_up("k3s").notes)


def test_a_file_of_k3s_with_nothing_but_the_begin_of_a_document_is_filled(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {k3s.CONFIG: "---\n"})
    machine.set_up("k3s")
    assert yaml.safe_load(machine.read(k3s.CONFIG)) == {"mirrors": {"*": {"endpoint": [MIRROR]}}}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("mirrors: [", "not YAML"),
        ("- mirrors\n", "expected a mapping"),
        ("mirrors:\n  '*':\n    rewrite: {'^a': b}\n", "rewrite"),
        ("mirrors:\n  '*':\n    endpoint: none\n", "expected a list"),
        ("mirrors: {}\n...\n---\na: 1\n", "not YAML"),
        ("mirrors: &a\n  b: {}\nc: *a\nd: !!python/object:e {}\n", "not YAML"),
    ],
)
def test_a_file_of_k3s_that_is_not_understood_is_refused(text: str, why: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path, {k3s.CONFIG: text})
    with pytest.raises(SetupRefused, match=why):
        machine.set_up("k3s")
    assert machine.files() == {k3s.CONFIG: text}
