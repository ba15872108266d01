"""Debian's Prometheus scrapes a cluster as the documents say, and evaluates the rules and the board's queries."""

from __future__ import annotations

import functools
import http.client
import json
import urllib.parse
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from benchmarks.cluster.ports import ReservedPort
from benchmarks.cluster.processes import WAIT_S, ManagedProcess, wait_until
from benchmarks.cluster.programs import clean_environment, program
from benchmarks.cluster.services import Cluster
from tests.support.counts import assert_becomes
from tests.support.monitoring import RULES, alerts, board_queries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.client("prometheus")

NO_ORIGIN = "127.0.0.1:1"


def configuration(cluster: Cluster) -> dict[str, Any]:
    """As docs/alerts.md has it, but for the pace."""
    authority = cluster.supernode.data_dir / "ca"
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {
                "job_name": "layercast-supernode",
                "scheme": "https",
                "tls_config": {"ca_file": str(authority / "ca.pem"), "server_name": "supernode.layercast"},
                "authorization": {"credentials_file": str(authority / "operator.token")},
                "static_configs": [{"targets": [cluster.supernode.status_address]}],
            },
            {
                "job_name": "layercast-peer",
                "static_configs": [{"targets": [peer.status_address for peer in cluster.peers]}],
            },
        ],
    }


class Prometheus:
    """A running one, by its address."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str, **words: str) -> Any:
        """What its API says."""
        with closing(http.client.HTTPConnection(self._address, timeout=WAIT_S)) as client:
            client.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(words)}")
            answer = json.load(client.getresponse())
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, query: str) -> list[float]:
        """Of a query, now."""
        return [float(each["value"][1]) for each in self.get("query", query=query)["result"]]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It scrapes a supernode and two peers."""
    folder = tmp_path_factory.mktemp("prometheus")
    with Cluster(folder / "cluster", NO_ORIGIN) as cluster, closing(ReservedPort("127.0.0.1")) as port:
        cluster.add_peers([None, None])
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(configuration(cluster)))
        argv: list[str | Path] = [program("prometheus"), f"--config.file={config}"]
        argv += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={port.address}"]
        with ManagedProcess(argv, name="prometheus", env=clean_environment()) as process:
            process.wait_for_line("Server is ready to receive web requests")
            yield Prometheus(port.address)


def test_it_reads_the_supernode_over_tls_and_each_peer(prometheus: Prometheus) -> None:
    # A scrape that a busy machine does not answer in its second leaves no figures until the next.
    for query, wanted in (("up", 3.0), ("layercast_sessions_open", 2.0), ("layercast_supernode_connected", 2.0)):
        assert_becomes(functools.partial(prometheus.values, f"sum({query})"), [wanted])


def test_it_evaluates_every_rule_and_a_good_cluster_has_no_alert(prometheus: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    wait_until(lambda: prometheus.values("sum(up)") == [3.0], "a scrape of all three")
    wait_until(lambda: all(rule["health"] == "ok" for rule in rules()), "an evaluation of each rule")
    assert [rule["name"] for rule in rules()] == [alert["alert"] for alert in alerts()]
    wait_until(lambda: not prometheus.values("ALERTS"), "no alert, once all were scraped")


def test_it_answers_every_query_of_the_board(prometheus: Prometheus) -> None:
    for query in board_queries():
        prometheus.get("query", query=query)
