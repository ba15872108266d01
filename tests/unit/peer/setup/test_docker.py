from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from peer.setup import docker
from peer.setup.contract import SetupRefused
from tests.unit.peer.setup.machine import MIRROR, Machine

if TYPE_CHECKING:
    from pathlib import Path

UNIT = "/etc/systemd/system/docker.service.d/proxy.conf"


def test_the_peer_comes_before_other_mirrors_and_nothing_else_changes(tmp_path: Path) -> None:
    machine = Machine(
        tmp_path, {docker.CONFIG: '{\n  "debug": true,\n  "registry-mirrors": ["https://a.example"]\n}\n'}
    )
    machine.set_up("docker")
    assert machine.read(docker.CONFIG) == (
        f'{{\n  "debug": true,\n  "registry-mirrors": ["{MIRROR}", "https://a.example"]\n}}\n'
    )


def test_an_option_of_its_own_line_is_put_first(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {docker.CONFIG: '{\n  "debug": true\n}\n'})
    machine.set_up("docker")
    assert machine.read(docker.CONFIG) == f'{{\n  "registry-mirrors": ["{MIRROR}"],\n  "debug": true\n}}\n'


def test_an_option_that_was_added_since_stays(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {docker.CONFIG: '{\n  "debug": true\n}\n'})
    machine.set_up("docker")
    machine.write(docker.CONFIG, machine.read(docker.CONFIG).replace("true\n", 'true,\n  "ipv6": true\n'))
    machine.undo("docker")
    assert machine.read(docker.CONFIG) == '{\n  "debug": true,\n  "ipv6": true\n}\n'


def test_a_mirror_that_was_there_by_hand_is_left(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {docker.CONFIG: f'{{"registry-mirrors": ["{MIRROR}/"]}}'})
    assert machine.set_up("docker").changes == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{,}", "not JSON"),
        ('{"debug": true, // yes\n}', "not JSON"),
        ('{"debug": true, "debug": false}', "twice"),
        ("[]", "expected an object"),
        ('{"registry-mirrors": "https://a.example"}', "expected an array"),
    ],
)
def test_a_file_that_docker_would_not_take_is_refused(text: str, why: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path, {docker.CONFIG: text})
    with pytest.raises(SetupRefused, match=why):
        machine.set_up("docker")
    assert machine.files() == {docker.CONFIG: text}


def test_another_registry_needs_the_proxy(tmp_path: Path) -> None:
    with pytest.raises(SetupRefused, match="--proxy"):
        Machine(tmp_path).set_up("docker", "quay.io")


def test_where_docker_reads_hosts_toml_another_registry_has_a_mirror(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {docker.CONFIG: '{"features": {"containerd-snapshotter": true}}'})
    machine.set_up("docker", "quay.io")
    assert MIRROR in machine.read("/etc/docker/certs.d/quay.io/hosts.toml")
    assert MIRROR in machine.read("/etc/docker/certs.d/_default/hosts.toml")


def test_a_mirror_among_the_flags_is_refused(tmp_path: Path) -> None:
    flags = "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd --registry-mirror https://a.example\n"
    machine = Machine(tmp_path, {UNIT: flags})
    with pytest.raises(SetupRefused, match="--registry-mirror"):
        machine.set_up("docker")


def test_a_mirror_among_the_flags_of_a_packages_drop_in_is_refused(tmp_path: Path) -> None:
    drop_in = "/usr/lib/systemd/system/docker.service.d/vendor.conf"
    machine = Machine(
        tmp_path, {drop_in: "[Service]\nExecStart=/usr/sbin/dockerd --registry-mirror=https://a.example\n"}
    )
    with pytest.raises(SetupRefused, match="--registry-mirror"):
        machine.set_up("docker")


def test_a_docker_that_reads_another_file_is_refused(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {UNIT: "[Service]\nExecStart=/usr/sbin/dockerd --config-file /opt/docker.json\n"})
    with pytest.raises(SetupRefused, match=r"/opt/docker\.json"):
        machine.set_up("docker")


def test_the_proxy_way_has_a_drop_in_and_the_nodes_certificate(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    folders = machine.folders()
    machine.set_up("docker", "quay.io", proxy=True, ca="PEM\n")
    assert machine.read(docker.CA) == "PEM\n"
    assert machine.read(docker.DROP_IN).splitlines()[1:] == [
        "[Service]",
        f'Environment="HTTPS_PROXY={MIRROR}"',
        f'Environment="SSL_CERT_FILE={docker.CA}"',
    ]
    assert json.loads(machine.read(docker.CONFIG)) == {"registry-mirrors": [MIRROR]}
    machine.undo("docker")
    assert machine.files() == {}
    assert machine.folders() == folders


def test_insecure_registries_are_asked_by_http_proxy(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {docker.CONFIG: '{"insecure-registries": ["10.0.0.5:5000"]}'})
    machine.set_up("docker", proxy=True, ca="PEM\n")
    assert f'Environment="HTTP_PROXY={MIRROR}"' in machine.read(docker.DROP_IN)


def test_a_proxy_that_docker_has_already_is_refused(tmp_path: Path) -> None:
    for path, text in ((UNIT, '[Service]\nEnvironment="https_proxy=http://p"\n'), (docker.CONFIG, '{"proxies": {}}')):
        with pytest.raises(SetupRefused, match="egress_proxy"):
            Machine(tmp_path / path[-3:], {path: text}).set_up("docker", proxy=True, ca="PEM\n")


def test_without_the_peers_certificate_the_proxy_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupRefused, match="start layercast-peer once"):
        Machine(tmp_path).set_up("docker", proxy=True)
