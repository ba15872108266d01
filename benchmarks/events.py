"""Registry events while the supernode is killed: whether each pushed tag has one job, and no tag two.

One registry sends its notifications as CNCF distribution does: in their order, each again until it was taken. Every
tenth it sends twice. Each event is of a tag of its own, all tags name one small image, and one real node has it
fetched: so jobs are as many as events, and the origin is asked for each tag.
"""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.cluster.metrics import http_get
from benchmarks.cluster.processes import ProcessError, wait_until
from benchmarks.cluster.services import Cluster
from benchmarks.cluster.tag_origin import TagOrigin
from benchmarks.flags import count, duration
from proto.errors import LayercastError

if TYPE_CHECKING:
    import argparse

HELP: Final = "registry events while the supernode is killed: lost, done twice, and how soon"
REPOSITORY: Final = "bench/app"
_TOKEN: Final = "the-secret-of-this-run"
_MEDIA_TYPE: Final = "application/vnd.docker.distribution.events.v2+json"
# Before what was not taken is sent again; distribution waits for 1 s and longer.
_BACKOFF_S: Final = 0.1
_ANSWER_S: Final = 10.0
_TWICE_EVERY: Final = 10
# From the last event to the last job.
_DRAIN_S: Final = 900.0
_TELL_EVERY_S: Final = 10.0


@dataclass(slots=True)
class Figures:
    """What came of a run. `again`: how often an event was sent again because nobody took it."""

    events: int
    sent_s: float = 0.0
    drained_s: float = 0.0
    again: int = 0
    waiting_most: int = 0
    jobs: int = 0
    dead: int = 0
    lost: int = 0

    @property
    def twice(self) -> int:
        """Jobs too many."""
        return max(0, self.jobs - (self.events - self.lost))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--events", default="10000", metavar="N", help="1 to 100000, each of its own tag [10000]")
    parser.add_argument("--within", default="60s", metavar="TIME", help="in which they are sent [60s]")
    parser.add_argument("--kills", default="3", metavar="N", help="of the supernode, spread over that time [3]")


def run(arguments: argparse.Namespace) -> int:
    """Prints the figures; 1 where an event was lost or done twice. Raises LayercastError."""
    figures = measure(
        count("--events", arguments.events, 10_000, 1, 100_000),
        duration("--within", arguments.within),
        count("--kills", arguments.kills, 3, 0, 100),
    )
    print(f"{figures.events} events, each of its own tag, sent within {figures.sent_s:.1f} s")
    print(f"sent again because the supernode was killed or busy   {figures.again:6}")
    print(f"waiting when the last was sent, at most               {figures.waiting_most:6}")
    print(f"seconds from the last event to the last job's end     {figures.drained_s:6.1f}")
    print(f"jobs {figures.jobs:6}   lost {figures.lost}   done twice {figures.twice}   dead {figures.dead}")
    return 1 if figures.lost or figures.twice or figures.dead else 0


