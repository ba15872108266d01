"""Real clients with and without logins, all at once behind one peer: by tag and digest, interrupted and resumed.

They reach their node's peer, and the token service, and no registry. Each has an image of its own, for two platforms,
in a repository that wants its login. Its first pull is killed while the registry stands still in mid-layer.
"""

from __future__ import annotations

import contextlib
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.faults import Fault
from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.programs import find_program
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from tests.support.built_programs import CLIENTS, built
from tests.support.clients import Containerd, DockerDaemon
from tests.support.clients.pulls import Login, Place, Pull, open_pull
from tests.support.clients_table import (
    BY_IDENTITY,
    BY_PASSWORD,
    BY_TOKEN,
    MIRROR,
    NAMED,
    NO_LOGIN,
    NS,
    PREFIX,
    PROXY,
)
from tests.support.go_programs import OutOfReach
from tests.support.multi_arch import make_multi_arch_image
from tests.support.passwords import PASSWORD, USER, basic_authorization, password_auth
from tests.support.planted import found_at
from tests.support.tls import Authority
from tests.support.tokens import TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.cluster.image import Image
    from tests.support.networks import Lab

pytestmark = [pytest.mark.root, pytest.mark.client("docker-registry", "ip", "tc", "nsenter", "curl")]

SIZES_BYTES: Final = (500, 60_000, 1_500_000)
# Of the last layer, before its registry stands still.
BEGUN_BYTES: Final = 400_000
# RFC 5737. The clients reach the token service there, and nothing else that is not their node's.
TOKENS_ADDRESS: Final = "192.0.2.254"
# In each password and identity token of its.
MARK: Final = uuid.uuid4().hex
OPEN, LOCKED, TOKENED, HUB = "open.test", "locked.test", "token.test", "docker.io"


@dataclass(frozen=True)
class Case:
    """One pull: by which client, way and login, and from which registry."""

    client: str
    way: str
    login: str
    registry: str
    programs: tuple[str, ...]

    @property
    def name(self) -> str:
        words = f"{self.client} {self.way.partition(' ')[0]} {self.login}"
        return "-".join(word.strip(",.").lower().replace("_", "-") for word in words.split())

    @property
    def repository(self) -> str:
        return f"team/{self.name}".replace(".", "-")


_BY_LOGIN: Final = {NO_LOGIN: OPEN, BY_PASSWORD: LOCKED, BY_TOKEN: TOKENED, BY_IDENTITY: TOKENED}


def _cases(client: str, way: str, *logins: str, programs: tuple[str, ...]) -> Iterator[Case]:
    for login in logins:
        yield Case(client, way, login, HUB if way == MIRROR else _BY_LOGIN[login], programs)


CASES: Final = (
    *_cases("dockerd", MIRROR, BY_TOKEN, BY_IDENTITY, programs=("dockerd", "docker")),
    *_cases("dockerd", PROXY, BY_PASSWORD, BY_TOKEN, programs=("dockerd", "docker")),
    *_cases("containerd, ctr", NS, BY_PASSWORD, BY_TOKEN, BY_IDENTITY, programs=("containerd", "ctr")),
    *_cases("containerd, CRI", NS, BY_PASSWORD, BY_TOKEN, BY_IDENTITY, programs=("containerd", "ctr")),
    *_cases("podman", PREFIX, BY_PASSWORD, BY_TOKEN, programs=("podman",)),
    *_cases("skopeo", PREFIX, BY_PASSWORD, BY_TOKEN, BY_IDENTITY, programs=("skopeo",)),
    *_cases("skopeo", PROXY, BY_PASSWORD, BY_TOKEN, programs=("skopeo",)),
    *_cases("buildah", PREFIX, NO_LOGIN, BY_PASSWORD, BY_TOKEN, programs=("buildah",)),
    *_cases("crane", NAMED, NO_LOGIN, BY_PASSWORD, BY_TOKEN, BY_IDENTITY, programs=("go",)),
    *_cases("oras", NAMED, NO_LOGIN, BY_PASSWORD, BY_TOKEN, BY_IDENTITY, programs=("go",)),
)


