"""What clients that do not run here are documented to send, sent by us: by tag and digest, interrupted and resumed.

CRI-O, containerd 2, Docker 29, buildkitd and the kubelet, each without a login, with a password, and with a token
service. They reach the registry through their node's peer alone, but for its token service, as they would. They share
the peer of their registry, and each pulls an image of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

import pytest

from benchmarks.cluster.image import Image, make_random_image
from benchmarks.cluster.processes import WAIT_S
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from tests.support.clients_table import BY_PASSWORD, BY_TOKEN, NO_LOGIN, NS, PREFIX
from tests.support.passwords import PASSWORD, USER, basic_authorization, password_auth
from tests.support.tls import Authority
from tests.support.tokens import TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.client("docker-registry")

HOST, TAG = "registry.test", "latest"
REPOSITORIES = tuple(f"team/deep/app-{number}" for number in range(5))
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Mirror:
    """A peer's address, its registry and whether that wants a login, and the headers of who may push."""

    address: str
    login: bool
    registry: Registry
    writer: dict[str, str]

    def push(self, number: int, folder: Path) -> Image:
        """An image that nobody has pulled yet, into that one of the repositories."""
        image = make_random_image(folder, (500, 700_000, 4_000_000), seed=number, with_index=True)
        self.registry.push(image, REPOSITORIES[number], TAG, headers=self.writer)
        return image


@dataclass
class Client:
    """A client behind a mirror. `name` is how it names the registry: in the path, or by a query."""

    mirror: Mirror
    repository: str
    by_path: bool
    agent: str
    authorization: dict[str, str] = field(default_factory=dict)

    def target(self, rest: str) -> str:
        return (
            f"/v2/{HOST}/{self.repository}/{rest}" if self.by_path else f"/v2/{self.repository}/{rest}?ns={quote(HOST)}"
        )

    def ask(self, method: str, target: str, *lines: tuple[str, str], stop_after: int | None = None) -> Answer:
        """With `stop_after` it hangs up when it has so many bytes."""
        with contextlib.closing(http.client.HTTPConnection(self.mirror.address, timeout=WAIT_S)) as connection:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in (("User-Agent", self.agent), *self.authorization.items(), *lines):
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read(stop_after))

    def log_in(self, challenge: str, scope: str | None = None) -> None:
        """As the challenge says, with the password where there is one."""
        kind, _, rest = challenge.partition(" ")
        says = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        basic = basic_authorization()["Authorization"]
        if kind.lower() == "basic":
            self.authorization = {"Authorization": basic}
            return
        realm = urlsplit(says["realm"])
        query = urlencode({"service": says["service"], "scope": scope or says["scope"]})
        with contextlib.closing(http.client.HTTPConnection(realm.netloc, timeout=WAIT_S)) as connection:
            connection.request(
                "GET", f"{realm.path}?{query}", headers={"Authorization": basic} if self.mirror.login else {}
            )
            response = connection.getresponse()
            assert response.status == 200, response.read()
            self.authorization = {"Authorization": f"Bearer {json.loads(response.read())['token']}"}

    def ask_with_login(self, method: str, target: str, *lines: tuple[str, str]) -> Answer:
        """Logs in where it is refused for the first time."""
        answer = self.ask(method, target, *lines)
        if answer.status == 401 and self.mirror.login and not self.authorization:
            self.log_in(answer.headers["www-authenticate"])
            answer = self.ask(method, target, *lines)
        return answer


def checked(answer: Answer, digest: str) -> bytes:
    assert answer.status == 200, answer
    assert f"sha256:{hashlib.sha256(answer.body).hexdigest()}" == digest
    return answer.body


def by_hosts_toml(client: Client, image: Image) -> None:
    """containerd's resolver: HEAD of the tag, GET of what it names, down to the layers."""
    accept = ("Accept", ", ".join((*INDEXES, "*/*")))
    head = client.ask_with_login("HEAD", client.target(f"manifests/{TAG}"), accept)
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) == image.top.size_bytes
    top = head.headers["docker-content-digest"]
    index = checked(client.ask("GET", client.target(f"manifests/{top}"), ("Accept", f"{INDEXES[0]}, */*")), top)
    platform = json.loads(index)["manifests"][0]
    found = client.ask("GET", client.target(f"manifests/{platform['digest']}"), ("Accept", INDEXES[3] + ", */*"))
    manifest = json.loads(checked(found, platform["digest"]))
    for blob in (manifest["config"], *manifest["layers"]):
        kind = ("Accept", f"{blob['mediaType']}, */*")
        checked(client.ask("GET", client.target(f"blobs/{blob['digest']}"), kind), blob["digest"])
    assert [layer["digest"] for layer in manifest["layers"]] == [layer.digest for layer in image.layers]
    resume(client, image)


def by_many_ranges(client: Client, image: Image) -> None:
    """containerd 2 with `concurrent_layer_fetch_buffer`: ranges without an end, closed when a chunk of each came."""
    by_hosts_toml(client, image)
    layer, chunk = image.layers[-1], 1 << 20
    target, content = client.target(f"blobs/{layer.digest}"), b""
    while len(content) < layer.size_bytes:
        answer = client.ask("GET", target, ("Range", f"bytes={len(content)}-"), stop_after=chunk)
        assert answer.status == 206
        wanted = f"bytes {len(content)}-{layer.size_bytes - 1}/{layer.size_bytes}"
        assert answer.headers["content-range"] == wanted
        content += answer.body
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == layer.digest


