"""The peers of a run: started through the zygote, watched, and what they cost."""

from __future__ import annotations

import re
import statistics
import time
from typing import TYPE_CHECKING, Final

from benchmarks.cluster import processes
from benchmarks.cluster.closing import Closing
from benchmarks.cluster.helper import Helper
from benchmarks.cluster.metrics import Metrics, scrape
from benchmarks.cluster.namespaces import inside
from benchmarks.cluster.processes import ProcessError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.fanout.site import Site

PROXY_PORT: Final = 65001
UPLOAD_PORT: Final = 65002
TORRENT_PORT: Final = 65004
_READY: Final = re.compile(r"^ready peer proxy=(\S+) ", re.MULTILINE)
_READY_TIMEOUT_S: Final = 60.0
_READY_PER_NODE_S: Final = 0.5
_POLL_S: Final = 0.05


class Nodes(Closing):
    """`layercast-peer` at every node; a context manager. `folder` has a log and a data folder a node."""

    def __init__(
        self, site: Site, folder: Path, stores: Path, flags: Sequence[str], *, torrent: bool, steps: bool
    ) -> None:
        self._site = site
        self._folder = folder
        self._stores = stores
        self._flags = list(flags)
        self._pids: dict[int, int] = {}
        self._ended: dict[int, int] = {}
        # HOST:PORT that the node's clients pull through, from inside its namespace.
        self.proxies: list[str] = []
        words = [*(["--torrent"] if torrent else []), *(["--steps"] if steps else [])]
        self._zygote = Helper("benchmarks.fanout.zygote", words, folder / "zygote.log")

    def close(self) -> None:
        self._zygote.close()

    def start(self, extra: Sequence[Sequence[str]]) -> None:
        """Start all and wait until they are ready. `extra` are flags of each node. Raises ProcessError, LocalError."""
        deadline_s = time.monotonic() + _READY_TIMEOUT_S + _READY_PER_NODE_S * len(extra)
        while self._zygote.receive(1.0) is None:
            if time.monotonic() > deadline_s:
                raise ProcessError("the zygote did not come up")
        self._zygote.send(*(self._request(node, words) for node, words in enumerate(extra)))
        waiting = set(range(len(extra)))
        found: dict[int, str] = {}
        while waiting:
            self.look()
            for node in sorted(waiting):
                ready = _READY.search(self._log(node)) if self._log_file(node).exists() else None
                if ready is not None:
                    found[node] = ready[1]
                elif node in self._ended:
                    raise ProcessError(f"node {node} ended before it was ready:\n{self._log(node)[-2000:]}")
            waiting -= found.keys()
            if waiting and time.monotonic() > deadline_s:
                raise ProcessError(f"{len(waiting)} nodes are not ready in time, node {min(waiting)} among them")
            time.sleep(_POLL_S)
        self.proxies = [found[node] for node in range(len(extra))]

    def _request(self, node: int, words: Sequence[str]) -> dict[str, object]:
        place = self._site.nodes[node]
        proxy_port, upload_port = (PROXY_PORT, UPLOAD_PORT) if place.netns else (0, 0)
        argv = ["--listen", f"127.0.0.1:{proxy_port}", "--upload-listen", f"{place.host}:{upload_port}"]
        argv += ["--data-dir", str(self._stores / f"node-{node}"), *self._flags, *words]
        return {"node": node, "netns": place.netns, "log": str(self._log_file(node)), "argv": argv}

    def _log_file(self, node: int) -> Path:
        return self._folder / f"node-{node}.log"

    def _log(self, node: int) -> str:
        return self._log_file(node).read_text(errors="replace")

    def look(self) -> dict[int, int]:
        """Exit statuses of the nodes that have ended so far."""
        while (message := self._zygote.receive(0.0)) is not None:
            self._note(message)
        return self._ended

    def _note(self, message: dict[str, object]) -> None:
        match message:
            case {"node": int(node), "pid": int(pid)}:
                self._pids[node] = pid
            case {"ended": int(node), "status": int(status)}:
                self._pids.pop(node, None)
                self._ended[node] = status

    def cpu_s(self) -> float:
        """CPU seconds that all of them used so far."""
        return sum(processes.cpu_s(pid) for pid in self._pids.values())

    def median_pss_bytes(self) -> float:
        """Pages shared with the zygote count for their part, as they do among forks."""
        return statistics.median([processes.memory_share_bytes(pid) for pid in self._pids.values()] or [0])

    def memory_peak_bytes(self) -> int:
        """The most that any of them ever held resident."""
        return max((processes.memory_peak_bytes(pid) for pid in self._pids.values()), default=0)

    def metrics(self, node: int) -> Metrics:
        """A scrape. Raises OSError, ValueError."""
        return inside(self._site.nodes[node].netns, lambda: scrape(self.proxies[node]))

    def last_words(self, node: int) -> str:
        """The end of the node's log, one line."""
        lines = self._log(node).strip().splitlines()
        return lines[-1] if lines else "without a word"
