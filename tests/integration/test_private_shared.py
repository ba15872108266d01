"""Private images between members: fetched once, given by each node to those alone whom the origin allows."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.faults import Fault
from benchmarks.cluster.image import make_random_image
from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from peer.cli.main import main
from peer.registry.base import IDENTITY_TOKEN
from tests.support.passwords import PASSWORD, USER, basic_authorization, password_auth
from tests.support.planted import places
from tests.support.pullers import Answer, blob_target, get
from tests.support.tls import Authority
from tests.support.tokens import TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.cluster.image import Image
    from benchmarks.cluster.services import Peer, Service

pytestmark = pytest.mark.client("docker-registry")

PRIVATE = "private/app"
ENCODED = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
NODES = 3


@pytest.fixture
def origin(tmp_path: Path, image: Image) -> Iterator[CountingProxy]:
    """A registry that wants a password for everything."""
    root = tmp_path / "registry"
    with Registry(root, auth=password_auth(root)) as registry, CountingProxy(registry.host_port) as proxy:
        registry.push(image, PRIVATE, headers=basic_authorization())
        yield proxy


def with_login(tmp_path: Path, origin: str, login: str = f"{USER}:{PASSWORD}") -> list[str]:
    """The supernode's configuration, with the operator's login in a file."""
    secret = tmp_path / "login"
    secret.write_text(f"{login}\n")
    config = tmp_path / "supernode.toml"
    config.write_text(f'[upstream."{origin}"]\nurl = "http://{origin}"\ncredentials = "file:{secret}"\n')
    return ["--config", str(config)]


def pull(peer: Peer, image: Image, headers: dict[str, str]) -> list[Answer]:
    return [get(peer.proxy, blob_target(blob.digest, PRIVATE), headers=headers) for blob in image.blobs]


def pull_at_all(cluster: Cluster, image: Image) -> None:
    with ThreadPoolExecutor(NODES) as pool:
        for answers in pool.map(lambda peer: pull(peer, image, basic_authorization()), cluster.peers):
            assert [answer.sha256 for answer in answers] == [blob.digest for blob in image.blobs]


def assert_sent_once(origin: CountingProxy, image: Image) -> None:
    ledger = origin.ledger()
    assert {blob.digest: ledger.blob_bytes(blob.digest) for blob in image.blobs} == {
        blob.digest: blob.size_bytes for blob in image.blobs
    }


def assert_secret_nowhere(services: list[Service]) -> None:
    """In no file, log, argument or environment of theirs."""
    told = [(service.name, place, text) for service in services for place, text in places(service)]
    assert [
        (name, place) for name, place, text in told for secret in (PASSWORD, ENCODED) if secret.encode() in text
    ] == []


def assert_refused(peer: Peer, image: Image) -> None:
    """Though the blob is in its store."""
    target = blob_target(image.layers[-1].digest, PRIVATE)
    for headers in ({}, basic_authorization(USER, "wrong")):
        assert get(peer.proxy, target, headers=headers).status == 401


@pytest.mark.parametrize("login", [True, False])
def test_all_nodes_have_it_by_one_fetch_and_each_asks_for_its_own_clients(
    tmp_path: Path, origin: CountingProxy, image: Image, *, login: bool
) -> None:
    debug = ["--log-level", "debug"]
    flags = [*debug, *(with_login(tmp_path, origin.address) if login else [])]
    with Cluster(tmp_path, origin.address, supernode_flags=flags, peer_flags=debug) as cluster:
        cluster.add_peers([None] * NODES)
        cluster.wait_for_sessions(NODES)
        origin.reset()
        pull_at_all(cluster, image)
        assert_sent_once(origin, image)
        for peer in cluster.peers:
            assert_refused(peer, image)
        assert_sent_once(origin, image)
        assert_secret_nowhere([cluster.supernode, *cluster.peers])


def test_it_is_preheated_by_the_operators_login_and_given_to_who_may_read(
    tmp_path: Path, origin: CountingProxy, image: Image
) -> None:
    with Cluster(tmp_path, origin.address, supernode_flags=with_login(tmp_path, origin.address)) as cluster:
        cluster.add_peers([None] * NODES)
        cluster.wait_for_sessions(NODES)
        origin.reset()
        supernode = f"http://{cluster.supernode.status_address}"
        name = f"{origin.address}/{PRIVATE}@{image.top.digest}"
        assert main(["preheat", name, "--watch", "--supernode", supernode]) == 0
        for peer in cluster.peers:
            assert_refused(peer, image)
        pull_at_all(cluster, image)
        assert_sent_once(origin, image)
        assert_secret_nowhere([cluster.supernode, *cluster.peers])


def test_without_certificates_each_node_has_its_own(tmp_path: Path, origin: CountingProxy, image: Image) -> None:
    flags = ["--open", *with_login(tmp_path, origin.address)]
    with Cluster(tmp_path, origin.address, supernode_flags=flags) as cluster:
        cluster.add_peers([None, None])
        cluster.wait_for_sessions(2)
        origin.reset()
        pull_at_all(cluster, image)
        ledger = origin.ledger()
        assert all(ledger.blob_bytes(blob.digest) == 2 * blob.size_bytes for blob in image.blobs)


def test_a_revoked_password_reads_nothing_more_though_the_blob_is_in_the_store(tmp_path: Path, image: Image) -> None:
    root = tmp_path / "registry"
    auth = password_auth(root)
    with Registry(root, auth=auth) as registry:
        registry.push(image, PRIVATE, headers=basic_authorization())
        with Cluster(tmp_path, registry.address, peer_flags=["--permission-ttl", "1s"]) as cluster:
            peer = cluster.add_peer()
            cluster.wait_for_sessions(1)
            target = blob_target(image.layers[-1].digest, PRIVATE)
            assert get(peer.proxy, target, headers=basic_authorization()).complete
            # The registry reads the file again when it has changed.
            file = root / "htpasswd"
            file.write_text(file.read_text().replace(USER, "another"))
            wait_until(lambda: get(peer.proxy, target, headers=basic_authorization()).status == 401, "it is refused")
            direct = get(registry.address, target, headers=basic_authorization())
            through = get(peer.proxy, target, headers=basic_authorization())
            assert (through.status, through.start) == (direct.status, direct.start)


@pytest.mark.parametrize("login", [True, False])
def test_of_a_registry_with_a_token_service_too(tmp_path: Path, image: Image, *, login: bool) -> None:
    signer = Authority(tmp_path).issue(["token.test"])
    with (
        TokenServer(signer, {USER: PASSWORD}) as tokens,
        Registry(tmp_path / "registry", auth=tokens.registry_auth()) as registry,
        CountingProxy(registry.host_port) as origin,
    ):
        writer = tokens.token(USER, [f"repository:{PRIVATE}:pull,push"])
        registry.push(image, PRIVATE, headers={"Authorization": f"Bearer {writer}"})
        realm = ["--insecure-upstream", tokens.address]
        # As docker keeps it: its token service has tokens for it by POST alone.
        identity = f"{IDENTITY_TOKEN}:{tokens.identity_token(USER)}"
        flags = [*realm, *(with_login(tmp_path, origin.address, identity) if login else [])]
        with Cluster(tmp_path, origin.address, supernode_flags=flags, peer_flags=realm) as cluster:
            peers = cluster.add_peers([None] * NODES)
            cluster.wait_for_sessions(NODES)
            origin.reset()
            # Each node's client with a token of its own.
            given = [tokens.token(USER, [f"repository:{PRIVATE}:pull"]) for _ in peers]
            with ThreadPoolExecutor(NODES) as pool:
                pulls = [
                    pool.submit(pull, peer, image, bearer(token)) for peer, token in zip(peers, given, strict=True)
                ]
                for answers in (each.result() for each in pulls):
                    assert [answer.sha256 for answer in answers] == [blob.digest for blob in image.blobs]
            assert_sent_once(origin, image)
            assert ("refresh_token" in {request.by for request in tokens.requests}) is login
            other = bearer(tokens.token(USER, ["repository:private/other:pull"]))
            target = blob_target(image.layers[-1].digest, PRIVATE)
            for peer in peers:
                direct, through = get(origin.address, target, headers=other), get(peer.proxy, target, headers=other)
                assert (through.status, through.start) == (direct.status, direct.start)
                assert through.status == 401
                assert through.headers["www-authenticate"] == direct.headers["www-authenticate"]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_when_the_node_that_fetches_dies_another_one_goes_on(tmp_path: Path) -> None:
    image = make_random_image(tmp_path / "image", [8_000_000], seed=3)
    root = tmp_path / "registry"
    target = blob_target(image.layers[-1].digest, PRIVATE)
    with Registry(root, auth=password_auth(root)) as registry, CountingProxy(registry.host_port) as origin:
        registry.push(image, PRIVATE, headers=basic_authorization())
        origin.set_rate(1_000_000)
        with Cluster(tmp_path, origin.address) as cluster, ThreadPoolExecutor(NODES) as pool:
            peers = cluster.add_peers([None] * NODES)
            cluster.wait_for_sessions(NODES)
            answers = {peer.name: pool.submit(get, peer.proxy, target, headers=basic_authorization()) for peer in peers}
            wait_until(lambda: any(peer.received_bytes("origin") > 3_000_000 for peer in peers), "a node fetches")
            [fetching] = [peer for peer in peers if peer.received_bytes("origin")]
            fetching.kill()
            for peer in peers:
                if peer is not fetching:
                    assert answers[peer.name].result().sha256 == image.layers[-1].digest
        # What others had of it by then is not asked for again.
        assert origin.ledger().repeated_bytes(image.layers[-1].digest) < 2_000_000


def test_a_node_that_fetched_something_else_costs_the_others_no_pull(tmp_path: Path) -> None:
    """Its origin lied to it, say, and so it gives others its word for what is not the blob."""
    image = make_random_image(tmp_path / "image", [4_000_000], seed=4)
    digest = image.layers[-1].digest
    root = tmp_path / "registry"
    with Registry(root, auth=password_auth(root)) as registry, CountingProxy(registry.host_port) as origin:
        registry.push(image, PRIVATE, headers=basic_authorization())
        origin.set_rate(4_000_000)
        with Cluster(tmp_path, origin.address) as cluster, ThreadPoolExecutor(NODES) as pool:
            peers = cluster.add_peers([None] * NODES)
            cluster.wait_for_sessions(NODES)
            # The first GET is without a credential.
            origin.add_fault(Fault(path_contains=digest, method="GET", times=2, corrupt_at=1_000_000))
            target = blob_target(digest, PRIVATE)
            pulls = [pool.submit(get, peer.proxy, target, headers=basic_authorization()) for peer in peers]
            answers = [each.result() for each in pulls]
            lied_to = [number for number, peer in enumerate(peers) if answers[number].sha256 != digest]
            # Its own client reads what the origin sends, and has no whole body of it.
            assert len(lied_to) == 1
            assert not answers[lied_to[0]].complete
            for number, peer in enumerate(peers):
                if number not in lied_to:
                    assert peer.received_bytes("peer") > 0, "nothing went by its word: the test tested nothing"
            assert not cluster.supernode.metrics().value("layercast_quarantined")
            again = get(peers[lied_to[0]].proxy, target, headers=basic_authorization())
            assert again.sha256 == digest