def measure(events: int, within_s: float, kills: int) -> Figures:
    """One run with processes of its own. Raises LayercastError where jobs do not end."""
    figures = Figures(events)
    with tempfile.TemporaryDirectory(prefix="layercast-events-") as name, TagOrigin() as origin:
        folder = Path(name)
        (folder / "secret").write_text(_TOKEN)
        rule = f'[preheat."all"]\nrepositories = ["{origin.address}/{REPOSITORY}"]\n'
        (folder / "supernode.toml").write_text(f'event_token_file = "{folder / "secret"}"\n{rule}')
        flags = ["--open", "--config", str(folder / "supernode.toml"), "--recovery", "3s"]
        small = ["--store-free-floor", "0"]
        with Cluster(folder, origin.address, supernode_flags=[*flags, *small], peer_flags=small) as cluster:
            cluster.add_peer()
            sender = _Sender(cluster.supernode.status_address, origin, events, within_s)
            sender.start()
            for number in range(kills):
                sender.wait_for(events * (number + 1) // (kills + 1))
                _tell(f"{events * (number + 1) // (kills + 1)} of {events} events are taken; the supernode is killed")
                cluster.supernode.kill()
                cluster.supernode.start()
            sender.join()
            _tell(f"all {events} events are taken")
            figures.sent_s, figures.again = sender.took_s, sender.again
            _drain(cluster, figures)
        figures.lost = sum(not origin.asked[_tag(number)] for number in range(events))
    return figures


def _drain(cluster: Cluster, figures: Figures) -> None:
    """Until nothing waits and every job is over. Raises LayercastError."""
    began_s = told_s = time.monotonic()

    def is_over() -> bool:
        nonlocal told_s
        found = _json(cluster, "/api/v1/events")
        figures.waiting_most = max(figures.waiting_most, found["waiting"])
        figures.dead = found["dead"]
        if time.monotonic() - told_s >= _TELL_EVERY_S:
            told_s = time.monotonic()
            _tell(f"{found['waiting']} wait, {found['working']} are worked on, {found['dead']} are dead")
        return not found["waiting"] and not found["working"]

    try:
        wait_until(is_over, "the last event is done with", _DRAIN_S)
    except ProcessError as error:
        raise LayercastError(f"events are not done with: {error}") from None
    figures.drained_s = time.monotonic() - began_s
    # Numbers are given in turn, and the newest job is kept.
    figures.jobs = max((job["number"] for job in _json(cluster, "/api/v1/jobs")["jobs"]), default=0)


def _tell(text: str) -> None:
    """For who waits; figures go to standard output."""
    print(text, file=sys.stderr, flush=True)


def _json(cluster: Cluster, path: str) -> dict[str, Any]:
    status, body = http_get(cluster.supernode.status_address, path)
    if status != 200:
        raise LayercastError(f"{path}: answers {status}")
    found: dict[str, Any] = json.loads(body)
    return found


def _tag(number: int) -> str:
    return f"v{number}"


class _Sender(threading.Thread):
    """The registry's own queue: one event after the other."""

    def __init__(self, address: str, origin: TagOrigin, events: int, within_s: float) -> None:
        super().__init__(name="event-sender", daemon=True)
        self._address = address
        self._origin = origin
        self._events = events
        self._within_s = within_s
        self._connection: http.client.HTTPConnection | None = None
        self._progress = threading.Condition()
        self._sent = 0
        self.again = 0
        self.took_s = 0.0

    def wait_for(self, sent: int) -> None:
        """Until so many were taken."""
        with self._progress:
            self._progress.wait_for(lambda: self._sent >= sent)

    def run(self) -> None:
        began_s = time.monotonic()
        for number in range(self._events):
            time.sleep(max(0.0, began_s + self._within_s * number / self._events - time.monotonic()))
            for _ in range(2 if number % _TWICE_EVERY == 0 else 1):
                self._deliver(number)
            with self._progress:
                self._sent += 1
                self._progress.notify_all()
        self.took_s = time.monotonic() - began_s
        if self._connection is not None:
            self._connection.close()

    def _deliver(self, number: int) -> None:
        body = json.dumps({"events": [self._event(number)]}).encode()
        while not self._post(body):
            self.again += 1
            time.sleep(_BACKOFF_S)

    def _event(self, number: int) -> dict[str, Any]:
        target = {"repository": REPOSITORY, "tag": _tag(number), "digest": self._origin.digest, "mediaType": "x/y"}
        request = {"host": self._origin.address, "method": "PUT"}
        return {"id": f"event-{number}", "action": "push", "target": target, "request": request, "source": {}}

    def _post(self, body: bytes) -> bool:
        """Whether it was taken."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._address, timeout=_ANSWER_S)
        try:
            headers = {"Content-Type": _MEDIA_TYPE, "Authorization": f"Bearer {_TOKEN}"}
            self._connection.request("POST", "/api/v1/notifications", body, headers)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = None
            return False
        return answer.status == 202
