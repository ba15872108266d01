"""The clients' process as the fan-out sees it: prepared, set off, and every client's times collected."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.helper import Helper
from proto.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.cluster.image import Image
    from benchmarks.fanout.site import Site

REPOSITORY: Final = "fanout/image"
_MANIFESTS_TIMEOUT_S: Final = 60.0
_MANIFESTS_PER_NODE_S: Final = 1.0
_POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Pulled:
    """One client. Seconds after the barrier; None: never."""

    node: int
    asked_s: float
    first_byte_s: float | None
    completed_s: float | None
    error: str = ""


class Pulling:
    """A client at every node of `site`, which pulls `image` from `addresses[node]`; a context manager."""

    def __init__(self, site: Site, addresses: Sequence[str], image: Image, parallel: int, log: Path) -> None:
        self._nodes = len(addresses)
        self._site = site
        self._addresses = addresses
        self._image = image
        self._parallel = parallel
        self._began_s = 0.0
        self.pulled: dict[int, Pulled] = {}
        self._helper = Helper("benchmarks.fanout.clients", [], log)

    def __enter__(self) -> Pulling:
        return self

    def __exit__(self, *_: object) -> None:
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
                "parallel": self._parallel,
                "nodes": clients,
            }
        )
        deadline_s = time.monotonic() + _MANIFESTS_TIMEOUT_S + _MANIFESTS_PER_NODE_S * self._nodes
        waiting = self._nodes
        while waiting:
            message = self._helper.receive(max(0.0, deadline_s - time.monotonic()))
            if message is None:
                raise LocalError(f"{waiting} of {self._nodes} clients did not get their manifests in time")
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

    def finishing(self, until_s: float) -> Iterator[None]:
        """Collect the clients' ends in `pulled`; yields often. Ends when all have ended, or at `until_s`."""
        while len(self.pulled) < self._nodes and time.monotonic() < until_s:
            message = self._helper.receive(_POLL_S)
            while message is not None:
                self._note(message)
                message = self._helper.receive(0.0)
            yield

    def outcome(self) -> list[Pulled]:
        """Every client, those that did not end included."""
        elapsed_s = time.monotonic() - self._began_s
        missing = Pulled(0, 0.0, None, None, f"not complete after {elapsed_s:.0f} s")
        return [
            self.pulled.get(node, Pulled(node, missing.asked_s, None, None, missing.error))
            for node in range(self._nodes)
        ]

    def _note(self, message: dict[str, object]) -> None:
        node, error = message["node"], str(message["error"])
        assert isinstance(node, int)
        asked_s, first_byte_s, completed_s = (
            self._since(message[key]) for key in ("asked_s", "first_byte_s", "completed_s")
        )
        self.pulled[node] = Pulled(node, asked_s or 0.0, first_byte_s, None if error else completed_s, error)

    def _since(self, at_s: object) -> float | None:
        assert isinstance(at_s, int | float)
        return at_s - self._began_s if at_s else None
