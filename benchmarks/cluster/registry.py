"""Debian's docker-registry as an origin."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.closing import Closing
from benchmarks.cluster.ports import ReservedPort
from benchmarks.cluster.processes import ManagedProcess
from benchmarks.cluster.programs import clean_environment, program
from benchmarks.cluster.push import RegistryWriter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.cluster.image import Image

_HOST: Final = "127.0.0.1"


class Registry(Closing):
    """One docker-registry with its storage below `root`; a context manager.

    It listens on loopback, on a free port. `auth` is the section of its configuration, if it lets in some
    alone; `executable` a registry of the same kind, in place of Debian's. It keeps its address and
    its storage over `stop` and `start`.
    """

    def __init__(
        self,
        root: Path,
        *,
        auth: Mapping[str, object] | None = None,
        netns: str | None = None,
        executable: Path | None = None,
    ) -> None:
        self.root = root
        # Where it tells of pushes, from its next start on: endpoints as its configuration has them.
        self.endpoints: list[Mapping[str, object]] = []
        self._executable = executable
        self._auth = auth
        self._netns = netns
        self._process: ManagedProcess | None = None
        root.mkdir(parents=True, exist_ok=True)
        # Kept while it is stopped; in a namespace of its own nobody else takes it.
        self._port = ReservedPort(_HOST) if netns is None else None
        self.address = f"{_HOST}:0" if self._port is None else self._port.address
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop it and let go of its port."""
        self.stop()
        if self._port is not None:
            self._port.close()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://{self.address}"

    @property
    def host_port(self) -> tuple[str, int]:
        """Its address as the counting proxy takes it."""
        host, _, port = self.address.rpartition(":")
        return host, int(port)

    @property
    def process(self) -> ManagedProcess:
        """The running program."""
        assert self._process is not None, "the registry is stopped"
        return self._process

    def start(self) -> None:
        """Start it, on the address that it had before if it had one."""
        config = self.root / "config.yml"
        config.write_text(json.dumps(self._config()))  # JSON is YAML
        argv: list[str | Path] = [self._executable or program("docker-registry"), "serve", config]
        environment = clean_environment(OTEL_TRACES_EXPORTER="none")  # version 3 would look for a collector
        self._process = ManagedProcess(argv, env=environment, netns=self._netns, name="docker-registry")
        try:
            self.address = self._process.wait_for_line(r"listening on ([0-9.]+:\d+)")[1]
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it; what was pushed stays."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def push(self, image: Image, repository: str, tag: str = "latest", headers: Mapping[str, str] | None = None) -> str:
        """Push an image straight into the registry; the digest that the tag names."""
        with self.writer(headers=headers) as writer:
            return writer.push_image(image, repository, tag)

    def writer(self, *, headers: Mapping[str, str] | None = None) -> RegistryWriter:
        """A connection to push single blobs with. Only from a process that reaches the registry."""
        return RegistryWriter(self.url, headers=headers)

    def forget_blob(self, digest: str) -> None:
        """Remove a blob's bytes from the storage, links left in place: the registry answers 404 or 500 for it."""
        hex_digest = digest.removeprefix("sha256:")
        blobs = self.root / "storage" / "docker" / "registry" / "v2" / "blobs" / "sha256"
        shutil.rmtree(blobs / hex_digest[:2] / hex_digest)

    def _config(self) -> dict[str, object]:
        config: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": False}},
            "storage": {
                "filesystem": {"rootdirectory": os.fspath(self.root / "storage")},
                "redirect": {"disable": True},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.address, "secret": "test"},
        }
        if self.endpoints:
            config["notifications"] = {"endpoints": self.endpoints}
        if self._auth is not None:
            config["auth"] = self._auth
        return config
