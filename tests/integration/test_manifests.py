"""Manifests of real registries through real nodes: sent once, to whom the origin allows, also while it is down.

The registry, which wants a password for everything, is the same for all tests, and mostly the node too; each test has
an image and a repository of its own.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.faults import Fault
from benchmarks.cluster.image import make_random_image
from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.proxy_process import CountingProxyProcess, ProxyControl
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from tests.support.counts import assert_metric
from tests.support.passwords import USER, basic_authorization, password_auth
from tests.support.pullers import ACCEPTED, Answer, get, manifest_target, pull_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.cluster.image import Image
    from benchmarks.cluster.services import Peer

pytestmark = pytest.mark.client("docker-registry")

MINE = basic_authorization() | ACCEPTED
STALE = ("--stale-if-down", "1h", "--permission-ttl", "0s", "--tag-ttl", "0s")
_NUMBERS = itertools.count(100)


@dataclass(frozen=True)
class Pushed:
    """An image, and the repository that it is in."""

    image: Image
    repository: str

    def manifest(self, reference: str = "latest") -> str:
        return manifest_target(reference, self.repository)

    def pull(self, peer: Peer, headers: dict[str, str]) -> list[Answer]:
        return pull_image(peer.proxy, self.image, self.repository, headers)

    @property
    def wanted(self) -> list[str]:
        return [self.image.top.digest, self.image.manifest.digest, *(blob.digest for blob in self.image.blobs)]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    root = tmp_path_factory.mktemp("registry")
    with Registry(root, auth=password_auth(root)) as registry:
        yield registry


@pytest.fixture(scope="module")
def proxy(locked: Registry) -> Iterator[CountingProxyProcess]:
    with CountingProxyProcess(locked.host_port) as running:
        yield running


@pytest.fixture
def origin(proxy: CountingProxyProcess) -> Iterator[CountingProxyProcess]:
    """As the nodes see the registry; it misbehaves for one test alone."""
    yield proxy
    proxy.clear_faults()
    proxy.accept()


@pytest.fixture
def pushed(locked: Registry, tmp_path: Path) -> Pushed:
    number = next(_NUMBERS)
    image = make_random_image(tmp_path / "image", (500, 70_000), seed=number, with_index=True)
    locked.push(image, f"private/app-{number}", headers=basic_authorization())
    return Pushed(image, f"private/app-{number}")


@pytest.fixture(scope="module")
def cluster(proxy: CountingProxyProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), proxy.address) as running:
        running.add_peer()
        running.wait_for_sessions(1)
        yield running


@pytest.fixture
def peer(cluster: Cluster) -> Peer:
    return cluster.peers[0]


def answers_alike(peer: Peer, origin: ProxyControl, target: str, headers: dict[str, str]) -> Answer:
    """The answer through the peer, which is the origin's own."""
    through, direct = get(peer.proxy, target, headers=headers), get(origin.address, target, headers=headers)
    assert (through.status, through.start) == (direct.status, direct.start)
    for name in ("content-type", "docker-content-digest", "www-authenticate", "etag", "content-length"):
        assert through.headers.get(name) == direct.headers.get(name), name
    return through


@pytest.mark.parametrize("reference", ["latest", "digest"])
def test_every_answer_is_the_origins_own(peer: Peer, origin: ProxyControl, pushed: Pushed, *, reference: str) -> None:
    def from_the_cluster() -> float:
        return peer.metrics().value("layercast_manifests_total", **{"from": "cluster"})

    before = from_the_cluster()
    target = pushed.manifest(pushed.image.top.digest if reference == "digest" else reference)
    for _ in range(2):
        assert answers_alike(peer, origin, target, MINE).status == 200
        assert answers_alike(peer, origin, target, ACCEPTED).status == 401
        assert answers_alike(peer, origin, target, basic_authorization(USER, "wrong")).status == 401
        # 404, or another form of it: this registry looks at what is accepted.
        answers_alike(peer, origin, target, basic_authorization())
        other = manifest_target(pushed.image.top.digest, "private/other")
        assert answers_alike(peer, origin, other, MINE).status == 404
        assert answers_alike(peer, origin, pushed.manifest("no-such-tag"), MINE).status == 404
    assert from_the_cluster() >= before + 2