def by_pull_secret(client: Client, image: Image) -> None:
    """The kubelet has containerd pull with the secret's login, by tag and then, for another pod, by digest."""
    by_hosts_toml(client, image)
    # A resolver begins without a credential each time.
    client.authorization = {}
    answer = client.ask_with_login(
        "HEAD", client.target(f"manifests/{image.top.digest}"), ("Accept", ", ".join((*INDEXES, "*/*")))
    )
    assert answer.headers["docker-content-digest"] == image.top.digest
    checked(
        client.ask("GET", client.target(f"manifests/{image.top.digest}"), ("Accept", f"{INDEXES[0]}, */*")),
        image.top.digest,
    )


def by_registries_conf(client: Client, image: Image) -> None:
    """CRI-O, all of containers/image: the challenge of `/v2/` alone, the registry as the first part of each path."""
    mark = ("Docker-Distribution-Api-Version", "registry/2.0")
    ping = client.ask("GET", "/v2/", mark)
    assert ping.status in (200, 401)
    if ping.status == 401:
        client.log_in(ping.headers["www-authenticate"], f"repository:{HOST}/{client.repository}:pull")
    lines = (mark, *(("Accept", kind) for kind in INDEXES))
    by_tag = client.ask("GET", client.target(f"manifests/{TAG}"), *lines)
    index = json.loads(checked(by_tag, image.top.digest))
    digest = index["manifests"][0]["digest"]
    manifest = json.loads(checked(client.ask("GET", client.target(f"manifests/{digest}"), *lines), digest))
    for blob in (*manifest["layers"], manifest["config"]):
        checked(client.ask("GET", client.target(f"blobs/{blob['digest']}"), mark), blob["digest"])
    resume(client, image)


def resume(client: Client, image: Image) -> None:
    """It is killed in mid-layer; the next pull begins where that ended."""
    layer, half = image.layers[-1], image.layers[-1].size_bytes // 2
    target = client.target(f"blobs/{layer.digest}")
    begun = client.ask("GET", target, stop_after=half)
    rest = client.ask("GET", target, ("Range", f"bytes={half}-"))
    assert (begun.status, rest.status) == (200, 206)
    assert f"sha256:{hashlib.sha256(begun.body + rest.body).hexdigest()}" == layer.digest


@pytest.fixture(params=[NO_LOGIN, BY_PASSWORD, BY_TOKEN], scope="module")
def mirror(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    folder = tmp_path_factory.mktemp("mirror")
    root, config = folder / "registry", folder / "upstreams.toml"
    auth, realm = None, ""
    writer: dict[str, str] = {}
    with contextlib.ExitStack() as running:
        if request.param == BY_PASSWORD:
            auth, writer = password_auth(root), basic_authorization()
        elif request.param == BY_TOKEN:
            signer = Authority(folder).issue(["token.test"])
            strict = TokenServer(signer, {USER: PASSWORD}, strict_repositories=set(REPOSITORIES))
            tokens = running.enter_context(strict)
            auth, realm = tokens.registry_auth(), f'redirect_hosts = ["{tokens.address}"]\n'
            scopes = [f"repository:{each}:pull,push" for each in REPOSITORIES]
            writer = {"Authorization": "Bearer " + tokens.token(USER, scopes)}
        registry = running.enter_context(Registry(root, auth=auth))
        config.write_text(f'[upstream."{HOST}"]\nurl = "{registry.url}"\n{realm}')
        flags = ["--config", str(config)]
        cluster = running.enter_context(Cluster(folder, registry.address, supernode_flags=flags, peer_flags=flags))
        yield Mirror(cluster.add_peer().proxy, auth is not None, registry, writer)


def _rows(client: str, way: str) -> pytest.MarkDecorator:
    marks = {
        login: pytest.mark.pulls(client, way, login, how="replayed") for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN)
    }
    return pytest.mark.parametrize(
        "mirror", [pytest.param(login, marks=mark) for login, mark in marks.items()], indirect=True
    )


@_rows("Docker 29 (containerd image store)", NS)
def test_docker_29_pulls_with_its_containerd_store(mirror: Mirror, tmp_path: Path) -> None:
    image = mirror.push(0, tmp_path)
    by_hosts_toml(Client(mirror, REPOSITORIES[0], False, "docker/29.0.0 go/go1.25 containerd/2.1"), image)


@_rows("containerd 2, many ranges a layer", NS)
def test_containerd_2_reads_a_layer_by_many_ranges(mirror: Mirror, tmp_path: Path) -> None:
    image = mirror.push(1, tmp_path)
    by_many_ranges(Client(mirror, REPOSITORIES[1], False, "containerd/2.1.4"), image)


@_rows("kubelet with a pull secret", NS)
def test_the_kubelet_pulls_with_a_pull_secret(mirror: Mirror, tmp_path: Path) -> None:
    image = mirror.push(2, tmp_path)
    by_pull_secret(Client(mirror, REPOSITORIES[2], False, "containerd/1.7.27"), image)


@_rows("CRI-O", PREFIX)
def test_cri_o_pulls_by_the_registrys_name_in_the_path(mirror: Mirror, tmp_path: Path) -> None:
    image = mirror.push(3, tmp_path)
    by_registries_conf(Client(mirror, REPOSITORIES[3], True, "cri-o/1.34.0"), image)


@_rows("standalone buildkitd", NS)
def test_buildkitd_fetches_a_base_image_with_containerds_resolver(mirror: Mirror, tmp_path: Path) -> None:
    image = mirror.push(4, tmp_path)
    by_hosts_toml(Client(mirror, REPOSITORIES[4], False, "buildkit/v0.25"), image)
