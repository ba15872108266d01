"""The whole origin out of reach: before a pull, in the middle of one, and where its redirects lead."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.faults import Fault
from benchmarks.cluster.processes import WAIT_S, wait_until
from benchmarks.cluster.services import Cluster
from tests.support.blobs import some_blob
from tests.support.counts import assert_becomes, assert_received, assert_received_from_the_swarm
from tests.support.fake_origin import FakeOrigin, fake_origin
from tests.support.held import held_bytes
from tests.support.nowhere import address_without_answer
from tests.support.pullers import Pull, blob_target, get, pull, start_pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.cluster.counting_proxy import CountingProxy

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20
SIZE_BYTES = 6 * MIB
UNKNOWN_DIGEST = f"sha256:{'1' * 64}"


def assert_registry_error(status: int, body: bytes) -> None:
    assert 500 <= status < 600
    assert json.loads(body)["errors"][0]["code"]


def test_an_origin_that_refuses_connections_is_a_registry_error(cluster: Cluster, origin: CountingProxy) -> None:
    peer = cluster.add_peer()
    cluster.wait_for_sessions(1)
    origin.refuse()
    for target in ("/v2/", "/v2/library/random/manifests/latest", blob_target(UNKNOWN_DIGEST)):
        answer = get(peer.proxy, target)
        assert_registry_error(answer.status, answer.start)
    assert peer.healthz()[0] == 200


def test_an_unreachable_origin_is_a_registry_error_before_clients_give_up(tmp_path: Path) -> None:
    with address_without_answer() as nowhere, Cluster(tmp_path, nowhere) as cluster:
        peer = cluster.add_peer()
        targets = ("/v2/", "/v2/library/random/manifests/latest", blob_target(UNKNOWN_DIGEST))
        started = [Pull(peer.proxy, target) for target in targets]
        for running in started:
            with running:
                # 25 s are allowed (containerd waits 30 for headers), TCP alone would take over 120.
                answer = running.result(WAIT_S)
                assert_registry_error(answer.status, answer.start)


def test_an_origin_that_is_gone_for_a_while_is_asked_for_the_rest_alone(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    peers = cluster.add_peers([None, None])
    cluster.wait_for_sessions(2)
    # It cannot have sent all before it goes.
    origin.add_fault(Fault(path_contains=digest, method="GET", stall_after_bytes=4 * MIB, times=1))
    pulls = [start_pull(peer.proxy, digest) for peer in peers]
    try:
        pulls[0].wait_for_bytes(2 * MIB)
        origin.refuse()
        asked = cluster.supernode.metrics().value("layercast_origin_requests_total")
        wait_until(
            lambda: cluster.supernode.metrics().value("layercast_origin_requests_total") >= asked + 2,
            "requests in vain",
        )
        origin.accept()
        for running in pulls:
            answer = running.result()
            assert answer.complete
            assert answer.sha256 == digest
    finally:
        for running in pulls:
            running.hang_up()
    ledger = origin.ledger()
    # What was on its way when the connection was cut may have come: nobody asks for it again then.
    assert ledger.distinct_bytes(digest) + ledger.doubtful_bytes(digest) == SIZE_BYTES
    assert ledger.repeated_bytes(digest) == 0


def test_what_the_nodes_hold_is_served_when_the_origin_is_gone(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    first, second = cluster.add_peers([None, None])
    cluster.wait_for_sessions(2)
    assert pull(first.proxy, digest).sha256 == digest
    origin.refuse()
    answer = pull(second.proxy, digest)
    assert answer.complete
    assert answer.sha256 == digest
    assert_received_from_the_swarm(second, SIZE_BYTES)
    assert_received(second, passthrough=0)


def test_a_node_that_the_origin_serves_is_elected_when_the_supernode_cannot_reach_it(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    """Every request of the supernode's fetch fails for long enough that it gives up; a node's then succeeds."""
    digest = push(SIZE_BYTES)
    peers = cluster.add_peers([None, None])
    cluster.wait_for_sessions(2)
    origin.add_fault(Fault(path_contains=digest, method="GET", status=503, times=6))
    pulls = [start_pull(peer.proxy, digest) for peer in peers]
    for running in pulls:
        with running:
            answer = running.result()
            assert answer.complete
            assert answer.sha256 == digest
    assert origin.ledger().distinct_bytes(digest) == SIZE_BYTES
    assert origin.ledger().repeated_bytes(digest) == 0
    assert_received(cluster, passthrough=0)


@pytest.fixture
def storage() -> Iterator[FakeOrigin]:
    """Where a registry's redirects lead."""
    with fake_origin() as origin:
        yield origin


@pytest.fixture
def redirecting(storage: FakeOrigin) -> Iterator[FakeOrigin]:
    with fake_origin() as origin:
        origin.redirect_to = storage.url
        origin.token = "token-for-anyone"
        yield origin


@pytest.fixture
def allowed(redirecting: FakeOrigin, storage: FakeOrigin, tmp_path: Path) -> list[str]:
    """Flags that allow the redirect: over plain http none is followed that the operator did not name."""
    file = tmp_path / "upstreams.toml"
    section = f'[upstream."{redirecting.authority}"]\nurl = "{redirecting.url}"\n'
    file.write_text(f'{section}redirect_hosts = ["{storage.authority}"]\n')
    return ["--config", str(file)]


def has_credential(origin: FakeOrigin) -> bool:
    return any("authorization" in asked.headers or "cookie" in asked.headers for asked in origin.asked)


def test_redirects_are_followed_without_the_credential(
    redirecting: FakeOrigin, storage: FakeOrigin, allowed: list[str], tmp_path: Path
) -> None:
    blob = some_blob(2 * MIB)
    digest = str(storage.add(blob.content))
    with Cluster(tmp_path, redirecting.authority, supernode_flags=allowed, peer_flags=allowed) as cluster:
        peers = cluster.add_peers([None, None])
        cluster.wait_for_sessions(2)
        for peer in peers:
            answer = pull(peer.proxy, digest)
            assert answer.complete
            assert answer.sha256 == digest
        assert has_credential(redirecting)
        assert storage.asked
        assert not has_credential(storage)
        # one byte tells that the blob is public (a redirect may be good for GET alone), then each byte once
        assert [asked.range for asked in storage.asked] == ["bytes=0-0", None]
        assert_received(cluster, passthrough=0)


def test_a_private_blob_is_fetched_with_its_clients_credential_and_its_storage_hears_none_of_it(
    redirecting: FakeOrigin, storage: FakeOrigin, allowed: list[str], tmp_path: Path
) -> None:
    redirecting.challenge = 'Basic realm="private"'
    digest = str(storage.add(some_blob(2 * MIB).content))
    with Cluster(tmp_path, redirecting.authority, supernode_flags=allowed, peer_flags=allowed) as cluster:
        peer = cluster.add_peer()
        cluster.wait_for_sessions(1)
        mine = {"Authorization": f"Bearer {redirecting.token}"}
        answer = get(peer.proxy, blob_target(digest), headers=mine)
        assert answer.complete
        assert answer.sha256 == digest
        assert_received(peer, origin=2 * MIB, passthrough=0)
        assert not has_credential(storage)
        # It is kept, and is nobody else's.
        assert_becomes(lambda: held_bytes(peer.data_dir, digest), 2 * MIB)
        assert get(peer.proxy, blob_target(digest)).status == 401
        for service in (peer, cluster.supernode):
            assert not any(str(redirecting.token) in line for line in service.process.log())
            assert not any("X-Signature" in line for line in service.process.log())
