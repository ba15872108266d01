"""What doctor sees of a client: its files, what it was set up with, and what the running program knows of them."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from peer.doctor import client_probe
from tests.unit.peer.setup.machine import MIRROR, Machine

if TYPE_CHECKING:
    from pathlib import Path

    from peer.doctor.facts import ClientFacts


def seen(client: str, machine: Machine, mirror: str = MIRROR, ca: str = "") -> ClientFacts:
    return next(iter(client_probe.probe([client], machine.root, mirror, (), ca)))


def test_clients_are_found_by_their_programs(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {"/usr/sbin/dockerd": "", "/usr/local/bin/k3s": ""})
    assert client_probe.installed(machine.root) == ["docker", "k3s"]


@pytest.mark.parametrize("client", ["docker", "containerd", "podman", "crio", "buildkit", "k3s"])
def test_a_client_is_set_up_or_not_or_for_another_port(client: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert seen(client, machine).wanted_files
    machine.set_up(client)
    assert seen(client, machine).wanted_files == ()
    other = seen(client, machine, "http://127.0.0.1:7001")
    assert (other.other_ports, other.was_set_up) == (("65001",), True)


def test_another_port_of_this_machine_is_no_mirror(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {"/etc/docker/daemon.json": '{"metrics-addr": "127.0.0.1:9323"}'})
    assert seen("docker", machine).other_ports == ()


@pytest.mark.parametrize("client", ["docker", "containerd", "podman", "buildkit", "k3s"])
def test_the_peer_may_be_named_by_localhost(client: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.set_up(client, mirror="http://localhost:65001")
    facts = seen(client, machine)
    assert (facts.wanted_files, facts.other_ports, facts.outside) == ((), (), ())


def test_what_it_was_set_up_with_is_expected_of_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.set_up("docker", "quay.io", proxy=True, ca="PEM\n")
    facts = seen("docker", machine, ca="PEM\n")
    assert (facts.wanted_files, facts.options) == ((), "--proxy --registry quay.io")
    assert seen("docker", machine, ca="NEW\n").wanted_files == ("/etc/docker/layercast-ca.pem",)


def test_a_registry_that_goes_past_the_peer_is_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {"/etc/containerd/certs.d/quay.io/hosts.toml": ""})
    machine.set_up("containerd")
    assert [registry for registry, _ in seen("containerd", machine).outside] == ["quay.io"]


def test_what_setup_would_refuse_is_told(tmp_path: Path) -> None:
    assert "not JSON" in seen("docker", Machine(tmp_path, {"/etc/docker/daemon.json": "{"})).refused


@pytest.mark.parametrize(("mirrors", "knows"), [([f"{MIRROR}/"], True), (["https://a.example/"], False)])
def test_a_running_docker_is_asked_what_it_knows(
    mirrors: list[str], knows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "docker.sock")
    monkeypatch.setattr(client_probe, "_DOCKER_SOCKET", path)
    body = json.dumps({"RegistryConfig": {"Mirrors": mirrors}}).encode()

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        assert client_probe._docker_knows(MIRROR) is knows
        thread.join()


def test_a_docker_that_does_not_run_is_taken_to_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_probe, "_DOCKER_SOCKET", str(tmp_path / "none"))
    assert client_probe._docker_knows(MIRROR)
