"""`layercast doctor` names each fault that is injected into a running node, and what mends it; else nothing."""

from __future__ import annotations

import json
import resource
import signal
import socket
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.faults import Fault
from benchmarks.cluster.ports import ReservedPort
from benchmarks.cluster.processes import WAIT_S, wait_until
from benchmarks.cluster.services import Cluster, Peer
from peer.cli.main import main
from peer.doctor import examination, http_question
from proto.runtime.private_files import write_private
from supernode.membership.authorities import AuthorityFolder
from supernode.membership.commands import create_token
from supernode.membership.database import MemberDatabase
from tests.support.http_server import HttpServer, QuietHandler
from tests.support.operator import layercast
from tests.support.pullers import REPOSITORY, pull
from tests.support.rot import flip, stored_path
from tests.support.tls import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.cluster.registry import Registry

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20
HOUR_S = 3600.0


@dataclass
class Site:
    """A cluster for all tests here, each of which leaves it as it was. `peer` is a good node."""

    cluster: Cluster
    config: Path
    folder: Path
    peer: Peer

    @property
    def peer_config(self) -> Path:
        """What doctor knows of a peer that does not run."""
        return self.folder / "peer.toml"


@contextmanager
def running_site(registry: Registry, folder: Path) -> Iterator[Site]:
    config = folder / "supernode.toml"
    config.write_text("")
    with Cluster(folder, registry.address, supernode_flags=["--config", str(config)]) as cluster:
        peer = cluster.add_peer()
        cluster.wait_for_sessions(1)
        site = Site(cluster, config, folder, peer)
        site.peer_config.write_text(
            f'supernode = "{cluster.supernode.url}"\ninsecure_upstream = ["{registry.address}"]\n'
            f'default_upstream = "http://{registry.address}"\n'
        )
        yield site


