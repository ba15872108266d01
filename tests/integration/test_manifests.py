"""Manifests of real registries through real nodes: sent once, to whom the origin allows, also while it is down."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.faults import Fault
from benchmarks.cluster.image import make_random_image
from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from tests.support.passwords import USER, basic_authorization, password_auth
from tests.support.pullers import Answer, blob_target, get
from tests.support.tls import Authority
from tests.support.tokens import TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.cluster.image import Image
    from benchmarks.cluster.services import Peer

pytestmark = pytest.mark.client("docker-registry")

PRIVATE = "private/app"
NODES = 20
ACCEPTED = {
    "Accept": ", ".join(
        [
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.oci.image.manifest.v1+json",
        ]
    )
}
MINE = basic_authorization() | ACCEPTED


def manifest_target(reference: str, repository: str = PRIVATE) -> str:
    return f"/v2/{repository}/manifests/{reference}"


def pull(peer: Peer, image: Image, headers: dict[str, str]) -> list[Answer]:
    """As docker does: what the tag names, the platform's manifest, then config and layers."""
    targets = [manifest_target("latest"), manifest_target(image.manifest.digest)]
    targets += [blob_target(blob.digest, PRIVATE) for blob in image.blobs]
    return [get(peer.proxy, target, headers=headers) for target in targets]


def wanted(image: Image) -> list[str]:
    return [image.top.digest, image.manifest.digest, *(blob.digest for blob in image.blobs)]


def test_twenty_nodes_with_a_token_each_cost_the_origin_one_image(tmp_path: Path) -> None:
    image = make_random_image(tmp_path / "image", (40_000, 100_000, 300_000, 1_000_000, 2_000_000), 7, with_index=True)
    with (
        TokenServer(Authority(tmp_path).issue(["token.test"]), {USER: "-"}) as tokens,
        Registry(tmp_path / "registry", auth=tokens.registry_auth()) as registry,
        CountingProxy(registry.host_port) as origin,
    ):
        writer = tokens.token(USER, [f"repository:{PRIVATE}:pull,push"])
        registry.push(image, PRIVATE, headers={"Authorization": f"Bearer {writer}"})
        realm = ["--insecure-upstream", tokens.address]
        with Cluster(tmp_path, origin.address, supernode_flags=realm, peer_flags=realm) as cluster:
            peers = cluster.add_peers([None] * NODES)
            cluster.wait_for_sessions(NODES)
            origin.reset()
            with ThreadPoolExecutor(NODES) as pool:
                pulls = []
                for peer in peers:
                    token = tokens.token(USER, [f"repository:{PRIVATE}:pull"])
                    pulls.append(pool.submit(pull, peer, image, ACCEPTED | {"Authorization": f"Bearer {token}"}))
                for each in pulls:
                    assert [answer.sha256 for answer in each.result()] == wanted(image)
        ledger = origin.ledger()
        gets = [e.path for e in ledger.exchanges if e.method == "GET" and "/manifests/" in e.path]
        assert sorted(gets) == sorted(manifest_target(each.digest) for each in (image.top, image.manifest))
        assert [ledger.blob_bytes(blob.digest) for blob in image.blobs] == [blob.size_bytes for blob in image.blobs]
        heads = [e.path for e in ledger.exchanges if e.method == "HEAD"]
        print(
            f"HEADs: {sum('/manifests/' in path for path in heads)} of manifests, "
            f"{sum('/blobs/' in path for path in heads)} of blobs"
        )
        # One node asks for all of them whether it is there, since a manifest's word is not enough.
        assert [blob.digest for blob in image.blobs if ledger.heads(blob.digest) > 2] == []


@pytest.fixture
def origin(tmp_path: Path, image: Image) -> Iterator[CountingProxy]:
    """A registry that wants a password for everything."""
    root = tmp_path / "registry"
    with Registry(root, auth=password_auth(root)) as registry, CountingProxy(registry.host_port) as proxy:
        registry.push(image, PRIVATE, headers=basic_authorization())
        yield proxy


def answers_alike(peer: Peer, origin: CountingProxy, target: str, headers: dict[str, str]) -> Answer:
    """The answer through the peer, which is the origin's own."""
    through, direct = get(peer.proxy, target, headers=headers), get(origin.address, target, headers=headers)
    assert (through.status, through.start) == (direct.status, direct.start)
    for name in ("content-type", "docker-content-digest", "www-authenticate", "etag", "content-length"):
        assert through.headers.get(name) == direct.headers.get(name), name
    return through


@pytest.mark.parametrize("reference", ["latest", "digest"])
def test_every_answer_is_the_origins_own(
    tmp_path: Path, origin: CountingProxy, image: Image, *, reference: str
) -> None:
    with Cluster(tmp_path, origin.address) as cluster:
        peer = cluster.add_peer()
        cluster.wait_for_sessions(1)
        target = manifest_target(image.top.digest if reference == "digest" else reference)
        for _ in range(2):
            assert answers_alike(peer, origin, target, MINE).status == 200
            assert answers_alike(peer, origin, target, ACCEPTED).status == 401
            assert answers_alike(peer, origin, target, basic_authorization(USER, "wrong")).status == 401
            # 404, or another form of it: this registry looks at what is accepted.
            answers_alike(peer, origin, target, basic_authorization())
            other = manifest_target(image.top.digest, "private/other")
            assert answers_alike(peer, origin, other, MINE).status == 404
            assert answers_alike(peer, origin, manifest_target("no-such-tag"), MINE).status == 404
        assert peer.metrics().value("layercast_manifests_total", **{"from": "cluster"}) >= 2


