"""Preheats across the death of the supernode: no job is lost, none is done twice, and what came need not come again."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.cluster.faults import Fault
from benchmarks.cluster.image import Image, make_random_image
from benchmarks.cluster.processes import wait_until
from peer.cli.main import main
from tests.support.counts import assert_received
from tests.support.held import held_bytes
from tests.support.pullers import REPOSITORY, pull

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.cluster.counting_proxy import CountingProxy
    from benchmarks.cluster.registry import Registry
    from benchmarks.cluster.services import Cluster

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20
JOBS = 3
LAYER_BYTES = 3 * MIB
# The supernode dies in the middle: when it holds all that the origin sends of each layer by then.
SENT_BYTES = 2 * MIB


def jobs(cluster: Cluster) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"http://{cluster.supernode.status_address}/api/v1/jobs") as answer:
        found: list[dict[str, Any]] = json.load(answer)["jobs"]
        return found


def submit(cluster: Cluster, name: str, *, keep: bool = False) -> None:
    url = f"http://{cluster.supernode.status_address}/api/v1/jobs"
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(url, json.dumps({"image": name, "keep": keep}).encode(), headers)
    ):
        pass


def test_jobs_outlive_a_killed_supernode_and_none_is_done_twice(
    cluster: Cluster, origin: CountingProxy, registry: Registry, tmp_path: Path
) -> None:
    images: list[Image] = []
    for seed in range(JOBS):
        folder = tmp_path / f"image{seed}"
        folder.mkdir()
        images.append(make_random_image(folder, (LAYER_BYTES, 40_000), seed=100 + seed))
        registry.push(images[-1], REPOSITORY)
    cluster.add_peers([None, None])
    cluster.wait_for_sessions(2)
    origin.add_fault(Fault(path_contains="/blobs/", method="GET", stall_after_bytes=SENT_BYTES))
    for image in images:
        submit(cluster, f"{origin.address}/{REPOSITORY}@{image.top.digest}")
    layers = [image.layers[0].digest for image in images]
    wait_until(
        lambda: all(held_bytes(cluster.supernode.data_dir, layer) >= SENT_BYTES for layer in layers),
        "the supernode holds what the origin sends",
    )
    cluster.supernode.kill()
    origin.clear_faults()
    cluster.supernode.start()
    wait_until(lambda: all(job["ended"] for job in jobs(cluster)), "the jobs end")
    told = [(job["number"], job["state"], job["nodes_done"]) for job in jobs(cluster)]
    assert told == [(number, "done", 2) for number in range(JOBS, 0, -1)]
    for image in images:
        for blob in image.blobs:
            # At most the unfinished pieces were asked for again.
            assert origin.ledger().blob_bytes(blob.digest) <= blob.size_bytes + MIB
    sent = [origin.ledger().blob_bytes(layer) for layer in layers]
    for peer in cluster.peers:
        received = {source: peer.received_bytes(source) for source in ("peer", "seed", "origin", "passthrough")}
        for image in images:
            for blob in image.blobs:
                assert pull(peer.proxy, blob.digest).sha256 == blob.digest
        assert_received(peer, **received)
    assert [origin.ledger().blob_bytes(layer) for layer in layers] == sent


def test_what_is_kept_outlives_kills_and_is_no_garbage(
    cluster: Cluster, origin: CountingProxy, registry: Registry, tmp_path: Path
) -> None:
    images: list[Image] = []
    for seed in range(2):
        folder = tmp_path / f"image{seed}"
        folder.mkdir()
        images.append(make_random_image(folder, (200_000,), seed=200 + seed))
        registry.push(images[-1], REPOSITORY)
    peer = cluster.add_peer()
    cluster.wait_for_sessions(1)
    kept, other = images
    submit(cluster, f"{origin.address}/{REPOSITORY}@{kept.top.digest}", keep=True)
    submit(cluster, f"{origin.address}/{REPOSITORY}@{other.top.digest}")
    wait_until(lambda: all(job["state"] == "done" for job in jobs(cluster)), "the jobs are done")
    listed = peer.data_dir / "store" / "kept"
    wait_until(lambda: listed.exists() and kept.top.digest in listed.read_text(), "the node has written it down")
    cluster.supernode.kill()
    peer.kill()
    assert main(["gc", "--unused-for", "0s", "--data-dir", str(peer.data_dir)]) == 0
    cluster.supernode.start()
    assert [(job["number"], job["kept"]) for job in jobs(cluster)] == [(2, False), (1, True)]
    peer.start()
    cluster.wait_for_sessions(1)
    origin.reset()
    for image in images:
        assert pull(peer.proxy, image.layers[0].digest).sha256 == image.layers[0].digest
    assert origin.ledger().blob_bytes(kept.layers[0].digest) == 0
    wait_until(
        lambda: peer.received_bytes("seed") + peer.received_bytes("origin") >= other.layers[0].size_bytes,
        "the other image's layer comes again",
    )
