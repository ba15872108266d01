"""crane, oras and stargz-snapshotter's reader, which tests build (tests.support.go_clients)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.cluster.processes import ManagedProcess, run
from benchmarks.cluster.programs import clean_environment
from tests.support.built_programs import CLIENTS
from tests.support.clients.folders import ClientFolder

if TYPE_CHECKING:
    from pathlib import Path


class GoClient(ClientFolder):
    """One of them, with a docker config.json of its own; a context manager. Raises BuildFailed where it is not there.

    The first word of a command line is the client.
    """

    def __init__(self, config: str = "{}", *, netns: str | None = None) -> None:
        self._program = CLIENTS.built()
        super().__init__("lcg")
        self._netns = netns
        (self.directory / "config.json").write_text(config)
        self.environment = clean_environment(HOME=str(self.directory), DOCKER_CONFIG=str(self.directory))

    def run(self, *words: str | Path, timeout_s: float = 120.0) -> str:
        """Run it to the end; its output. Raises ProcessError."""
        argv = [self._program, *words]
        return run(argv, netns=self._netns, env=self.environment, timeout_s=timeout_s).stdout

    def start(self, *words: str | Path) -> ManagedProcess:
        """Start it and return at once."""
        return ManagedProcess([self._program, *words], name=str(words[0]), netns=self._netns, env=self.environment)