@dataclass
class AtOnce:
    """Registries, a peer, its clients, and how each case ended."""

    cluster: Cluster
    tokens: TokenServer
    origins: dict[str, CountingProxy]
    images: dict[Case, Image]
    logins: dict[Case, Login]
    ended: dict[Case, Future[None]] = field(default_factory=dict)


def _selected(request: pytest.FixtureRequest) -> list[Case]:
    """The cases of this run that this machine can run. Raises BuildFailed."""
    wanted = {
        case
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        if isinstance(case := item.callspec.params.get("case"), Case)
    }
    return [case for case in CASES if case in wanted and all(map(_is_there, case.programs))]


def _is_there(name: str) -> bool:
    if name == "go":
        with contextlib.suppress(OutOfReach):
            return CLIENTS.built().exists()
        return False
    return find_program(name) is not None


@pytest.fixture(scope="module")
def at_once(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AtOnce]:
    folder = tmp_path_factory.mktemp("at-once")
    cases = _selected(request)
    node = lab.add_node()
    client = node.add_client()
    node.let_clients_reach(TOKENS_ADDRESS)
    with contextlib.ExitStack() as running:
        authority = Authority(folder)
        users = {case.name: f"{MARK}-{case.name}" for case in cases}
        repositories = {case.repository for case in cases}
        signer = authority.issue(["token.test"])
        tokens = running.enter_context(
            TokenServer(signer, users, strict_repositories=repositories, host=TOKENS_ADDRESS)
        )
        registries = {
            OPEN: Registry(folder / OPEN),
            LOCKED: Registry(folder / LOCKED, auth=password_auth(folder / LOCKED)),
            TOKENED: Registry(folder / TOKENED, auth=tokens.registry_auth()),
        }
        tls = authority.issue([lab.host_address]).server_context()
        origins, config = {}, ""
        for host, registry in registries.items():
            running.enter_context(registry)
            secure = tls if host == LOCKED else None
            origin = origins[host] = CountingProxy(registry.host_port, (lab.host_address, 0), tls=secure)
            running.enter_context(origin)
            config += f'[upstream."{host}"]\nurl = "{origin.url}"\nredirect_hosts = ["{tokens.address}"]\n'
            config += f'ca_file = "{authority.certificate_file}"\n' if secure is not None else ""
        origins[HUB] = origins[TOKENED]
        (folder / "upstreams.toml").write_text(config)
        flags = ["--config", str(folder / "upstreams.toml"), "--insecure-upstream", tokens.address]
        flags += ["--log-level", "debug"]
        cluster = running.enter_context(
            Cluster(folder, origins[HUB].address, host=lab.host_address, supernode_flags=flags, peer_flags=flags)
        )
        peer = cluster.add_peer(node, proxy_host=client.gateway)
        cluster.wait_for_sessions(1)
        there = AtOnce(cluster, tokens, origins, {}, {})
        for number, case in enumerate(cases):
            image = make_multi_arch_image(folder / case.name, SIZES_BYTES, seed=1000 + 2 * number)
            image.push(
                registries[TOKENED if case.registry == HUB else case.registry], case.repository, _writer(tokens, case)
            )
            there.images[case], there.logins[case] = image.native, _login(tokens, case, users[case.name])
        tokens.requests.clear()
        place = Place(peer.proxy, client.name, peer.data_dir / "interception" / "ca.pem")
        _pull_all(there, place)
        yield there


def _writer(tokens: TokenServer, case: Case) -> dict[str, str]:
    if case.registry == LOCKED:
        return basic_authorization()
    return {"Authorization": f"Bearer {tokens.token('writer', [f'repository:{case.repository}:pull,push'])}"}


def _login(tokens: TokenServer, case: Case, password: str) -> Login:
    if case.login == NO_LOGIN:
        return Login()
    if case.login == BY_PASSWORD:
        return Login(USER, PASSWORD)
    return Login(identity=tokens.identity_token(case.name)) if case.login == BY_IDENTITY else Login(case.name, password)


