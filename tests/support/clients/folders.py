"""The folder that a client has to itself. Daemons leave mounts and deep trees in it; it is removed all the same."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benchmarks.cluster.processes import ManagedProcess, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class ClientFolder:
    """A client with a folder of its own; a context manager, which removes it with all images in it."""

    def __init__(self, prefix: str) -> None:
        # Short: a Unix socket's path holds at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix=prefix))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder. Idempotent."""
        remove_tree(self.directory)


class Daemon(ClientFolder):
    """A client that is a daemon, which ends when it is closed."""

    _process: ManagedProcess | None = None

    def run_until_ready(
        self, argv: Sequence[str | Path], ready: str, *, name: str, netns: str | None, env: Mapping[str, str]
    ) -> None:
        """Start it and wait for the line in which the regular expression `ready` is found. Raises ProcessError."""
        self._process = ManagedProcess(argv, name=name, netns=netns, env=env)
        try:
            self._process.wait_for_line(ready)
        except BaseException:
            self.close()
            raise

    @property
    def process(self) -> ManagedProcess:
        """The daemon."""
        assert self._process is not None
        return self._process

    def close(self) -> None:
        """Stop it and remove the folder. Idempotent."""
        if self._process is not None:
            self._process.close()
        super().close()


def remove_tree(directory: Path) -> None:
    """Unmount what is mounted below `directory`, then remove it; nothing is to be done the second time."""
    if not directory.exists():
        return
    for mount_point in mounts_below(directory):
        run(["umount", "--lazy", mount_point], check=False)
    shutil.rmtree(directory)


def mounts_below(directory: Path) -> Iterator[str]:
    """Mount points at and below `directory`, the innermost first."""
    root = str(directory.resolve())
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return reversed([point for point in points if point == root or point.startswith(root + "/")])


def write_hosts_toml(directory: Path, host: str, mirror_url: str) -> None:
    """containerd's certs.d entry: pull what is on `host` ("_default": any) through `mirror_url`.

    There is no `server` line, so the registry itself is the fallback.
    """
    folder = directory / host
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts.toml").write_text(f'[host."{mirror_url}"]\n  capabilities = ["pull", "resolve"]\n')
