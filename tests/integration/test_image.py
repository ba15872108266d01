"""The container image: what it holds, and that podman, containerd and the chart's pods run it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.cluster.processes import ManagedProcess
from benchmarks.cluster.programs import DEBIAN_PATH
from proto import VERSION
from proto.wire.join import parse_join_token
from tests.support.clients import Containerd, Podman
from tests.support.rendered_chart import manifests

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
REFERENCE = f"localhost/layercast:{VERSION}"
USER = "10001:10001"
# Of whatever moves the whole image, on a machine that is busy.
IMAGE_TIMEOUT_S = 900.0
ARCHIVE_BYTES_MAX = 100 << 20
# What a machine lets a test set, with root's rights taken from it.
LIMITS = ("--ulimit=nofile=8192:8192", "--ulimit=nproc=4096:4096")
# What apt-get and pip say where they get no answer, or not what they asked for.
OUT_OF_REACH = re.compile(r"^E: |^ERROR: (?:Could not|No matching)|NewConnectionError|Read timed out", re.MULTILINE)

pytestmark = [pytest.mark.root, pytest.mark.client("buildah", "podman", "containerd", "ctr")]


@dataclass(frozen=True)
class BuiltImage:
    """As `make image` leaves it; `config` and `layer` are what is in `archive`."""

    archive: Path
    config: dict[str, Any]
    layer: list[tarfile.TarInfo]
    contents: dict[str, Any]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """Not compiled, which takes minutes: `make compiled` has tests of its own."""
    folder = tmp_path_factory.mktemp("image")
    environment = {**os.environ, "LAYERCAST_COMPILE": "0", "PATH": f"{DEBIAN_PATH}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(ROOT / "deploy/image/build"), sys.executable, str(folder)],
        env=environment, capture_output=True, text=True, timeout=IMAGE_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode and OUT_OF_REACH.search(done.stderr):
        pytest.skip(f"the image's packages cannot be fetched: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    archive = folder / f"layercast-{VERSION}.oci.tar"
    with tarfile.open(archive) as outer:

        def blob(digest: str) -> Any:
            return outer.extractfile(f"blobs/sha256/{digest.removeprefix('sha256:')}")

        index = json.load(outer.extractfile("index.json"))  # type: ignore[arg-type]
        manifest = json.load(blob(index["manifests"][0]["digest"]))
        config = json.load(blob(manifest["config"]["digest"]))
        with tarfile.open(fileobj=blob(manifest["layers"][0]["digest"])) as layer:
            files = layer.getmembers()
    contents = json.loads((folder / f"layercast-{VERSION}.spdx.json").read_text())
    return BuiltImage(archive, config, files, contents)


@pytest.fixture(scope="module")
def podman(built: BuiltImage) -> Iterator[Podman]:
    """It has the image, on overlay storage, which copies nothing for a container."""
    with Podman([], partial=True) as running:
        running.run("load", "--quiet", "--input", built.archive, timeout_s=IMAGE_TIMEOUT_S)
        yield running


def test_it_is_small_and_nobody_s_but_an_ordinary_user_s(built: BuiltImage) -> None:
    assert built.archive.stat().st_size < ARCHIVE_BYTES_MAX
    assert built.config["config"]["User"] == USER
    assert [file.name for file in built.layer if file.isfile() and file.mode & 0o6000] == []
    assert [file.name for file in built.layer if file.isfile() and file.mode & 0o002] == []


def test_the_list_of_what_it_holds_has_every_package_of_both_kinds(built: BuiltImage) -> None:
    listed = [package["externalRefs"][0]["referenceLocator"] for package in built.contents["packages"]]
    assert len(set(listed)) == len(listed)
    names = {re.split(r"[/@]", purl)[-2] for purl in listed}
    debian = set(re.findall(r"^[^#\s]+", (ROOT / "deploy/image/packages").read_text(), re.MULTILINE))
    python = {
        re.sub(r"[-_.]+", "-", match[1]).lower()
        for file in built.layer
        if (match := re.fullmatch(r"(?:\./)?opt/layercast/([^/]+)-[^-/]+\.dist-info/?", file.name))
    }
    assert {"layercast", "aiohttp"} <= python
    assert names == debian | python
    assert not python & {"pytest", "mypy", "ruff"}


def test_podman_runs_it_with_nothing_but_a_folder_to_write_to(podman: Podman, tmp_path: Path) -> None:
    os.chown(tmp_path, 10001, 10001)
    words = ["run", "--rm", "--network=host", "--read-only", "--cap-drop=all", *LIMITS]
    words += ["--volume", f"{tmp_path}:/data", REFERENCE, "layercast", "up", "--data-dir", "/data"]
    listeners = ("--listen", "--upload-listen", "--supernode-listen", "--supernode-upload-listen")
    words += [word for flag in listeners for word in (flag, "127.0.0.1:0")]
    with ManagedProcess(podman.command(*words), name="podman run", env=podman.environment) as process:
        assert "proxy" in process.wait_ready()


def test_containerd_runs_it(built: BuiltImage) -> None:
    with Containerd({}) as containerd:
        containerd.ctr("images", "import", "--base-name", "layercast", built.archive, timeout_s=IMAGE_TIMEOUT_S)
        (name,) = containerd.ctr("images", "ls", "--quiet").split()
        words = ["run", "--rm", "--read-only", name, "version", "layercast-supernode", "--version"]
        said = containerd.ctr(*words, timeout_s=IMAGE_TIMEOUT_S)
        assert said.strip() == f"layercast-supernode {VERSION} (interpreted scheduler)"


class Pod:
    """A pod of the chart on one node, and the folders that stand for its volumes."""

    def __init__(self, podman: Podman, folder: Path, kind: str, name: str) -> None:
        self._podman = podman
        self._folder = folder
        found = {(each["kind"], each["metadata"]["name"]): each for each in manifests("defaults")}
        self._pod = found[kind, name]["spec"]["template"]["spec"]
        for volume in self._pod["volumes"]:
            if "configMap" in volume:
                for file, text in found["ConfigMap", volume["configMap"]["name"]]["data"].items():
                    self.place(volume["name"]).joinpath(file).write_text(text)
            elif "emptyDir" in volume:
                self.place(volume["name"]).chmod(0o777)

    def place(self, volume: str) -> Path:
        """What is mounted as this volume."""
        place = self._folder / volume
        place.mkdir(exist_ok=True)
        return place

    def start(self, name: str, *instead: str, **settings: str) -> ManagedProcess:
        """Run one of its containers, with what the chart allows it; `settings` replace its own, `instead` its words."""
        (wanted,) = (
            each for each in (*self._pod.get("initContainers", []), *self._pod["containers"]) if each["name"] == name
        )
        rights = {**self._pod.get("securityContext", {}), **wanted["securityContext"]}
        words: list[str | Path] = ["run", "--rm", "--network=none", "--read-only", *LIMITS]
        words += ["--security-opt=no-new-privileges", "--name", name, "--cap-drop=all"]
        words += ["--user", f"{rights['runAsUser']}:{rights['runAsGroup']}"]
        words += [f"--cap-add={each}" for each in rights["capabilities"].get("add", [])]
        for mount in wanted["volumeMounts"]:
            words += ["--volume", f"{self.place(mount['name'])}:{mount['mountPath']}"]
        environment = {each["name"]: each["value"] for each in wanted.get("env", [])} | settings
        words += [word for item in environment.items() for word in ("--env", "=".join(item))]
        argv = self._podman.command(*words, REFERENCE, *(instead or (*wanted["command"], *wanted.get("args", []))))
        return ManagedProcess(argv, name=name, env=self._podman.environment)

    def run(self, name: str, *instead: str, **settings: str) -> str:
        """To its end; what it printed."""
        with self.start(name, *instead, **settings) as process:
            assert process.wait(IMAGE_TIMEOUT_S) == 0, process.log_tail()
            return process.log_tail()


def test_a_node_s_pod_sets_its_runtime_up_serves_and_takes_it_back(podman: Podman, tmp_path: Path) -> None:
    pod = Pod(podman, tmp_path, "DaemonSet", "layercast-peer")
    config = pod.place("runtime") / "config.toml"
    config.write_text("version = 2 # ours\n")
    assert "containerd: set up" in pod.run("client")
    assert "http://127.0.0.1:65001" in (pod.place("runtime") / "certs.d/_default/hosts.toml").read_text()
    with pod.start("peer") as process:
        assert process.wait_ready()["proxy"] == "127.0.0.1:65001"
        ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:65001/healthz').read().decode())"
        assert podman.run("exec", "peer", "python3", "-c", ask).startswith("ready\n")
    assert (pod.place("data") / "identity.key").stat().st_uid == 10001
    assert "containerd: taken back" in pod.run("client", ACTION="undo")
    assert [path.name for path in pod.place("runtime").iterdir()] == ["config.toml"]
    assert config.read_text() == "version = 2 # ours\n"


def test_the_hook_s_pod_gets_a_token_of_the_supernode_s_pod_by_its_volume(podman: Podman, tmp_path: Path) -> None:
    pod = Pod(podman, tmp_path, "StatefulSet", "layercast-supernode")
    # As fsGroup does.
    os.chown(pod.place("data"), 10001, 10001)
    with pod.start("supernode") as process:
        assert process.wait_ready()["api"].endswith(":65000")
        hook = Pod(podman, tmp_path, "Job", "layercast-token")
        folder = "/var/lib/layercast/supernode"
        said = hook.run("token", "layercast-supernode", "token", "create", "--ttl", "90d", "--data-dir", folder)
        assert parse_join_token(said.strip()).fingerprint
