"""Clients that go away, signals, and settings: nothing is lost by them, nothing is asked for twice."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.faults import Fault
from benchmarks.cluster.processes import run, wait_until
from benchmarks.cluster.programs import clean_environment
from benchmarks.cluster.services import LOOPBACK, script
from tests.support.counts import assert_metric, assert_received, assert_sent_to_clients
from tests.support.descriptors import open_files
from tests.support.pullers import pull, start_pull

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.cluster.counting_proxy import CountingProxy
    from benchmarks.cluster.services import Cluster, Peer

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20
SIZE_BYTES = 6 * MIB


def test_a_download_goes_on_when_its_client_hangs_up(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    peer = cluster.add_peer()
    cluster.wait_for_sessions(1)
    origin.set_rate(4 * MIB)
    with start_pull(peer.proxy, digest) as client:
        client.wait_for_bytes(1 * MIB)
    assert_metric(peer, "layercast_digest_checks_total", 1, result="ok")
    assert_received(peer, seed=SIZE_BYTES)
    answer = pull(peer.proxy, digest)
    assert answer.complete
    assert answer.sha256 == digest
    assert_sent_to_clients(peer, store=SIZE_BYTES)
    assert origin.ledger().gets(digest) == 1


def test_clients_that_hang_up_leave_nothing_open(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    peer = cluster.add_peer()
    cluster.wait_for_sessions(1)
    assert pull(peer.proxy, digest).complete
    files_before = open_files(peer.process)
    for _ in range(30):
        with start_pull(peer.proxy, digest) as client:
            client.wait_for_bytes(1)
    wait_until(lambda: open_files(peer.process) <= files_before + 2, "the clients' sockets closed")


@pytest.mark.parametrize("program", ["peer", "supernode"])
def test_sigterm_in_mid_pull_ends_a_program(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str], program: str
) -> None:
    digest = push(SIZE_BYTES)
    peer = cluster.add_peer()
    cluster.wait_for_sessions(1)
    # The pull would never end.
    origin.add_fault(Fault(path_contains=digest, method="GET", stall_after_bytes=2 * MIB))
    with start_pull(peer.proxy, digest) as client:
        client.wait_for_bytes(1 * MIB)
        service = peer if program == "peer" else cluster.supernode
        assert service.stop() == 0


def write_settings(path: Path, peer: Peer, *, p2p: bool) -> None:
    path.write_text(f"p2p = {str(p2p).lower()}\n")
    if peer.ready:
        peer.process.send_signal(signal.SIGHUP)
        peer.process.wait_for_line(f"reloaded p2p={p2p}")


def test_sharing_is_switched_off_and_on_at_run_time(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str], tmp_path: Path
) -> None:
    settings = tmp_path / "peer.toml"
    peer = cluster.prepare_peer(extra=["--config", str(settings)])
    write_settings(settings, peer, p2p=True)
    peer.start()
    cluster.wait_for_sessions(1)
    shared, passed, shared_again = push(MIB), push(MIB), push(MIB)
    assert pull(peer.proxy, shared).sha256 == shared
    assert_received(peer, seed=MIB)

    write_settings(settings, peer, p2p=False)
    cluster.wait_for_sessions(0)
    answer = pull(peer.proxy, passed)
    assert answer.complete
    assert answer.sha256 == passed
    assert_received(peer, passthrough=MIB, seed=MIB)
    assert peer.healthz()[0] == 200

    write_settings(settings, peer, p2p=True)
    cluster.wait_for_sessions(1)
    assert pull(peer.proxy, shared_again).sha256 == shared_again
    assert_received(peer, seed=2 * MIB)
    assert [origin.ledger().gets(digest) for digest in (shared, passed, shared_again)] == [1, 1, 1]


def test_settings_that_are_wrong_at_a_reload_change_nothing(
    cluster: Cluster, push: Callable[[int], str], tmp_path: Path
) -> None:
    settings = tmp_path / "peer.toml"
    settings.write_text("p2p = true\n")
    peer = cluster.add_peer(extra=["--config", str(settings)])
    cluster.wait_for_sessions(1)
    settings.write_text("p2p = 'perhaps'\n")
    peer.process.send_signal(signal.SIGHUP)
    peer.process.wait_for_line(r"reload_refused.*p2p.*perhaps")
    digest = push(MIB)
    assert pull(peer.proxy, digest).sha256 == digest
    assert_received(peer, seed=MIB)


@pytest.mark.parametrize("program", ["layercast-peer", "layercast-supernode"])
def test_a_data_folder_in_use_is_refused_in_one_line(cluster: Cluster, program: str) -> None:
    peer = cluster.add_peer()
    cluster.wait_for_sessions(1)
    service = peer if program == "layercast-peer" else cluster.supernode
    free = f"{LOOPBACK}:0"
    argv: list[str | Path] = [
        script(program),
        "--listen",
        free,
        "--upload-listen",
        free,
        "--data-dir",
        service.data_dir,
    ]
    ended = run(argv, env=clean_environment(), check=False)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert str(service.data_dir) in ended.stderr
    assert "in use" in ended.stderr
