"""Real clients with and without logins, all at once behind one peer: by tag and digest, interrupted and resumed.

They reach their node's peer, and the token service, and no registry. Each has an image of its own, for two platforms,
in a repository that wants its login. Its first pull is killed while the registry stands still in mid-layer.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import re
import tarfile
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.faults import Fault
from benchmarks.cluster.processes import WAIT_S, wait_until
from benchmarks.cluster.programs import find_program
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from tests.support.built_programs import CLIENTS, built
from tests.support.clients import Containerd, DockerDaemon, Mirror, Podman
from tests.support.clients.go_client import GoClient
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
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from benchmarks.cluster.image import Image
    from tests.support.networks import Lab

pytestmark = [pytest.mark.root, pytest.mark.client("docker-registry", "ip", "tc", "nsenter", "curl")]

SIZES_BYTES: Final = (500, 60_000, 1_500_000)
# Of each file in a layer that is read by ranges. podman 4.3 cannot write zstd:chunked layers with larger ones.
FILE_BYTES: Final = 200_000
# Of the last layer, before its registry stands still.
BEGUN_BYTES: Final = 400_000
# So many programs start at once.
BEGIN_S: Final = 4 * WAIT_S
# In each password and identity token of its.
MARK: Final = uuid.uuid4().hex
# Of layers that are read by ranges: their repositories, and (LAZY) who may.
LAZY, CHUNKED = "lazy", "chunked"
# How often podman may lose a file of its own before a test of what it pulls in part has failed; and how it tells.
CHUNKED_ATTEMPTS: Final = 4
_LOST_BY_PODMAN: Final = re.compile(
    r"partial blob: .*(bad file descriptor|under the rootfs: no such file or directory)"
)
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
    registries: dict[str, Registry]
    origins: dict[str, CountingProxy]
    place: Place
    images: dict[Case, Image] = field(default_factory=dict)
    logins: dict[Case, Login] = field(default_factory=dict)
    ended: dict[Case, Future[None]] = field(default_factory=dict)
    read: dict[str, Future[None]] = field(default_factory=dict)
    chunked: dict[str, Future[None]] = field(default_factory=dict)


def _selected(request: pytest.FixtureRequest) -> tuple[list[Case], list[str], list[str]]:
    """The cases of this run that this machine can run, and the logins to read lazily with, by stargz and by podman.

    Raises BuildFailed.
    """
    parameters: list[dict[str, Any]] = [
        item.callspec.params
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path and hasattr(item, "callspec")
    ]
    wanted = [each["case"] for each in parameters if "case" in each]
    lazily = [each["lazy"] for each in parameters if "lazy" in each and _is_there("go")]
    chunked = [each["chunked"] for each in parameters if "chunked" in each and _is_there("podman")]
    return [case for case in wanted if all(map(_is_there, case.programs))], lazily, chunked


def _is_there(name: str) -> bool:
    if name == "go":
        with contextlib.suppress(OutOfReach):
            return CLIENTS.built().exists()
        return False
    return find_program(name) is not None


@pytest.fixture(scope="module")
def at_once(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AtOnce]:
    folder = tmp_path_factory.mktemp("at-once")
    cases, lazily, chunked = _selected(request)
    node = lab.add_node()
    client = node.add_client()
    # Beside what is their node's, the clients reach the token service alone.
    tokens_address = node.let_clients_reach_host()
    with contextlib.ExitStack() as running:
        authority = Authority(folder)
        users = {name: f"{MARK}-{name}" for name in (LAZY, *(case.name for case in cases))}
        chunked_repositories = {f"team/{CHUNKED}{attempt}" for attempt in range(CHUNKED_ATTEMPTS)}
        repositories = {f"team/{LAZY}", *chunked_repositories, *(case.repository for case in cases)}
        signer = authority.issue(["token.test"])
        tokens = running.enter_context(
            TokenServer(signer, users, strict_repositories=repositories, host=tokens_address)
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
        place = Place(peer.proxy, client.name, peer.data_dir / "interception" / "ca.pem")
        there = AtOnce(cluster, tokens, registries, origins, place)
        for number, case in enumerate(cases):
            image = make_multi_arch_image(folder / case.name, SIZES_BYTES, seed=1000 + 2 * number)
            host = TOKENED if case.registry == HUB else case.registry
            image.push(registries[host], case.repository, _writer(tokens, host, case.repository))
            there.images[case], there.logins[case] = image.native, _login(tokens, case, users[case.name])
        tokens.requests.clear()
        _pull_all(there, place)
        with ThreadPoolExecutor() as threads:
            there.read = {login: threads.submit(_read_lazily, there, login, folder) for login in lazily}
            there.chunked = {login: threads.submit(_pull_chunked, there, login, folder) for login in chunked}
        yield there


def _writer(tokens: TokenServer, host: str, repository: str) -> dict[str, str]:
    if host == LOCKED:
        return basic_authorization()
    return {"Authorization": f"Bearer {tokens.token('writer', [f'repository:{repository}:pull,push'])}"}


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
                BEGIN_S,
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


def _files(seed: str, numbers: Iterable[int]) -> dict[str, bytes]:
    return {f"folder/{number}.bin": random.Random(f"{seed} {number}").randbytes(FILE_BYTES) for number in numbers}


def _write_tar(file: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(file, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _lazy_login(login: str) -> Login:
    known = {BY_PASSWORD: Login(USER, PASSWORD), BY_TOKEN: Login(LAZY, f"{MARK}-{LAZY}")}
    return known.get(login, Login())


def _read_lazily(there: AtOnce, login: str, folder: Path) -> None:
    """Parts of three files of a layer, by stargz-snapshotter's own reader."""
    files = _files(login, range(16))
    parts = [("folder/3.bin", 0, 1000), ("folder/9.bin", 70_000, 100_000), ("folder/10.bin", FILE_BYTES - 9, 9)]
    host, secret = _BY_LOGIN[login], _lazy_login(login)
    tar, layer = folder / f"{login}.tar", folder / f"{login}.layer"
    _write_tar(tar, files)
    with GoClient(netns=there.place.netns) as stargz:
        table = stargz.run("stargz-make", tar, layer).strip()
        with there.registries[host].writer(headers=_writer(there.tokens, host, f"team/{LAZY}")) as writer:
            digest = writer.push_blob_bytes(f"team/{LAZY}", layer.read_bytes())
        place = [there.place.proxy, f"{host}/team/{LAZY}", digest, table]
        place.append(f"{secret.user}:{secret.password}" if secret else "")
        wanted = [f"{name}:{offset}:{length}" for name, offset, length in parts]
        size, *read = stargz.run("stargz-read", *place, *wanted).split()
    assert int(size) == layer.stat().st_size
    assert read == [hashlib.sha256(files[name][start : start + length]).hexdigest() for name, start, length in parts]
    assert 0 < there.origins[host].ledger().distinct_bytes(digest) < int(size) / 2


