"""A dockerd with folders of its own, and Debian's docker command to talk to it."""

from __future__ import annotations

import hashlib
import json
import tarfile
from typing import TYPE_CHECKING

from benchmarks.cluster.processes import ManagedProcess, ProcessError, run
from benchmarks.cluster.programs import clean_environment, program
from tests.support.clients.folders import Daemon

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class DockerDaemon(Daemon):
    """One dockerd (with its own containerd), ready from construction; a context manager.

    `mirrors` are the URLs of `registry-mirrors` (docker.io alone). `insecure_registries` are HOST:PORT. BuildKit
    speaks plain http to a mirror only where it is on loopback or listed there too, as http://HOST:PORT: without
    the scheme it does not find the entry. `environment` is further variables of the daemon; `downloads_max` are the
    layers that it pulls at a time, of all images. `further` are more of its options. Images go when it is closed.
    Needs root.
    """

    def __init__(
        self,
        *,
        netns: str | None = None,
        mirrors: Sequence[str] = (),
        insecure_registries: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        downloads_max: int = 3,
        further: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__("lcd")
        self._host = f"unix://{self.directory}/s"
        config = self.directory / "daemon.json"
        config.write_text(
            json.dumps(
                {
                    "registry-mirrors": list(mirrors),
                    "insecure-registries": list(insecure_registries),
                    "max-download-attempts": 5,
                    "max-concurrent-downloads": downloads_max,
                    "deprecated-key-path": str(self.directory / "key.json"),
                    **(further or {}),
                }
            )
        )
        argv: list[str | Path] = [program("dockerd"), "--config-file", config, "-H", self._host]
        argv += ["--data-root", self.directory / "data", "--exec-root", self.directory / "x"]
        argv += ["--pidfile", self.directory / "pid", "--iptables=false", "--bridge=none"]
        environment = clean_environment(HOME=str(self.directory), **(environment or {}))
        self.run_until_ready(argv, "API listen on", name="dockerd", netns=netns, env=environment)

    def command(self, *words: str | Path) -> list[str | Path]:
        """The docker command line that talks to this daemon; run it with `environment()`."""
        return [program("docker"), "-H", self._host, *words]

    def environment(self, **extra: str) -> dict[str, str]:
        """An environment for `command`, with no login of the caller's."""
        return clean_environment(HOME=str(self.directory), DOCKER_CONFIG=str(self.directory / "cli"), **extra)

    def docker(self, *words: str | Path, timeout_s: float = 120.0) -> str:
        """Run a docker command to its end; its output. Raises ProcessError, with the end of the daemon's log."""
        return self._run(self.command(*words), timeout_s).stdout

    def _run(self, argv: list[str | Path], timeout_s: float, **extra: str) -> subprocess.CompletedProcess[str]:
        try:
            return run(argv, env=self.environment(**extra), timeout_s=timeout_s)
        except ProcessError as error:
            raise ProcessError(f"{error}\ndockerd:\n{self.process.log_tail()}") from None

    def pull(self, reference: str, timeout_s: float = 120.0) -> str:
        """Pull an image to the end; the digest that docker prints for it."""
        output = self.docker("pull", reference, timeout_s=timeout_s)
        return next(line.split()[1] for line in output.splitlines() if line.startswith("Digest: "))

    def start_pull(self, reference: str, login: Path | None = None) -> ManagedProcess:
        """Begin a pull and return at once; the process ends with the pull, with status 0 if all went well.

        `login` is a folder with the config.json of a login.
        """
        words: list[str | Path] = ["--config", login] if login is not None else []
        return ManagedProcess(self.command(*words, "pull", reference), name="docker pull", env=self.environment())

    def inspect(self, reference: str) -> dict[str, object]:
        """What docker knows of an image. Raises ProcessError if it has none of that name."""
        document = json.loads(self.docker("image", "inspect", reference))[0]
        assert isinstance(document, dict)
        return document

    def file_digests(self, reference: str) -> dict[str, str]:
        """Path to sha256 of each regular file of the image, as unpacked: proof that it loads.

        A container is created, not run, and exported.
        """
        container = self.docker("create", "--network", "none", reference, "/bin/true").strip()
        archive = self.directory / "export.tar"
        try:
            self.docker("export", "--output", archive, container)
            return tar_file_digests(archive)
        finally:
            self.docker("rm", container)
            archive.unlink(missing_ok=True)

    def build(self, dockerfile: str, context: Path, tag: str, timeout_s: float = 120.0) -> None:
        """`docker build` with BuildKit, of a Dockerfile given as text."""
        file = context / "Dockerfile"
        file.write_text(dockerfile)
        argv = self.command("build", "--progress", "plain", "-t", tag, context)
        self._run(argv, timeout_s, DOCKER_BUILDKIT="1")


def tar_file_digests(archive: Path) -> dict[str, str]:
    """Path to sha256 of each regular file in a tar archive, empty ones left out."""
    digests: dict[str, str] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.size:
                content = tar.extractfile(member)
                assert content is not None
                digests[member.name] = hashlib.sha256(content.read()).hexdigest()
    return digests
