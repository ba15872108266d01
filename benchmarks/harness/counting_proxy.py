"""A counting proxy as a process of its own, in a network namespace if asked."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.processes import ManagedProcess
from benchmarks.origin.proxy_process import RemoteCountingProxy

if TYPE_CHECKING:
    from benchmarks.harness.tls import KeyPair


class CountingProxyProcess(RemoteCountingProxy):
    """A counting proxy in a process, and if asked in a namespace, of its own; a context manager.

    `address` is HOST:PORT as bound.
    """

    def __init__(
        self,
        upstream: tuple[str, int],
        listen: str = "127.0.0.1:0",
        *,
        netns: str | None = None,
        tls: KeyPair | None = None,
    ) -> None:
        # A Unix socket's path holds at most 107 bytes: pytest's own folders are too deep.
        self._directory = tempfile.TemporaryDirectory(prefix="lcp")
        control = Path(self._directory.name) / "control"
        super().__init__(control)
        argv: list[str | Path] = [sys.executable, "-m", "benchmarks.origin.proxy_process", "--listen", listen]
        argv += ["--upstream", f"{upstream[0]}:{upstream[1]}", "--control", control]
        if tls is not None:
            argv += ["--tls-certificate", tls.certificate_file, "--tls-key", tls.key_file]
        repository_root = Path(__file__).parents[2]
        self._tls = tls is not None
        self.process = ManagedProcess(argv, netns=netns, name="counting-proxy", cwd=repository_root)
        try:
            self.address = self.process.wait_ready()["address"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> CountingProxyProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"{'https' if self._tls else 'http'}://{self.address}"

    def close(self) -> None:
        """Stop it."""
        self.process.close()
        self._directory.cleanup()