def _pull_all(there: AtOnce, place: Place) -> None:
    """Begin all pulls, kill them in mid-layer, and pull to the end."""
    with contextlib.ExitStack() as open_pulls, ThreadPoolExecutor(max(1, len(there.images))) as threads:
        daemons = {case.programs[0] for case in there.images}
        if "dockerd" in daemons:
            place.dockerd = open_pulls.enter_context(
                DockerDaemon(
                    netns=place.netns, mirrors=[place.proxy_url], environment=place.proxied(), downloads_max=32
                )
            )
        if "containerd" in daemons:
            place.containerd = open_pulls.enter_context(Containerd({"_default": place.proxy_url}, netns=place.netns))
        pulls: dict[Case, Pull] = {}
        for case, image in there.images.items():
            login = there.logins[case]
            pulls[case] = open_pulls.enter_context(
                open_pull(case.client, case.way, place, case.registry, case.repository, login)
            )
            fault = Fault(path_contains=image.layers[-1].digest, method="GET", stall_after_bytes=BEGUN_BYTES)
            there.origins[case.registry].add_fault(fault)
        begun = {case: pull.begin() for case, pull in pulls.items()}
        try:
            wait_until(
                lambda: (
                    all(_stands_still(there, case) or not begun[case].running for case in begun)
                    and _peer_has_read_all(there)
                ),
                "all pulls in mid-layer",
            )
        finally:
            for running in begun.values():
                running.kill()
            for origin in there.origins.values():
                origin.clear_faults()
        there.ended = {
            case: threads.submit(_resume, there, case, pull, still=_stands_still(there, case))
            for case, pull in pulls.items()
        }


def _stands_still(there: AtOnce, case: Case) -> bool:
    sent = there.origins[case.registry].ledger().blob_bytes(there.images[case].layers[-1].digest)
    return sent >= BEGUN_BYTES


def _peer_has_read_all(there: AtOnce) -> bool:
    """What registries sent and the peer had not read would be sent again."""
    private = [case for case in there.images if case.registry != OPEN]
    wanted_bytes = sum(manifest.size_bytes for case in private for manifest in there.images[case].manifests)
    for case in private:
        ledger = there.origins[case.registry].ledger()
        wanted_bytes += sum(ledger.blob_bytes(blob.digest) for blob in there.images[case].blobs)
    return there.cluster.peers[0].received_bytes("origin") >= wanted_bytes


def _resume(there: AtOnce, case: Case, pull: Pull, *, still: bool) -> None:
    """To the end, by tag and by digest."""
    image = there.images[case]
    pull.finish("latest", image)
    pull.finish(image.top.digest, image)
    assert still, "its first pull was not killed in mid-layer"


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            marks=[pytest.mark.pulls(case.client, case.way, case.login), pytest.mark.client(*case.programs)],
            id=case.name,
        )
        for case in CASES
    ],
)
def test_a_client_pulls_by_tag_and_digest_after_it_was_killed(at_once: AtOnce, case: Case) -> None:
    if case not in at_once.ended:
        built(CLIENTS)  # which says why it is not there
    at_once.ended[case].result()
    ledger = at_once.origins[case.registry].ledger()
    for blob in at_once.images[case].blobs:
        assert (ledger.blob_bytes(blob.digest), ledger.distinct_bytes(blob.digest)) == (blob.size_bytes,) * 2
    if case.login in (BY_TOKEN, BY_IDENTITY):
        own = [request for request in at_once.tokens.requests if request.user == case.name]
        assert {scope for request in own for scope in request.scopes} == {f"repository:{case.repository}:pull"}
        if case.login == BY_IDENTITY:
            assert {request.by for request in own} == {"refresh_token"}


def test_no_login_is_told_to_anybody_else(at_once: AtOnce) -> None:
    assert at_once.tokens.refused == 0
    secrets = {"a login at the token service": MARK.encode(), "a password": f"{USER}:{PASSWORD}".encode()}
    assert found_at([at_once.cluster.supernode, *at_once.cluster.peers], secrets) == []
