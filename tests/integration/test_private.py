"""Private images: they are kept, and given to those alone whom the origin allows, by their own credentials."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.image import Image, make_random_image
from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from tests.support.clients_table import BY_PASSWORD, MIRROR
from tests.support.counts import assert_received, assert_sent_to_clients
from tests.support.passwords import PASSWORD, USER, basic_authorization, password_auth
from tests.support.pullers import Answer, blob_target, get
from tests.support.site import Site
from tests.support.tls import Authority
from tests.support.tokens import TokenServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.cluster.services import Peer, Service
    from tests.support.clients import DockerDaemon
    from tests.support.networks import Lab

pytestmark = pytest.mark.client("docker-registry")

PRIVATE = "private/app"
PUBLIC = "public/app"
# What of a credential must never be seen: as typed, and as a Basic header carries it.
ENCODED = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture
def locked(tmp_path: Path, image: Image) -> Iterator[Registry]:
    """A registry that wants a password for everything."""
    root = tmp_path / "registry"
    with Registry(root, auth=password_auth(root)) as registry:
        registry.push(image, PRIVATE, headers=basic_authorization())
        yield registry


def assert_stores_nothing(service: Service) -> None:
    store_bytes = service.metrics().value("layercast_store_bytes")
    assert store_bytes == 0, f"{service.name} stores {store_bytes} bytes"


def assert_never_told(services: list[Service], secrets: list[str]) -> None:
    """No secret stands in a log line or in any file of the services' data folders."""
    for service in services:
        log = "\n".join(service.process.log())
        for secret in secrets:
            assert secret not in log, f"{service.name} logged a credential"
            for file, stored in files_below(service.data_dir):
                assert secret.encode() not in stored, f"{file} holds a credential"