def test_a_manifest_that_is_another_than_its_digest_says_is_given_to_nobody_as_it(
    peer: Peer, origin: ProxyControl, pushed: Pushed
) -> None:
    target = pushed.manifest(pushed.image.top.digest)
    origin.add_fault(Fault(method="GET", path_contains=target, corrupt_at=3))
    wrong = get(peer.proxy, target, headers=MINE)
    # What the origin itself sends to this client is the client's to check; nothing of it is kept.
    origin.clear_faults()
    assert get(peer.proxy, target, headers=MINE).sha256 == pushed.image.top.digest
    assert wrong.sha256 != pushed.image.top.digest


@pytest.mark.parametrize(
    "fault",
    [
        Fault(method="HEAD", headers=(("Docker-Content-Digest", f"sha256:{'0' * 64}"),)),
        Fault(method="HEAD", headers=(("Docker-Content-Digest", ""),)),
        Fault(method="HEAD", headers=(("Content-Length", "17"),)),
        Fault(method="HEAD", status=405),
        Fault(method="HEAD", status=500),
    ],
    ids=["another digest", "no digest", "another length", "405", "500"],
)
def test_an_origin_whose_heads_are_wrong_is_asked_by_get(
    peer: Peer, origin: ProxyControl, pushed: Pushed, fault: Fault
) -> None:
    origin.add_fault(fault)
    for reference in ("latest", pushed.image.top.digest):
        answer = get(peer.proxy, pushed.manifest(reference), headers=MINE)
        assert (answer.status, answer.sha256) == (200, pushed.image.top.digest)
    assert get(peer.proxy, pushed.manifest(), headers=ACCEPTED).status == 401


def test_without_room_in_the_store_manifests_pass_through(
    cluster: Cluster, origin: ProxyControl, pushed: Pushed
) -> None:
    with cluster.guest(extra=["--store-free-floor", "1000000GiB"]) as full:
        for _ in range(2):
            assert answers_alike(full, origin, pushed.manifest(), MINE).status == 200
        assert full.metrics().value("layercast_store_bytes") == 0


def test_what_ran_here_starts_while_the_registry_is_down_also_after_a_restart(
    tmp_path: Path, origin: ProxyControl, pushed: Pushed
) -> None:
    with Cluster(tmp_path, origin.address, peer_flags=STALE) as cluster:
        peer = cluster.add_peer()
        cluster.wait_for_sessions(1)
        for target in ("/v2/", pushed.manifest()):
            assert get(peer.proxy, target, headers=MINE).status == 200
        assert [answer.sha256 for answer in pushed.pull(peer, MINE)] == pushed.wanted
        wait_until(lambda: peer.metrics().value("layercast_swarms_open") == 0, "the blobs are complete")
        origin.refuse()
        assert_starts_by_what_was_said_last(peer, pushed)
        peer.kill()
        peer.start()
        assert_starts_by_what_was_said_last(peer, pushed)
        origin.accept()
        wait_until(lambda: "warning" not in get(peer.proxy, pushed.manifest(), headers=MINE).headers, "up")


def assert_starts_by_what_was_said_last(peer: Peer, pushed: Pushed) -> None:
    assert get(peer.proxy, "/v2/", headers=MINE).status == 200
    answers = pushed.pull(peer, MINE)
    assert [answer.sha256 for answer in answers] == pushed.wanted
    assert all("110 layercast" in answer.headers.get("warning", "") for answer in answers)
    assert_metric(peer, "layercast_stale_answers_total", 2, kind="manifest")
    assert_metric(peer, "layercast_stale_answers_total", len(pushed.image.blobs), kind="blob")
    for headers in (ACCEPTED, ACCEPTED | basic_authorization(USER, "wrong")):
        assert {answer.status for answer in pushed.pull(peer, headers)} == {503}


def test_a_credential_that_was_revoked_before_the_registry_went_down_reads_nothing(
    tmp_path: Path, pushed: Pushed
) -> None:
    root = tmp_path / "registry"
    with Registry(root, auth=password_auth(root)) as registry, CountingProxy(registry.host_port) as origin:
        registry.push(pushed.image, pushed.repository, headers=basic_authorization())
        with Cluster(tmp_path, origin.address, peer_flags=STALE) as cluster:
            peer = cluster.add_peer()
            cluster.wait_for_sessions(1)
            assert [answer.sha256 for answer in pushed.pull(peer, MINE)] == pushed.wanted
            file = root / "htpasswd"
            file.write_text(file.read_text().replace(USER, "another"))
            wait_until(lambda: get(peer.proxy, pushed.manifest(), headers=MINE).status == 401, "it is refused")
            assert {answer.status for answer in pushed.pull(peer, MINE)} == {401}
            origin.refuse()
            assert {answer.status for answer in pushed.pull(peer, MINE)} == {503}