@pytest.fixture(scope="module")
def site(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(registry, tmp_path_factory.mktemp("doctor")) as running:
        yield running


@pytest.fixture
def passing_site(registry: Registry, tmp_path: Path) -> Iterator[Site]:
    """For a test that ends programs, or starts more."""
    with running_site(registry, tmp_path) as running:
        yield running


class Doctor:
    """What it says of a node."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(
        self, site: Site, *words: str, peer: Peer | None = None, client: str = "docker", root: Path | None = None
    ) -> dict[str, str]:
        """By the name of a fault, what mends it. Unless `root` says otherwise the client is set up as it should be."""
        peer = peer or site.peer
        if root is None:
            root = site.folder / f"root-of-{peer.name}"
            root.mkdir(exist_ok=True)
            assert main(["setup", client, "--mirror", peer.proxy_url, "--root", str(root)]) == 0
        where = ["--peer", peer.proxy_url, "--data-dir", str(peer.data_dir), "--root", str(root)]
        where += ["--config", str(site.peer_config)]
        self._capsys.readouterr()
        code = main(["doctor", "--json", "--client", client, *where, *words])
        said = json.loads(self._capsys.readouterr().out)
        found = {part["fault"]: part["mend"] for part in said["parts"] if part["fault"]}
        assert all(found.values())
        assert (code, said["ok"]) == ((1, False) if found else (0, True))
        return found


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """A patient one: on a busy machine a good program may not answer within the operator's few seconds."""
    monkeypatch.setattr(http_question, "TIMEOUT_S", WAIT_S)
    return Doctor(capsys)


def test_of_a_good_node_there_is_nothing_to_say(site: Site, doctor: Doctor) -> None:
    assert doctor(site) == {}


def test_a_client_that_is_not_set_up(site: Site, doctor: Doctor, tmp_path: Path) -> None:
    mend = doctor(site, root=tmp_path)["client_not_set_up"]
    assert mend.startswith(f"layercast setup docker --mirror {site.peer.proxy_url} && systemctl")


def test_a_client_that_is_set_up_for_another_port(site: Site, doctor: Doctor, tmp_path: Path) -> None:
    main(["setup", "docker", "--mirror", "http://127.0.0.1:7001", "--root", str(tmp_path)])
    assert list(doctor(site, root=tmp_path)) == ["client_other_port"]


def test_a_client_that_goes_straight_to_a_registry_past_the_peer(site: Site, doctor: Doctor, tmp_path: Path) -> None:
    main(["setup", "containerd", "--mirror", site.peer.proxy_url, "--root", str(tmp_path)])
    (tmp_path / "etc/containerd/certs.d/quay.io").mkdir()
    mend = doctor(site, root=tmp_path, client="containerd")["client_bypasses"]
    assert mend == f"layercast setup containerd --mirror {site.peer.proxy_url} --registry quay.io"


def test_a_file_that_the_client_does_not_take(site: Site, doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/docker/daemon.json").write_text("{")
    assert list(doctor(site, root=tmp_path)) == ["client_unusable"]


def test_programs_that_do_not_run_and_a_port_that_another_has(passing_site: Site, doctor: Doctor) -> None:
    site = passing_site
    site.cluster.supernode.kill()
    assert list(doctor(site)) == ["supernode_unreachable"]
    site.peer.stop()
    assert doctor(site)["peer_not_running"].startswith("systemctl start layercast-peer.service")

    class Other(QuietHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

    with HttpServer(Other) as other:
        assert "(pid " in doctor(site, "--peer", f"http://127.0.0.1:{other.port}")["port_taken"]


def test_a_certificate_that_has_expired(site: Site, doctor: Doctor) -> None:
    record = site.peer.data_dir / "membership.json"
    before = record.read_text()
    record.write_text(json.dumps({**json.loads(before), "expires_unix_s": time.time() - 1.0}))
    found = doctor(site)
    record.write_text(before)
    assert "membership.json" in found["certificate_expired"]


def test_a_clock_that_is_wrong(site: Site, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr("peer.doctor.http_question.time.time", lambda: now() + HOUR_S)
    assert doctor(site)["clock_differs"].startswith("timedatectl set-ntp true")


def test_releases_that_differ(site: Site, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "VERSION", "9.9.9")
    assert list(doctor(site)) == ["version_differs"]


def test_a_registry_that_is_not_allowed(site: Site, doctor: Doctor) -> None:
    mend = doctor(site, "--registry", "registry.invalid")["registry_not_allowed"]
    assert 'allow_upstream = ["registry.invalid"]' in mend


def test_a_login_of_the_operator_that_is_not_to_be_had(site: Site, doctor: Doctor, registry: Registry) -> None:
    upstream = (
        f'[upstream."private.test"]\nurl = "http://{registry.address}"\ncredentials = "file:{site.folder}/login"\n'
    )
    site.config.write_text(upstream)
    site.cluster.supernode.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "login_refused" in doctor(site), "the login that is missing")
    assert "docker login private.test" in doctor(site)["login_refused"]
    site.config.write_text("")
    site.cluster.supernode.process.send_signal(signal.SIGHUP)
    wait_until(lambda: doctor(site) == {}, "the settings as before")


def test_a_store_that_is_gone_and_few_descriptors(site: Site, doctor: Doctor) -> None:
    store = site.peer.data_dir / "store"
    limits = resource.prlimit(site.peer.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(site.peer.process.pid, resource.RLIMIT_NOFILE, (512, limits[1]))
    store.rename(store.with_name("away"))
    found = doctor(site)
    store.with_name("away").rename(store)
    resource.prlimit(site.peer.process.pid, resource.RLIMIT_NOFILE, limits)
    assert list(found) == ["descriptors_few", "store_not_writable"]
    assert "LimitNOFILE=8192" in found["descriptors_few"]


def test_a_peer_that_hangs(site: Site, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_question, "TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert "peer_hangs" in doctor(site, "--peer", f"http://127.0.0.1:{listener.getsockname()[1]}")


def test_nodes_that_were_set_wrongly(passing_site: Site, doctor: Doctor) -> None:
    """One has a token that was revoked, others do not reach the port of the second, whose disk has too little room."""
    site = passing_site
    revoked = site.cluster.prepare_peer()
    revoked.extra[revoked.extra.index("--join-file") + 1] = str(revoked_token(site))
    with closing(ReservedPort("127.0.0.1")) as closed:
        flags = ["--advertise", closed.address, "--store-free-floor", "1000TiB"]
        unreached = site.cluster.prepare_peer(extra=flags)
        for peer in (revoked, unreached):
            peer.start()
        site.cluster.wait_for_sessions(2)
        wait_until(lambda: b"join token" in revoked.healthz()[1], "the refusal")
        found = doctor(site, peer=revoked)
        assert list(found) == ["join_token_refused"]
        assert "token create" in found["join_token_refused"]
        found = doctor(site, peer=unreached)
        assert list(found) == ["store_full", "node_unreached"]
        assert f"open TCP {closed.port}" in found["node_unreached"]


def test_registries_that_cannot_be_asked_and_pieces_that_rotted(
    passing_site: Site, doctor: Doctor, registry: Registry
) -> None:
    """One has no address, one a certificate that nobody knows, one limits us, at one nobody listens."""
    site = passing_site
    tls = Authority(site.folder).issue(["127.0.0.1"]).server_context()
    with (
        CountingProxy(registry.host_port, tls=tls) as strange,
        CountingProxy(registry.host_port) as busy,
        closing(ReservedPort("127.0.0.1")) as closed,
    ):
        busy.add_fault(Fault(status=429, headers=(("Retry-After", "60"),)))
        flags = ["--allow-upstream", "registry.invalid", "--allow-upstream", strange.address]
        flags += ["--insecure-upstream", busy.address, "--insecure-upstream", closed.address]
        peer = site.cluster.add_peer(extra=flags)
        site.cluster.wait_for_sessions(2)
        let_rot(peer, registry)
        found = doctor(site, peer=peer)
        peer.stop()
    registries = ["registry_name", "registry_tls", "registry_limits", "registry_unreachable"]
    assert list(found) == ["store_rotten", *registries]
    assert found["store_rotten"].startswith(f"layercast verify --data-dir {peer.data_dir}")
    assert f'ca_file = "its-authority.pem" in [upstream."{strange.address}"]' in found["registry_tls"]


def revoked_token(site: Site) -> Path:
    folder = AuthorityFolder(site.cluster.supernode.data_dir)
    token = create_token(folder, HOUR_S, None)
    database = MemberDatabase(folder.path)
    database.revoke_token(token.id)
    database.close()
    file = site.folder / "revoked.token"
    write_private(file, token.text.encode())
    return file


def let_rot(peer: Peer, registry: Registry) -> None:
    """A bit of a blob in its store flips, and is found."""
    with registry.writer() as writer:
        digest = writer.push_blob_bytes(REPOSITORY, b"r" * MIB)
    assert pull(peer.proxy, digest).complete
    path = stored_path(peer.data_dir, digest)
    wait_until(path.exists, "the blob under its final name")
    flip(path, 5)
    assert layercast(peer, "verify").returncode == 3