def files_below(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Files and their content; a database's journal may go at any time."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with contextlib.suppress(FileNotFoundError):
                yield path, path.read_bytes()


def assert_fetched_for_its_client(peer: Peer, wanted_bytes: int) -> None:
    assert_received(peer, origin=wanted_bytes, peer=0, seed=0, passthrough=0)


def pull_all(peer: Peer, image: Image, headers: dict[str, str]) -> list[Answer]:
    return [get(peer.proxy, blob_target(blob.digest, PRIVATE), headers=headers) for blob in image.blobs]


def assert_refused_as_by_the_origin(peer: Peer, registry: Registry, target: str) -> None:
    direct, through = get(registry.address, target), get(peer.proxy, target)
    assert (through.status, through.start) == (direct.status, direct.start)
    assert through.headers["www-authenticate"] == direct.headers["www-authenticate"]
    assert through.status == 401


def test_a_blob_behind_a_password_is_kept_for_those_who_know_it(tmp_path: Path, locked: Registry, image: Image) -> None:
    # Debug, for a credential is most easily told where everything is.
    flags = ["--log-level", "debug"]
    with Cluster(tmp_path, locked.address, supernode_flags=flags, peer_flags=flags) as cluster:
        peer, other = cluster.add_peers([None, None])
        cluster.wait_for_sessions(2)
        answers = pull_all(peer, image, basic_authorization())
        assert [answer.sha256 for answer in answers] == [blob.digest for blob in image.blobs]
        assert_fetched_for_its_client(peer, image.size_bytes)
        answers = pull_all(peer, image, basic_authorization())
        assert [answer.sha256 for answer in answers] == [blob.digest for blob in image.blobs]
        assert_fetched_for_its_client(peer, image.size_bytes)
        assert_sent_to_clients(peer, passthrough=0)

        for node in (peer, other):
            assert_refused_as_by_the_origin(node, locked, "/v2/")
            assert_refused_as_by_the_origin(node, locked, f"/v2/{PRIVATE}/manifests/latest")
            assert_refused_as_by_the_origin(node, locked, blob_target(image.layers[-1].digest, PRIVATE))
        services: list[Service] = [cluster.supernode, peer, other]
        assert_stores_nothing(other)
        assert_never_told(services, [PASSWORD, ENCODED])


def test_what_is_kept_is_as_private_after_a_restart(tmp_path: Path, locked: Registry, image: Image) -> None:
    with Cluster(tmp_path, locked.address) as cluster:
        peer = cluster.add_peer()
        target = blob_target(image.layers[-1].digest, PRIVATE)
        assert get(peer.proxy, target, headers=basic_authorization()).complete
        # Its client has the last byte before the disk has it.
        wait_until(lambda: peer.metrics().value("layercast_swarms_open") == 0, "the blob is complete")
        peer.kill()
        peer.start()
        assert_refused_as_by_the_origin(peer, locked, target)
        assert get(peer.proxy, target, headers=basic_authorization()).complete
        assert_received(peer, origin=0, passthrough=0)


def test_a_wrong_password_is_refused_after_a_right_one(tmp_path: Path, locked: Registry, image: Image) -> None:
    with Cluster(tmp_path, locked.address) as cluster:
        peer = cluster.add_peer()
        target = blob_target(image.layers[-1].digest, PRIVATE)
        assert get(peer.proxy, target, headers=basic_authorization()).complete
        assert get(peer.proxy, target, headers=basic_authorization(USER, "wrong")).status == 401
        assert get(peer.proxy, target, headers=basic_authorization()).complete


def test_of_one_registry_each_image_is_given_to_whom_it_is_for(tmp_path: Path, image: Image) -> None:
    public_image = make_random_image(tmp_path / "public", [500, 700_000], seed=7)
    signer = Authority(tmp_path).issue(["token.test"])
    flags = ["--log-level", "debug"]
    with (
        TokenServer(signer, {USER: PASSWORD}, {PUBLIC}) as tokens,
        Registry(tmp_path / "registry", auth=tokens.registry_auth()) as registry,
        CountingProxy(registry.host_port) as origin,
        Cluster(
            tmp_path,
            origin.address,
            supernode_flags=[*flags, "--insecure-upstream", tokens.address],
            peer_flags=[*flags, "--insecure-upstream", tokens.address],
        ) as cluster,
    ):
        for pushed, repository in ((public_image, PUBLIC), (image, PRIVATE)):
            writer = tokens.token(USER, [f"repository:{repository}:pull,push"])
            registry.push(pushed, repository, headers={"Authorization": f"Bearer {writer}"})
        peers = cluster.add_peers([None, None])
        cluster.wait_for_sessions(2)
        reader = tokens.token(USER, [f"repository:{PRIVATE}:pull"])
        anonymous = tokens.token("", [f"repository:{PUBLIC}:pull"])
        origin.reset()
        for peer in peers:
            bearer = {"Authorization": f"Bearer {anonymous}"}
            for blob in public_image.blobs:
                answer = get(peer.proxy, blob_target(blob.digest, PUBLIC), headers=bearer)
                assert answer.sha256 == blob.digest
            answers = pull_all(peer, image, {"Authorization": f"Bearer {reader}"})
            assert [answer.sha256 for answer in answers] == [blob.digest for blob in image.blobs]
            assert_received(peer, passthrough=0)
            # The token is good for one repository alone: what the origin says about the other holds.
            other = {"Authorization": f"Bearer {anonymous}"}
            assert get(peer.proxy, blob_target(image.layers[-1].digest, PRIVATE), headers=other).status == 401
        ledger = origin.ledger()
        for pushed in (public_image, image):
            assert [ledger.blob_bytes(blob.digest) for blob in pushed.blobs] == [
                blob.size_bytes for blob in pushed.blobs
            ]
        assert_never_told([cluster.supernode, *peers], [PASSWORD, ENCODED, reader, reader.rpartition(".")[2]])


@pytest.mark.pulls("dockerd", MIRROR, BY_PASSWORD)
@pytest.mark.root
@pytest.mark.client("dockerd", "docker", "ip", "tc", "nsenter", "curl")
def test_dockerd_pulls_a_private_image_with_its_own_login(
    tmp_path: Path, lab: Lab, locked: Registry, image: Image, dockerd: Callable[..., DockerDaemon]
) -> None:
    login = tmp_path / "login"
    login.mkdir()
    (login / "config.json").write_text(json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": ENCODED}}}))
    with Site(lab, locked, tmp_path) as site:
        node = site.add_node()
        daemon = dockerd(node.client.name, node.peer.proxy_url)
        daemon.docker("--config", login, "pull", f"{PRIVATE}:latest")
        assert daemon.inspect(f"{PRIVATE}:latest")["Id"] == image.config.digest
        assert_fetched_for_its_client(node.peer, image.pulled_bytes)
        services: list[Service] = [site.cluster.supernode, node.peer]
        assert_never_told(services, [PASSWORD, ENCODED])
