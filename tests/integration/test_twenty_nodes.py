"""Twenty cold nodes at once, a client at each: the origin sends every byte of every blob once.

The nodes are the same for all tests here, each of which has an image of its own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.image import Image, make_random_image
from benchmarks.cluster.proxy_process import CountingProxyProcess
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from peer.cli.main import main
from tests.support.passwords import USER
from tests.support.pullers import ACCEPTED, REPOSITORY, manifest_target, pull_image, start_pull
from tests.support.site import assert_all_came_by_the_swarm, assert_left_the_origin_once
from tests.support.tls import Authority
from tests.support.tokens import TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.client("docker-registry")

NODES = 20
SOURCES = ("peer", "seed", "origin", "passthrough")
PRIVATE = "private/app"


@dataclass
class Twenty:
    """The nodes, and a registry with a token service that gives REPOSITORY to anyone."""

    cluster: Cluster
    registry: Registry
    origin: CountingProxyProcess
    tokens: TokenServer

    def push(self, image: Image, repository: str) -> None:
        self.registry.push(image, repository, headers=self.login(repository, "pull,push"))
        self.origin.reset()

    def login(self, repository: str, actions: str = "pull") -> dict[str, str]:
        """With a token of its own."""
        return {"Authorization": f"Bearer {self.tokens.token(USER, [f'repository:{repository}:{actions}'])}"}


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twenty]:
    folder = tmp_path_factory.mktemp("twenty")
    with (
        TokenServer(Authority(folder).issue(["token.test"]), {USER: "-"}, {REPOSITORY}) as tokens,
        Registry(folder / "registry", auth=tokens.registry_auth()) as registry,
        CountingProxyProcess(registry.host_port) as origin,
    ):
        realm = ["--insecure-upstream", tokens.address]
        with Cluster(folder, origin.address, supernode_flags=realm, peer_flags=realm) as cluster:
            cluster.add_peers([None] * NODES)
            cluster.wait_for_sessions(NODES)
            yield Twenty(cluster, registry, origin, tokens)


# The first here: what nodes have received is counted from their start.
def test_twenty_cold_nodes_cost_the_origin_one_image(twenty: Twenty, tmp_path: Path) -> None:
    image = make_random_image(tmp_path, (500, 40_000, 1_000_000, 4_000_000, 10_000_000), seed=5)
    twenty.push(image, REPOSITORY)
    peers = twenty.cluster.peers
    with ExitStack() as hanging_up:
        pulls = [
            (blob, hanging_up.enter_context(start_pull(peer.proxy, blob.digest)))
            for blob in image.blobs
            for peer in peers
        ]
        answers = [(blob, pull.result()) for blob, pull in pulls]
    wrong = [(blob.digest, answer) for blob, answer in answers if not answer.complete]
    assert wrong == []
    assert all(answer.sha256 == blob.digest for blob, answer in answers)
    assert_left_the_origin_once(twenty.origin, image.blobs)
    for peer in peers:
        assert_all_came_by_the_swarm(peer, image, manifests=False)
    by_peers = twenty.cluster.received_bytes("peer") / (NODES * image.size_bytes)
    print(f"{by_peers:.3f} of all bytes came from peers")
    assert by_peers >= 0.5


def test_twenty_nodes_with_a_token_each_cost_the_origin_one_image(twenty: Twenty, tmp_path: Path) -> None:
    image = make_random_image(tmp_path, (40_000, 100_000, 300_000, 1_000_000, 2_000_000), seed=7, with_index=True)
    twenty.push(image, PRIVATE)
    with ThreadPoolExecutor(NODES) as pool:
        pulls = [
            pool.submit(pull_image, peer.proxy, image, PRIVATE, ACCEPTED | twenty.login(PRIVATE))
            for peer in twenty.cluster.peers
        ]
        wanted = [image.top.digest, image.manifest.digest, *(blob.digest for blob in image.blobs)]
        for each in pulls:
            assert [answer.sha256 for answer in each.result()] == wanted
    ledger = twenty.origin.ledger()
    gets = [e.path for e in ledger.exchanges if e.method == "GET" and "/manifests/" in e.path]
    assert sorted(gets) == sorted(manifest_target(each.digest, PRIVATE) for each in (image.top, image.manifest))
    assert [ledger.blob_bytes(blob.digest) for blob in image.blobs] == [blob.size_bytes for blob in image.blobs]
    heads = [e.path for e in ledger.exchanges if e.method == "HEAD"]
    print(
        f"HEADs: {sum('/manifests/' in path for path in heads)} of manifests, "
        f"{sum('/blobs/' in path for path in heads)} of blobs"
    )
    # One node asks for all of them whether it is there, since a manifest's word is not enough.
    assert [blob.digest for blob in image.blobs if ledger.heads(blob.digest) > 2] == []


def test_preheated_nodes_take_no_byte_of_a_pull_from_outside(twenty: Twenty, tmp_path: Path) -> None:
    image = make_random_image(tmp_path, (500, 40_000, 300_000, 2_000_000), seed=9, with_index=True)
    twenty.push(image, REPOSITORY)
    name = f"{twenty.origin.address}/{REPOSITORY}@{image.top.digest}"
    supernode = f"http://{twenty.cluster.supernode.status_address}"
    assert main(["preheat", name, "--watch", "--supernode", supernode]) == 0
    assert_left_the_origin_once(twenty.origin, image.blobs)
    peers = twenty.cluster.peers
    before = [{source: peer.received_bytes(source) for source in SOURCES} for peer in peers]
    twenty.origin.reset()
    with ThreadPoolExecutor(NODES) as pool:
        headers = ACCEPTED | twenty.login(REPOSITORY)
        pulls = [pool.submit(pull_image, peer.proxy, image, REPOSITORY, headers) for peer in peers]
        wanted = [image.top.digest, image.manifest.digest, *(blob.digest for blob in image.blobs)]
        for each in pulls:
            assert [answer.sha256 for answer in each.result()] == wanted
    assert [{source: peer.received_bytes(source) for source in SOURCES} for peer in peers] == before
    assert [e.path for e in twenty.origin.ledger().exchanges if e.method == "GET" and "/v2/" in e.path] == []
