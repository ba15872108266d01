"""An origin whose every byte is counted: docker-registry behind a counting proxy, in a network namespace if asked."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from benchmarks.cluster.closing import Closing
from benchmarks.cluster.namespaces import inside
from benchmarks.cluster.proxy_process import CountingProxyProcess
from benchmarks.cluster.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.cluster.image import Image
    from benchmarks.cluster.ledger import Ledger


class CountedOrigin(Closing):
    """A context manager. `address` is HOST:PORT of the proxy, through which everybody pulls."""

    def __init__(
        self, folder: Path, *, host: str = "127.0.0.1", netns: str | None = None, bytes_per_s: float | None = None
    ) -> None:
        """Start both programs. `bytes_per_s` limits all answers together. Raises ProgramMissing, ProcessError."""
        self._netns = netns
        with contextlib.ExitStack() as stack:
            self._registry = stack.enter_context(Registry(folder / "registry", netns=netns))
            self.proxy = stack.enter_context(
                CountingProxyProcess(
                    self._registry.host_port, f"{host}:0", netns=netns, log=folder / "counting-proxy.log"
                )
            )
            self.proxy.set_rate(bytes_per_s)
            self._running = stack.pop_all()
        self.address = self.proxy.address

    def close(self) -> None:
        self._running.close()

    def push(self, image: Image, repository: str, tag: str = "latest") -> None:
        """Have this image too. It does not pass the proxy."""
        inside(self._netns, lambda: self._registry.push(image, repository, tag))

    def ledger(self) -> Ledger:
        """What was sent since the start or `proxy.reset`."""
        return self.proxy.ledger()
