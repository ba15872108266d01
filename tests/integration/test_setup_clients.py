"""Real clients take the files that `layercast setup` makes of machines as they are, and find the peer in them."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.cluster.processes import run
from benchmarks.cluster.programs import clean_environment, program
from tests.support.client_configurations import CONFIGURATIONS
from tests.support.clients import DockerDaemon
from tests.support.clients.folders import ClientFolder
from tests.unit.peer.setup.machine import MIRROR, Machine

if TYPE_CHECKING:
    from pathlib import Path

CONTAINERD = "/etc/containerd/config.toml"


def machines(client: str, folder: Path) -> list[Machine]:
    """One for each configuration, set up."""
    made = [Machine(folder / str(number), files) for number, files in enumerate(CONFIGURATIONS[client])]
    for machine in made:
        machine.set_up(client)
    return made


@pytest.mark.client("containerd")
def test_containerd_takes_its_files(tmp_path: Path) -> None:
    for machine in machines("containerd", tmp_path):
        text = machine.read(CONTAINERD)
        if "version = 3" in text or "disabled_plugins" in text:
            # containerd 2 reads the one, which Debian does not have. A disabled plugin is left out of what is told.
            continue
        # The files that it imports are the machine's, too.
        machine.write(CONTAINERD, text.replace('"/etc/', f'"{machine.root}/etc/') if "imports" in text else text)
        argv: list[str | Path] = [
            program("containerd"),
            "--config",
            machine.root / CONTAINERD.lstrip("/"),
            "config",
            "dump",
        ]
        dumped: dict[str, Any] = tomllib.loads(run(argv, env=clean_environment()).stdout)
        folder = dumped["plugins"]["io.containerd.grpc.v1.cri"]["registry"]["config_path"].split(":")[0]
        hosts = tomllib.loads(machine.read(f"{folder}/_default/hosts.toml"))["host"]
        assert next(iter(hosts)) == MIRROR, text


@pytest.mark.root
@pytest.mark.client("podman", "unshare", "mount")
def test_podman_takes_its_files(tmp_path: Path) -> None:
    # Each takes podman a second or three: one with a location of its own, one with a mirror.
    made = [machines("podman", tmp_path / "machines")[number] for number in (4, 6)]
    # podman looks at one place alone for drop-ins: each machine's stands there, for the time of one command.
    script = (
        "mount --bind $0 /etc/containers; for machine; do rm -rf $0/*; cp -r $machine/etc/containers/. $0; "
        "podman --root $0/../p --runroot $0/../p info --format '{{json .Registries}}'; done"
    )
    with ClientFolder("lcq") as folder:
        here = folder.directory / "c"
        here.mkdir()
        argv: list[str | Path] = [
            program("unshare"),
            "--mount",
            "sh",
            "-ec",
            script,
            here,
            *(machine.root for machine in made),
        ]
        said = run(argv, env=clean_environment(HOME=str(tmp_path)), timeout_s=120.0).stdout.splitlines()
    assert len(said) == len(made)
    for line in said:
        mirrors = json.loads(line)["docker.io"]["Mirrors"]
        assert mirrors[0]["Location"].startswith("127.0.0.1:65001/")
        assert mirrors[0]["Insecure"] is True


@pytest.mark.root
@pytest.mark.client("dockerd", "docker")
def test_dockerd_takes_its_file(tmp_path: Path) -> None:
    path = "/etc/docker/daemon.json"
    machine = Machine(tmp_path, {path: '{"registry-mirrors": ["https://a.example"], "live-restore": true}\n'})
    machine.set_up("docker")
    with DockerDaemon(further=json.loads(machine.read(path))) as dockerd:
        mirrors = json.loads(dockerd.docker("info", "--format", "{{json .RegistryConfig.Mirrors}}"))
    assert mirrors == [f"{MIRROR}/", "https://a.example/"]
