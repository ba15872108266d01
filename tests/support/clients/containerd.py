"""A containerd with folders of its own, its CRI plugin, and `ctr` to talk to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.cluster.processes import ManagedProcess, ProcessError, run
from benchmarks.cluster.programs import clean_environment, program
from tests.support.clients.cri import CriImageService
from tests.support.clients.folders import Daemon, write_hosts_toml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_CTR_NAMESPACE: Final = "test"
_CONFIG: Final = """
version = 2
root = "{directory}/root"
state = "{directory}/state"
[grpc]
  address = "{directory}/s"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{directory}/cni/bin"
    conf_dir = "{directory}/cni/conf"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{directory}/certs.d"
"""


class Containerd(Daemon):
    """One containerd, ready from construction; a context manager. `certs_dir` is its certs.d.

    `mirrors` maps a registry host ("_default": any) to the URL to pull it through. Needs root.
    """

    def __init__(
        self,
        mirrors: Mapping[str, str],
        *,
        netns: str | None = None,
    ) -> None:
        super().__init__("lcc")
        self.certs_dir = self.directory / "certs.d"
        self.certs_dir.mkdir()
        for host, url in mirrors.items():
            write_hosts_toml(self.certs_dir, host, url)
        config = self.directory / "config.toml"
        config.write_text(_CONFIG.format(directory=self.directory))
        self._environment = clean_environment(HOME=str(self.directory))
        self._netns = netns
        argv: list[str | Path] = [program("containerd"), "--config", config]
        ready = "containerd successfully booted"
        self.run_until_ready(argv, ready, name="containerd", netns=netns, env=self._environment)

    def cri(self) -> CriImageService:
        """A connection to its CRI image service; close it."""
        return CriImageService(self.directory / "s")

    def command(self, *words: str | Path) -> list[str | Path]:
        """The ctr command line that talks to this containerd."""
        return [program("ctr"), "--address", self.directory / "s", "--namespace", _CTR_NAMESPACE, *words]

    def ctr(self, *words: str | Path, timeout_s: float = 120.0) -> str:
        """Run ctr to its end; its output. Raises ProcessError, with the end of the daemon's log.

        It resolves and fetches by itself, so it runs in the daemon's network namespace.
        """
        try:
            return run(self.command(*words), netns=self._netns, env=self._environment, timeout_s=timeout_s).stdout
        except ProcessError as error:
            raise ProcessError(f"{error}\ncontainerd:\n{self.process.log_tail()}") from None

    def pull(self, reference: str, *login: str, timeout_s: float = 120.0) -> None:
        """`ctr images pull` and unpack, through certs.d. `login` are its words for that."""
        self.ctr("images", "pull", "--hosts-dir", self.certs_dir, *login, reference, timeout_s=timeout_s)

    def start_pull(self, reference: str, *login: str) -> ManagedProcess:
        """Begin a pull and return at once."""
        argv = self.command("images", "pull", "--hosts-dir", self.certs_dir, *login, reference)
        return ManagedProcess(argv, name="ctr", netns=self._netns, env=self._environment)

    def content(self) -> set[str]:
        """Digests of all blobs that ctr's namespace holds, complete ones alone (containerd has checked them)."""
        return set(self.ctr("content", "ls", "--quiet").split())
