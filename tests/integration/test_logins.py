"""Real podman and skopeo with passwords for several registries behind one peer: each password goes to its own realm.

Each registry has a token service of its own, which refuses whoever asks for another repository than its own. A third
registry wants a password with each request.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import ProcessError
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from tests.support.clients import Podman, Skopeo
from tests.support.clients.podman import wrongly_named_files
from tests.support.clients_table import BY_PASSWORD, BY_TOKEN, NAMED
from tests.support.passwords import PASSWORD, USER, basic_authorization, password_auth
from tests.support.tls import Authority
from tests.support.tokens import TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.cluster.image import Image
    from benchmarks.cluster.services import Peer

pytestmark = pytest.mark.client("docker-registry", "skopeo")

# By registry: the one repository that it has, and its user with the password.
REPOSITORIES = {"one.test": "team/app", "two.test": "org/tool"}
PASSWORDS = {"one.test": "first-secret", "two.test": "second-secret"}


@dataclass
class Registries:
    """A peer, and the token service of each registry behind it."""

    peer: Peer
    tokens: dict[str, TokenServer]

    def reference(self, host: str, tag: str = "latest") -> str:
        return f"{self.peer.proxy}/{host}/{REPOSITORIES[host]}:{tag}"


@pytest.fixture
def registries(tmp_path: Path, image: Image) -> Iterator[Registries]:
    signer = Authority(tmp_path).issue(["token.test"])
    sections = []
    with contextlib.ExitStack() as running:
        tokens = {}
        for host, repository in REPOSITORIES.items():
            users = {host: PASSWORDS[host]}
            service = tokens[host] = running.enter_context(TokenServer(signer, users, strict_repositories={repository}))
            registry = running.enter_context(Registry(tmp_path / host, auth=service.registry_auth()))
            writer = service.token(host, [f"repository:{repository}:pull,push"])
            registry.push(image, repository, headers={"Authorization": f"Bearer {writer}"})
            sections += [f'[upstream."{host}"]', f'url = "{registry.url}"', f'redirect_hosts = ["{service.address}"]']
            service.requests.clear()
        root = tmp_path / "locked"
        locked = running.enter_context(Registry(root, auth=password_auth(root)))
        locked.push(image, "private/app", headers=basic_authorization())
        config = tmp_path / "upstreams.toml"
        config.write_text("\n".join([*sections, '[upstream."locked.test"]', f'url = "{locked.url}"']))
        flags = ["--config", str(config), "--log-level", "debug"]
        cluster = running.enter_context(Cluster(tmp_path, locked.address, supernode_flags=flags, peer_flags=flags))
        yield Registries(cluster.add_peer(), tokens)


def assert_only_its_own_was_asked(service: TokenServer, host: str) -> None:
    scopes = {scope for request in service.requests for scope in request.scopes}
    assert {scope.rpartition(":")[0] for scope in scopes} == {f"repository:{REPOSITORIES[host]}"}
    # Nobody's name is the supernode's, which asks what anyone may have.
    assert {request.user for request in service.requests} - {""} == {host}
    assert service.refused == 0


@pytest.mark.pulls("skopeo", NAMED, BY_PASSWORD)
@pytest.mark.pulls("skopeo", NAMED, BY_TOKEN)
def test_skopeo_logs_in_to_each_registry_with_its_own_password(registries: Registries) -> None:
    with Skopeo([]) as skopeo:
        for host in REPOSITORIES:
            # The password stands under the name of the mirror and the registry, as for podman and CRI-O.
            login = ["login", "--tls-verify=false", f"--username={host}", f"--password={PASSWORDS[host]}"]
            skopeo.run(*login, "--authfile", skopeo.directory / "auth.json", f"{registries.peer.proxy}/{host}")
        login = ["login", "--tls-verify=false", f"--username={USER}", f"--password={PASSWORD}"]
        skopeo.run(*login, "--authfile", skopeo.directory / "auth.json", f"{registries.peer.proxy}/locked.test")
        for host in (*REPOSITORIES, "locked.test"):
            reference = f"{registries.peer.proxy}/{host}/{REPOSITORIES.get(host, 'private/app')}:latest"
            folder = skopeo.directory / f"copy-{host}"
            skopeo.run("copy", "--src-tls-verify=false", "--preserve-digests", f"docker://{reference}", f"dir:{folder}")
            assert wrongly_named_files(folder) == []
    for host, service in registries.tokens.items():
        assert_only_its_own_was_asked(service, host)
    log = "\n".join(registries.peer.process.log())
    assert not any(secret in log for secret in (*PASSWORDS.values(), PASSWORD))


def test_a_wrong_password_is_refused(registries: Registries) -> None:
    reference = f"docker://{registries.reference('two.test')}"
    with Skopeo([]) as skopeo, pytest.raises(ProcessError, match=r"unauthorized|authentication|invalid username"):
        skopeo.run("inspect", "--tls-verify=false", f"--creds=two.test:{PASSWORDS['one.test']}", reference)


@pytest.mark.pulls("podman", NAMED, BY_TOKEN)
@pytest.mark.root
@pytest.mark.client("podman")
def test_podman_pulls_from_one_and_pushes_to_the_other(registries: Registries) -> None:
    with Podman([]) as podman:
        options = ["--tls-verify=false", "--signature-policy", str(podman.directory / "policy.json")]
        source, target = registries.reference("one.test"), registries.reference("two.test", "pushed")
        podman.run("pull", "--quiet", *options, f"--creds=one.test:{PASSWORDS['one.test']}", source)
        podman.run("push", *options, f"--creds=two.test:{PASSWORDS['two.test']}", source, target)
        podman.run("rmi", source)
        podman.run("pull", "--quiet", *options, f"--creds=two.test:{PASSWORDS['two.test']}", target)
    for host, service in registries.tokens.items():
        assert_only_its_own_was_asked(service, host)
