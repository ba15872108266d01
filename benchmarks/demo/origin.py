"""The demo's origin: Debian's docker-registry where it is installed, else our embedded one, behind a counting proxy."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from benchmarks.harness.processes import ManagedProcess
from benchmarks.harness.programs import find_program
from benchmarks.harness.registry import Registry
from benchmarks.origin.proxy_process import RemoteCountingProxy

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.origin.image import Image
    from benchmarks.origin.ledger import Ledger


class DemoOrigin:
    """A registry that holds one image as `repository:latest`, and the ledger of what it sent. A context manager."""

    def __init__(self, directory: Path, image: Image, repository: str) -> None:
        self.kind = "docker-registry" if find_program("docker-registry") else "embedded registry"
        self._directory = directory
        self._image = image
        self._repository = repository
        self._stack = contextlib.ExitStack()
        self.address = ""

    def __enter__(self) -> DemoOrigin:
        self._directory.mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            upstream = self._start_registry(stack)
            control = self._directory / "control"
            module = [sys.executable, "-m", "benchmarks.origin.proxy_process"]
            process = stack.enter_context(
                ManagedProcess([*module, "--upstream", upstream, "--control", control], name="counting-proxy")
            )
            self.address = process.wait_ready()["address"]
            self._proxy = RemoteCountingProxy(control)
            self._stack = stack.pop_all()
        return self

    def _start_registry(self, stack: contextlib.ExitStack) -> str:
        if find_program("docker-registry"):
            registry = stack.enter_context(Registry(self._directory / "registry"))
            registry.push(self._image, self._repository)
            return registry.address
        module = [sys.executable, "-m", "benchmarks.origin.oci_registry"]
        layout = f"{self._repository}={self._image.layout}"
        process = stack.enter_context(ManagedProcess([*module, "--repository", layout], name="embedded-registry"))
        return process.wait_ready()["address"]

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ledger(self) -> Ledger:
        """Every exchange so far."""
        return self._proxy.ledger()
