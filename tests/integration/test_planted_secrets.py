"""Credentials of clients and of the operator are found nowhere: in no file, log or arguments, on no wire of ours."""

from __future__ import annotations

import contextlib
import os
import secrets
import tarfile
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.image import make_random_image
from benchmarks.cluster.namespaces import batch, inside, remove_namespaces
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from peer.cli.main import main
from tests.support.passwords import basic_authorization
from tests.support.planted import Wire, forms, found_at
from tests.support.pullers import blob_target, get
from tests.support.tls import Authority
from tests.support.tokens import TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.cluster.image import Image
    from benchmarks.cluster.services import Service

pytestmark = [pytest.mark.root, pytest.mark.client("docker-registry")]

PRIVATE, PUBLIC = "private/app", "public/app"
CLIENT, OPERATOR = "client", "operator"
DEBUG = ("--log-level", "debug")


class Secrets:
    """A registry with a token service, two users' passwords, and all that is made of them."""

    def __init__(
        self, tokens: TokenServer, registry: Registry, passwords: dict[str, str], images: dict[str, Image]
    ) -> None:
        self.tokens, self.registry, self.images = tokens, registry, images
        self.token = tokens.token(CLIENT, [f"repository:{repository}:pull" for repository in images])
        self.planted = {f"password of the {user}": password.encode() for user, password in passwords.items()}
        self.planted |= {f"login of the {user}": f"{user}:{password}".encode() for user, password in passwords.items()}
        _, claims, signature = self.token.split(".")
        self.planted |= {"claims of the token": claims.encode(), "signature of the token": signature.encode()}
        self.basic = basic_authorization(CLIENT, passwords[CLIENT])
        self.bearer = {"Authorization": f"Bearer {self.token}"}

    def pull(self, proxy: str) -> None:
        """What is private and what is public, with a token; then with a password, which this registry refuses."""
        for repository, image in self.images.items():
            for blob in image.blobs:
                assert get(proxy, blob_target(blob.digest, repository), headers=self.bearer).status == 200
        assert (
            get(proxy, blob_target(self.images[PRIVATE].layers[-1].digest, PRIVATE), headers=self.basic).status == 401
        )
        assert get(proxy, f"/v2/{PRIVATE}/manifests/latest", headers=self.basic).status == 401


@pytest.fixture
def planted(tmp_path: Path, image: Image) -> Iterator[tuple[Secrets, list[str]]]:
    with planting(tmp_path, image) as (secret, flags):
        yield secret, flags


@contextlib.contextmanager
def planting(tmp_path: Path, image: Image) -> Iterator[tuple[Secrets, list[str]]]:
    """With the flags of the supernode, which has the operator's login."""
    passwords = {user: secrets.token_urlsafe(24) for user in (CLIENT, OPERATOR)}
    signer = Authority(tmp_path).issue(["token.test"])
    with (
        TokenServer(signer, passwords, {PUBLIC}) as tokens,
        Registry(tmp_path / "registry", auth=tokens.registry_auth()) as registry,
    ):
        images = {PRIVATE: image, PUBLIC: make_random_image(tmp_path / "public", [700_000], seed=9)}
        for repository, pushed in images.items():
            writer = tokens.token(CLIENT, [f"repository:{repository}:pull,push"])
            registry.push(pushed, repository, headers={"Authorization": f"Bearer {writer}"})
        login = tmp_path / "login"
        login.write_text(f"{OPERATOR}:{passwords[OPERATOR]}\n")
        config = tmp_path / "supernode.toml"
        upstream = f'[upstream."{registry.address}"]\nurl = "{registry.url}"\ncredentials = "file:{login}"\n'
        config.write_text(upstream)
        flags = [*DEBUG, "--insecure-upstream", tokens.address, "--config", str(config)]
        yield Secrets(tokens, registry, passwords, images), flags


