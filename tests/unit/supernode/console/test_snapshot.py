"""What the console is shown of a cluster that is made up."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from benchmarks.console import MadeUpCluster
from supernode.console import snapshot
from supernode.console.snapshot import Snapshots


def shown(cluster: MadeUpCluster, **changed: Any) -> dict[str, Any]:
    made = json.loads(Snapshots(dataclasses.replace(cluster.view(), **changed)).make())
    assert isinstance(made, dict)
    return made


@pytest.fixture(scope="module")
def cluster() -> MadeUpCluster:
    """30 nodes in two racks and two swarms, the first half done."""
    return MadeUpCluster(30, 2)


def test_it_says_what_status_and_nodes_say_and_more(cluster: MadeUpCluster) -> None:
    found = shown(cluster)
    assert (found["sessions"], found["swarms_open"], len(found["nodes"])) == (30, 2, 30)
    first = found["swarms"][0]
    assert (first["members"], first["wanted_by"], first["seed_pieces"], first["pieces"]) == (30, 30, 256, 256)
    assert len(first["map"]) == 256
    assert set(first["map"]) <= set("123456789")
    assert [(zone, members) for zone, members, _ in first["zones"]] == [("eu/eu-1/rack1", 20), ("eu/eu-2/rack2", 10)]


def test_a_swarm_tells_its_bytes_by_source_and_how_far_it_is(cluster: MadeUpCluster) -> None:
    first = shown(cluster)["swarms"][0]
    held = sum(member.held.bit_count() for member in next(iter(cluster.swarms)).members.values())
    assert first["bytes"]["origin"] == first["size_bytes"]
    assert first["bytes"]["supernode"] + first["bytes"]["nodes"] == held << 20
    assert first["progress"] == pytest.approx(held / (30 * 256), abs=0.001)
    # 256 MiB over a downlink of 5 MB/s takes as long.
    assert first["bound_s"] == pytest.approx((256 << 20) / 5e6, abs=0.01)
    assert first["elapsed_s"] >= 40.0


def test_what_was_saved_is_told_in_money_where_there_is_a_price(cluster: MadeUpCluster) -> None:
    traffic = shown(cluster)["traffic"]
    assert traffic["saved_bytes"] == traffic["supernode"] + traffic["nodes"] - traffic["origin"] > 0
    assert traffic["saved_money"] == pytest.approx(traffic["saved_bytes"] / 1e9 * 0.09, abs=0.01)
    free = shown(cluster, price=None)["traffic"]
    assert (free["saved_money"], free["currency"]) == (None, "")


def test_a_rate_is_told_from_the_second_look_on() -> None:
    cluster, now_s = MadeUpCluster(10, 1), 0.0
    made = Snapshots(dataclasses.replace(cluster.view(), clock=lambda: now_s))
    assert json.loads(made.make())["traffic"]["came_bytes_s"] is None
    received = cluster.swarms.traffic.received
    cluster.step()
    now_s = 2.0
    second = json.loads(made.make())
    assert second["traffic"]["came_bytes_s"] == (cluster.swarms.traffic.received - received) / 2
    assert second["swarms"][0]["came_bytes_s"] == (cluster.swarms.traffic.received - received) / 2
    now_s = 100.0
    assert json.loads(made.make())["traffic"]["came_bytes_s"] is None


def test_nodes_that_need_an_operator_come_first_where_not_all_are_listed(
    cluster: MadeUpCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = list(cluster.nodes)[-1]
    cluster.nodes.quarantine(last.info.peer, "corrupt", 0.0)
    monkeypatch.setattr(snapshot, "NODES_MAX", 3)
    listed = shown(cluster)["nodes"]
    assert [bool(row["trouble"]) for row in listed] == [True, True, False]
    assert listed[1]["node"] == last.node


def test_the_swarms_that_most_wait_for_are_listed(cluster: MadeUpCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "SWARMS_MAX", 1)
    assert [row["number"] for row in shown(cluster)["swarms"]] == [2]


def test_members_are_looked_at_up_to_a_limit(cluster: MadeUpCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MEMBERS_MAX", 40)
    assert ["map" in row for row in shown(cluster)["swarms"]] == [False, True]
