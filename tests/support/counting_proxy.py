"""The counting proxy as tests use it: in this process (CountingProxy), or as a process of its own in a namespace."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.demo.counting_proxy import CountingProxy
from benchmarks.demo.faults import Fault
from benchmarks.demo.ledger import Exchange, Ledger, union_bytes
from benchmarks.demo.proxy_process import ProxyControl, RemoteCountingProxy
from tests.support.processes import ManagedProcess

if TYPE_CHECKING:
    from tests.support.tls import KeyPair

__all__ = [
    "CountingProxy",
    "CountingProxyProcess",
    "Exchange",
    "Fault",
    "Ledger",
    "ProxyControl",
    "union_bytes",
]


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
        argv: list[str | Path] = [sys.executable, "-m", "benchmarks.demo.proxy_process", "--listen", listen]
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