def test_a_manifest_that_is_another_than_its_digest_says_is_given_to_nobody_as_it(
    tmp_path: Path, origin: CountingProxy, image: Image
) -> None:
    target = manifest_target(image.top.digest)
    origin.add_fault(Fault(method="GET", path_contains=target, corrupt_at=3))
    with Cluster(tmp_path, origin.address) as cluster:
        peer = cluster.add_peer()
        cluster.wait_for_sessions(1)
        wrong = get(peer.proxy, target, headers=MINE)
        # What the origin itself sends to this client is the client's to check; nothing of it is kept.
        origin.clear_faults()
        assert get(peer.proxy, target, headers=MINE).sha256 == image.top.digest
        assert wrong.sha256 != image.top.digest


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
    tmp_path: Path, origin: CountingProxy, image: Image, fault: Fault
) -> None:
    with Cluster(tmp_path, origin.address) as cluster:
        peer = cluster.add_peer()
        cluster.wait_for_sessions(1)
        origin.add_fault(fault)
        for reference in ("latest", image.top.digest):
            answer = get(peer.proxy, manifest_target(reference), headers=MINE)
            assert (answer.status, answer.sha256) == (200, image.top.digest)
        assert get(peer.proxy, manifest_target("latest"), headers=ACCEPTED).status == 401


def test_without_room_in_the_store_manifests_pass_through(tmp_path: Path, origin: CountingProxy, image: Image) -> None:
    with Cluster(tmp_path, origin.address) as cluster:
        peer = cluster.add_peer(extra=["--store-free-floor", "1000000GiB"])
        cluster.wait_for_sessions(1)
        for _ in range(2):
            assert answers_alike(peer, origin, manifest_target("latest"), MINE).status == 200
        assert peer.metrics().value("layercast_store_bytes") == 0


@pytest.mark.parametrize("restarted", [False, True])
def test_what_ran_here_starts_while_the_registry_is_down(
    tmp_path: Path, origin: CountingProxy, image: Image, *, restarted: bool
) -> None:
    flags = ["--stale-if-down", "1h", "--permission-ttl", "0s", "--tag-ttl", "0s"]
    with Cluster(tmp_path, origin.address, peer_flags=flags) as cluster:
        peer = cluster.add_peer()
        cluster.wait_for_sessions(1)
        for target in ("/v2/", manifest_target("latest")):
            assert get(peer.proxy, target, headers=MINE).status == 200
        assert [answer.sha256 for answer in pull(peer, image, MINE)] == wanted(image)
        wait_until(lambda: peer.metrics().value("layercast_swarms_open") == 0, "the blobs are complete")
        origin.refuse()
        if restarted:
            peer.kill()
            peer.start()
        assert get(peer.proxy, "/v2/", headers=MINE).status == 200
        answers = pull(peer, image, MINE)
        assert [answer.sha256 for answer in answers] == wanted(image)
        assert all("110 layercast" in answer.headers.get("warning", "") for answer in answers)
        assert peer.metrics().value("layercast_stale_answers_total", kind="manifest") == 2
        assert peer.metrics().value("layercast_stale_answers_total", kind="blob") == len(image.blobs)
        for headers in (ACCEPTED, ACCEPTED | basic_authorization(USER, "wrong")):
            assert {answer.status for answer in pull(peer, image, headers)} == {503}
        origin.accept()
        wait_until(lambda: "warning" not in get(peer.proxy, manifest_target("latest"), headers=MINE).headers, "up")


def test_a_credential_that_was_revoked_before_the_registry_went_down_reads_nothing(
    tmp_path: Path, image: Image
) -> None:
    root = tmp_path / "registry"
    flags = ["--stale-if-down", "1h", "--permission-ttl", "0s", "--tag-ttl", "0s"]
    with Registry(root, auth=password_auth(root)) as registry, CountingProxy(registry.host_port) as origin:
        registry.push(image, PRIVATE, headers=basic_authorization())
        with Cluster(tmp_path, origin.address, peer_flags=flags) as cluster:
            peer = cluster.add_peer()
            cluster.wait_for_sessions(1)
            assert [answer.sha256 for answer in pull(peer, image, MINE)] == wanted(image)
            file = root / "htpasswd"
            file.write_text(file.read_text().replace(USER, "another"))
            target = manifest_target("latest")
            wait_until(lambda: get(peer.proxy, target, headers=MINE).status == 401, "it is refused")
            assert {answer.status for answer in pull(peer, image, MINE)} == {401}
            origin.refuse()
            assert {answer.status for answer in pull(peer, image, MINE)} == {503}
