"""A real registry's own notifications while the supernode or the registry itself dies: each pushed tag has one job."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest

from benchmarks import events
from benchmarks.cluster.image import make_random_image
from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from tests.support.counts import assert_becomes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPOSITORY: Final = "team/app"
TOKEN: Final = "the-secret-of-this-test"


class Told:
    """A cluster of one node, which a registry tells of pushes."""

    def __init__(self, registry: Registry, cluster: Cluster, folder: Path) -> None:
        self.registry = registry
        self.cluster = cluster
        self._folder = folder
        self._seeds = iter(range(100))

    def push(self, *tags: str) -> None:
        """An image of its own under each tag."""
        for tag in tags:
            folder = self._folder / tag
            folder.mkdir()
            self.registry.push(make_random_image(folder, (20_000,), seed=next(self._seeds)), REPOSITORY, tag)

    def ask(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{self.cluster.supernode.status_address}{path}") as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def done(self) -> Counter[str]:
        """How many jobs of each tag are done."""
        jobs = self.ask("/api/v1/jobs")["jobs"]
        return Counter(job["image"].rpartition(":")[2] for job in jobs if job["state"] == "done")

    def found_by_the_last_scan(self) -> int:
        """How many tags; 0 while there was none."""
        last = self.ask("/api/v1/events")["scan"]["last"]
        return int(last["found"]) if last else 0

    def wait_for(self, *tags: str) -> None:
        """Each has a job that is done, and nothing is left to do."""
        wait_until(lambda: set(tags) <= set(self.done()), f"jobs of {', '.join(tags)}")
        wait_until(lambda: self.ask("/api/v1/events")["working"] == 0, "the events are done with")


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    """Its supernode has looked at the registry's tags, of which there were none."""
    folder = tmp_path
    (folder / "secret").write_text(TOKEN)
    with Registry(folder / "registry") as registry:
        file = folder / "supernode.toml"
        rule = f'[preheat."apps"]\nrepositories = ["{registry.address}/{REPOSITORY}"]\n'
        file.write_text(f'event_token_file = "{folder / "secret"}"\n{rule}')
        flags = ["--config", str(file), "--recovery", "3s"]
        with Cluster(folder, registry.address, supernode_flags=flags) as cluster:
            cluster.add_peer()
            registry.stop()
            registry.endpoints = [
                {
                    "name": "supernode",
                    "url": f"http://{cluster.supernode.status_address}/api/v1/notifications?registry={registry.address}",
                    "headers": {"Authorization": [f"Bearer {TOKEN}"]},
                    "timeout": "2s",
                    "threshold": 5,
                    "backoff": "200ms",
                }
            ]
            registry.start()
            running = Told(registry, cluster, folder)
            wait_until(lambda: running.ask("/api/v1/events")["scan"]["last"] is not None, "the first scan")
            yield running


@pytest.mark.client("docker-registry")
def test_pushes_while_the_supernode_is_dead_are_done_once_also_those_that_the_registry_forgot(told: Told) -> None:
    told.push("v1")
    told.wait_for("v1")
    told.cluster.supernode.kill()
    told.push("v2", "v3")
    told.cluster.supernode.start()
    # The registry sends them again until they are taken.
    told.wait_for("v2", "v3")
    told.cluster.supernode.kill()
    told.push("w1")
    # Its queue is lost, and the tags are looked at.
    told.registry.stop()
    told.registry.start()
    told.cluster.supernode.start()
    told.wait_for("w1")
    assert told.done() == Counter(["v1", "v2", "v3", "w1"])
    assert_becomes(told.found_by_the_last_scan, 1)


def test_the_benchmark_finds_none_of_300_events_lost_or_done_twice_by_a_kill() -> None:
    figures = events.measure(300, within_s=2.0, kills=1)
    assert (figures.jobs, figures.lost, figures.twice, figures.dead) == (300, 0, 0, 0)
