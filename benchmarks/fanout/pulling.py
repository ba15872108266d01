"""The clients' process as the fan-out sees it: prepared, set off, and every client's times collected."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.closing import Closing
from benchmarks.cluster.helper import Helper
from benchmarks.results import NodeTimes
from proto.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.cluster.image import Image
    from benchmarks.fanout.site import Site
    from benchmarks.scenario import Scenario

REPOSITORY: Final = "fanout/image"
_MANIFESTS_TIMEOUT_S: Final = 60.0
_MANIFESTS_PER_NODE_S: Final = 1.0
_POLL_S: Final = 0.2


class Pulling(Closing):
    """A client at every node of `site`, which pulls `image` from `addresses[node]`; a context manager."""

    def __init__(self, site: Site, scenario: Scenario, addresses: Sequence[str], image: Image, log: Path) -> None:
        self._site = site
        self._scenario = scenario
        self._addresses = addresses
        self._image = image
        self._began_s = 0.0
        self._ended: dict[int, NodeTimes] = {}
        self._helper = Helper("benchmarks.fanout.clients", [], log)

    def close(self) -> None:
        self._helper.close()

    @property
    def pid(self) -> int:
        """Of the clients' process."""
        return self._helper.pid

    def prepare(self, arrivals_s: Sequence[float | None]) -> None:
        """Have every client fetch manifest and config, then wait. Raises LocalError: the first client's trouble."""
        clients = [
            {"node": node, "netns": self._site.nodes[node].netns, "address": address, "arrival_s": arrivals_s[node]}
            for node, address in enumerate(self._addresses)
        ]
        self._helper.send(
            {
                "repository": REPOSITORY,
                "manifest": self._image.manifest.digest,
                "media_type": self._image.manifest.media_type,
                "layers": [layer.digest for layer in self._image.layers],
                "parallel": self._scenario.parallel,
                "nodes": clients,
            }
        )
        deadline_s = time.monotonic() + _MANIFESTS_TIMEOUT_S + _MANIFESTS_PER_NODE_S * self._scenario.nodes
        waiting = self._scenario.nodes
        while waiting:
            message = self._helper.receive(max(0.0, deadline_s - time.monotonic()))
            if message is None:
                raise LocalError(f"{waiting} of {self._scenario.nodes} clients did not get their manifests in time")
            if message.get("error"):
                raise LocalError(f"node {message['node']}, manifest: {message['error']}")
            waiting -= 1

    def go(self) -> float:
        """The barrier falls: the monotonic time at which it did."""
        self._helper.send({"go": True})
        message = self._helper.receive(_MANIFESTS_TIMEOUT_S)
        assert message is not None
        began_s = message["began_s"]
        assert isinstance(began_s, float)
        self._began_s = began_s
        return began_s

    def join(self) -> None:
        """Joiners may ask now."""
        self._helper.send({"join": True})

    def finishing(self, until_s: float) -> Iterator[int]:
        """Collect the clients' ends; yields how many there are, often. Ends when all have ended, or at `until_s`."""
        while len(self._ended) < self._scenario.nodes and time.monotonic() < until_s:
            message = self._helper.receive(_POLL_S)
            while message is not None:
                self._note(message)
                message = self._helper.receive(0.0)
            yield len(self._ended)

    def outcome(self) -> tuple[NodeTimes, ...]:
        """Every client, those that did not end included. Seconds after the barrier."""
        missing = f"not complete after {time.monotonic() - self._began_s:.0f} s"
        return tuple(
            self._ended.get(node) or NodeTimes(node, self._class_name(node), 0.0, None, None, error=missing)
            for node in range(self._scenario.nodes)
        )

    def _note(self, message: dict[str, object]) -> None:
        node, error = message["node"], str(message["error"])
        assert isinstance(node, int)
        asked_s, first_byte_s, completed_s = (
            self._since(message[key]) for key in ("asked_s", "first_byte_s", "completed_s")
        )
        completed_s = None if error else completed_s
        wait_s = message["wait_s"]
        assert isinstance(wait_s, float)
        self._ended[node] = NodeTimes(
            node, self._class_name(node), asked_s or 0.0, first_byte_s, completed_s, error=error, layer_wait_s=wait_s
        )

    def _class_name(self, node: int) -> str:
        return self._scenario.class_of(node).name

    def _since(self, at_s: object) -> float | None:
        assert isinstance(at_s, int | float)
        return at_s - self._began_s if at_s else None