def _pull_chunked(there: AtOnce, login: str, folder: Path) -> None:
    """Two images, of which the second has two files that the first has not.

    Beside a load podman 4.3 loses files of its own while it puts a layer together, one pull in some hundreds, and
    fetches the whole in place. Then other images show what it asks for.
    """
    for attempt in range(CHUNKED_ATTEMPTS):
        few_bytes, all_bytes, told = _pull_two_chunked(there, login, folder, f"{CHUNKED}{attempt}")
        if not any(_LOST_BY_PODMAN.search(line) for line in told):
            break
    assert 0 < few_bytes < all_bytes / 2, "\n".join(told)


def _pull_two_chunked(there: AtOnce, login: str, folder: Path, repository: str) -> tuple[int, int, list[str]]:
    """Bytes that the origin sent of the one and of the other layer, fewer first; what podman and the origin tell."""
    host, secret = _BY_LOGIN[login], _lazy_login(login)
    layers = {
        "first": _files(f"{repository} {login}", range(10)),
        "second": _files(f"{repository} {login}", range(2, 12)),
    }
    registry = there.registries[host].address
    with Podman([], partial=True) as podman:
        (podman.directory / "auth.json").write_text(secret.auth_file(registry))
        options = ["--tls-verify=false", "--signature-policy", str(podman.directory / "policy.json")]
        options += ["--format", "oci", "--compression-format", "zstd:chunked"]
        for name, files in layers.items():
            _write_tar(folder / f"{login}.{name}.tar", files)
            podman.run("import", folder / f"{login}.{name}.tar", f"localhost/{name}:latest")
            podman.run("push", *options, f"localhost/{name}:latest", f"{registry}/team/{repository}:{name}")
    mirror = Mirror(host, f"{there.place.proxy}/{host}")
    with Podman([mirror], netns=there.place.netns, partial=True) as podman:
        (podman.directory / "auth.json").write_text(secret.auth_file(mirror.location))
        for name, files in layers.items():
            podman.pull(f"{host}/team/{repository}:{name}")
            wanted = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
            assert podman.file_digests(f"{host}/team/{repository}:{name}") == wanted
        told = podman.told_of_parts
    ledger = there.origins[host].ledger()
    asked = [each for each in ledger.exchanges if f"/{repository}/blobs/" in each.path]
    digests = {each.path.rpartition("/")[2] for each in asked}
    few_bytes, all_bytes = sorted(map(ledger.distinct_bytes, digests))[-2:]
    requests = [
        f"{each.started_s:.3f}: {each.method} {each.path} {each.status} {each.interval} {each.ending}" for each in asked
    ]
    return few_bytes, all_bytes, [*told, *requests]


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


@pytest.mark.client("podman")
@pytest.mark.parametrize(
    "chunked",
    [
        pytest.param(login, marks=pytest.mark.pulls("podman, zstd:chunked by ranges", PREFIX, login))
        for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN)
    ],
)
def test_podman_pulls_of_a_chunked_layer_what_it_has_not(at_once: AtOnce, chunked: str) -> None:
    at_once.chunked[chunked].result()


@pytest.mark.client("go")
@pytest.mark.parametrize(
    "lazy",
    [
        pytest.param(login, marks=pytest.mark.pulls("stargz-snapshotter", NS, login))
        for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN)
    ],
)
def test_stargz_reads_of_a_layer_what_it_opens(at_once: AtOnce, lazy: str) -> None:
    if lazy not in at_once.read:
        built(CLIENTS)
    at_once.read[lazy].result()


def test_no_login_is_told_to_anybody_else(at_once: AtOnce) -> None:
    assert at_once.tokens.refused == 0
    secrets = {"a login at the token service": MARK.encode(), "a password": f"{USER}:{PASSWORD}".encode()}
    assert found_at([at_once.cluster.supernode, *at_once.cluster.peers], secrets) == []
