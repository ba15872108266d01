"""podman, buildah and skopeo, each with registries.conf, policy and storage of its own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.processes import ManagedProcess, run
from benchmarks.cluster.programs import clean_environment, program
from tests.support.clients.folders import ClientFolder

if TYPE_CHECKING:
    from collections.abc import Sequence


_PARTIAL: Final = """
[storage]
driver = "overlay"
runroot = "{folder}/runroot"
graphroot = "{folder}/root"
[storage.options]
pull_options = {{enable_partial_images = "true", use_hard_links = "false", ostree_repos = ""}}
"""


@dataclass(frozen=True, slots=True)
class Mirror:
    """One `[[registry]]` with one mirror: `prefix` is the registry, `location` is HOST:PORT/PATH of the mirror."""

    prefix: str
    location: str


def registries_conf(mirrors: Sequence[Mirror]) -> str:
    """The text of a registries.conf."""
    return 'unqualified-search-registries = ["docker.io"]\n' + "".join(
        f"""
[[registry]]
prefix = "{mirror.prefix}"
location = "{mirror.prefix}"
[[registry.mirror]]
location = "{mirror.location}"
insecure = true
"""
        for mirror in mirrors
    )


class _ContainersTool(ClientFolder):
    """What they share: a folder with the configuration of containers/image."""

    def __init__(self, mirrors: Sequence[Mirror], *, netns: str | None = None) -> None:
        super().__init__("lcq")
        self._netns = netns
        (self.directory / "registries.conf").write_text(registries_conf(mirrors))
        (self.directory / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        (self.directory / "registries.d").mkdir()
        (self.directory / "auth.json").write_text("{}")
        self.environment = clean_environment(
            HOME=str(self.directory),
            XDG_RUNTIME_DIR=str(self.directory),
            CONTAINERS_REGISTRIES_CONF=str(self.directory / "registries.conf"),
            REGISTRY_AUTH_FILE=str(self.directory / "auth.json"),
            TMPDIR=str(self.directory),
        )

    def run(self, *words: str | Path, timeout_s: float = 120.0) -> str:
        """Run it to the end; its output. Raises ProcessError."""
        argv = self.command(*words)
        return run(argv, netns=self._netns, env=self.environment, timeout_s=timeout_s).stdout

    def start(self, *words: str | Path) -> ManagedProcess:
        """Start it and return at once."""
        return ManagedProcess(self.command(*words), netns=self._netns, env=self.environment)

    def command(self, *words: str | Path) -> list[str | Path]:
        """The command line."""
        raise NotImplementedError


class Podman(_ContainersTool):
    """podman with its own vfs storage; a context manager. Needs root.

    `partial`: with overlay storage in place of vfs, of zstd:chunked layers it pulls what it has not by ranges.
    """

    def __init__(self, mirrors: Sequence[Mirror], *, netns: str | None = None, partial: bool = False) -> None:
        super().__init__(mirrors, netns=netns)
        # What it told of each layer that it pulled, or could not pull, in part.
        self.told_of_parts: list[str] = []
        self._driver = "overlay" if partial else "vfs"
        if partial:
            file = self.directory / "storage.conf"
            file.write_text(_PARTIAL.format(folder=self.directory))
            self.environment["CONTAINERS_STORAGE_CONF"] = str(file)

    def command(self, *words: str | Path) -> list[str | Path]:
        """The podman command line, run with `environment`."""
        folder = self.directory
        storage: list[str | Path] = ["--root", folder / "root", "--runroot", folder / "runroot"]
        storage += ["--tmpdir", folder / "tmp", "--storage-driver", self._driver]
        return [program("podman"), *storage, "--cgroup-manager", "cgroupfs", "--events-backend", "none", *words]

    def pull(self, reference: str, timeout_s: float = 120.0) -> str:
        """Pull an image to the end; its id (hex digest of its config)."""
        policy = self.directory / "policy.json"
        argv = self.command("--log-level", "debug", "pull", "--quiet", "--signature-policy", policy, reference)
        done = run(argv, netns=self._netns, env=self.environment, timeout_s=timeout_s)
        self.told_of_parts += [line for line in done.stderr.splitlines() if "partial blob" in line]
        return done.stdout.split()[-1]

    def file_digests(self, reference: str) -> dict[str, str]:
        """Path to sha256 of each regular file of the image, as unpacked."""
        root = Path(self.run("image", "mount", reference).strip())
        try:
            return {
                str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(root.rglob("*"))
                if path.is_file() and path.stat().st_size
            }
        finally:
            self.run("image", "unmount", reference)


class Buildah(_ContainersTool):
    """buildah with its own vfs storage; a context manager. Needs root."""

    def command(self, *words: str | Path) -> list[str | Path]:
        """The buildah command line, run with `environment`."""
        folder = self.directory
        options: list[str | Path] = ["--root", folder / "root", "--runroot", folder / "runroot"]
        options += ["--storage-driver", "vfs", "--registries-conf", folder / "registries.conf"]
        return [program("buildah"), *options, *words]


class Skopeo(_ContainersTool):
    """skopeo; a context manager. It needs no root."""

    def command(self, *words: str | Path) -> list[str | Path]:
        """The skopeo command line, run with `environment`."""
        options: list[str | Path] = ["--policy", self.directory / "policy.json"]
        options += ["--registries-conf", self.directory / "registries.conf"]
        options += ["--registries.d", self.directory / "registries.d", "--tmpdir", self.directory]
        options += ["--override-os", "linux", "--override-arch", "amd64"]
        return [program("skopeo"), *options, *words]

    def pull(self, reference: str, timeout_s: float = 120.0) -> Path:
        """Copy an image into a folder of files named by their hex digests; the folder."""
        folder = self.directory / f"image-{len(list(self.directory.glob('image-*')))}"
        self.run("copy", "--preserve-digests", f"docker://{reference}", f"dir:{folder}", timeout_s=timeout_s)
        return folder


def wrongly_named_files(folder: Path) -> list[str]:
    """Files of a `dir:` image whose names are not their sha256; the few that it names otherwise left out."""
    return [
        path.name
        for path in sorted(folder.iterdir())
        if path.name not in ("manifest.json", "version") and hashlib.sha256(path.read_bytes()).hexdigest() != path.name
    ]