@pytest.mark.parametrize("way", ["with the operator's login", "with clients' tokens alone"])
def test_no_credential_is_in_any_file_log_or_process_list(
    tmp_path: Path, planted: tuple[Secrets, list[str]], way: str
) -> None:
    secret, flags = planted
    flags = flags if "operator" in way else flags[:-2]
    with Cluster(tmp_path, secret.registry.address, supernode_flags=flags, peer_flags=flags[:4]) as cluster:
        peers = cluster.add_peers([None, None])
        cluster.wait_for_sessions(2)
        for peer in peers:
            secret.pull(peer.proxy)
        assert any(user == OPERATOR for user in (asked.user for asked in secret.tokens.requests)) == ("op" in way)
        services: list[Service] = [cluster.supernode, *peers]
        assert found_at(services, {"digest": secret.images[PRIVATE].layers[-1].digest.rpartition(":")[2].encode()})
        assert found_at(services, secret.planted) == []
        bundle = support_bundle(tmp_path, cluster)
        assert [
            name for name, planted in secret.planted.items() if any(form in bundle for form in forms(planted))
        ] == []


def support_bundle(folder: Path, cluster: Cluster) -> bytes:
    """What `layercast support-bundle` writes of it, unpacked, with a log in which somebody had logged the login."""
    log, file = folder / "supernode.log", folder / "bundle.tar.gz"
    login = (folder / "login").read_text().strip()
    log.write_text("\n".join([*cluster.supernode.process.log(), f"mistake login={login}", f"mistake {login}"]))
    peer = cluster.peers[0]
    words = ["--peer", peer.proxy_url, "--data-dir", str(peer.data_dir), "--log", str(log), "--output", str(file)]
    words += [
        "--supernode",
        f"http://{cluster.supernode.status_address}",
        "--supernode-config",
        f"{folder}/supernode.toml",
    ]
    words += ["--supernode-data-dir", str(cluster.supernode.data_dir), "--root", str(folder)]
    assert main(["support-bundle", *words]) == 0
    with tarfile.open(file) as bundle:
        parts = [bundle.extractfile(member) for member in bundle.getmembers()]
        return b"\n".join(part.read() for part in parts if part is not None)


@pytest.fixture
def quiet_network() -> Iterator[str]:
    """The name of a network namespace with nothing but a loopback, over which no other test's bytes go."""
    name = f"layercast-planted-{os.getpid()}"
    batch("ip", [f"netns add {name}"])
    batch("ip", ["link set lo up"], name)
    yield name
    remove_namespaces([name])


@pytest.mark.client("ip", "nsenter")
def test_no_credential_goes_to_the_supernode_or_another_node(tmp_path: Path, image: Image, quiet_network: str) -> None:
    inside(quiet_network, lambda: look_at_the_wire(tmp_path, image))


def look_at_the_wire(tmp_path: Path, image: Image) -> None:
    """Without certificates, so that all that they tell each other can be read."""
    with (
        planting(tmp_path, image) as (secret, flags),
        Wire() as wire,
        Cluster(
            tmp_path, secret.registry.address, supernode_flags=[*flags, "--open"], peer_flags=[*flags[:4], "--open"]
        ) as cluster,
    ):
        peers = cluster.add_peers([None, None])
        cluster.wait_for_sessions(2)
        for peer in peers:
            secret.pull(peer.proxy)
        meant = {int(peer.proxy.rpartition(":")[2]) for peer in peers}
        meant |= {int(address.rpartition(":")[2]) for address in (secret.registry.address, secret.tokens.address)}
        wire.settle()
        assert wire.carries(secret.token.rpartition(".")[2].encode(), set()), "it is seen where it is meant to be"
        digest = secret.images[PUBLIC].layers[-1].digest.encode()
        assert wire.carries(digest, meant), "what nodes tell the supernode is seen through its mask"
        assert {name: wire.carries(planted_secret, meant) for name, planted_secret in secret.planted.items()} == {
            name: [] for name in secret.planted
        }
