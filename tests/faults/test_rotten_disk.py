"""A bit flips in a complete blob, at a peer or at the supernode: no client gets it, and one piece is fetched again."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from tests.support.counts import assert_becomes, assert_metric, assert_received
from tests.support.held import held_ranges, stored_layout
from tests.support.operator import evicts, layercast
from tests.support.pullers import PATIENCE_S, blob_target, pull, start_pull
from tests.support.rot import flip, stored_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.cluster.counting_proxy import CountingProxy
    from benchmarks.cluster.services import Cluster, Peer, Service

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20
SIZE_BYTES = 4 * MIB
PIECE_BYTES = 256 << 10


def assert_gets(peer: Peer, digest: str) -> None:
    answer = pull(peer.proxy, digest)
    assert answer.complete, answer
    assert answer.sha256 == digest


def pulled(peer: Peer, digest: str) -> None:
    """The peer has it, under its final name."""
    assert_gets(peer, digest)
    wait_until(stored_path(peer.data_dir, digest).exists, "the blob under its final name")


def rotten(service: Service, found_by: str) -> float:
    return service.metrics().value("layercast_rotten_pieces_total", found_by=found_by)


def restart_with_a_flip(service: Service, digest: str, offset: int) -> None:
    service.stop()
    flip(stored_path(service.data_dir, digest), offset)
    service.start()


@pytest.mark.parametrize("offset", [2 * MIB + 5, SIZE_BYTES - 1], ids=["in the middle", "in the last piece"])
def test_a_peer_whose_blob_rotted_fetches_that_piece_again_while_it_serves(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str], offset: int
) -> None:
    digest = push(SIZE_BYTES)
    peer = cluster.add_peer()
    pulled(peer, digest)
    restart_with_a_flip(peer, digest, offset)
    cluster.wait_for_sessions(1)
    assert_gets(peer, digest)
    assert_received(peer, seed=PIECE_BYTES, passthrough=0, origin=0)
    assert_metric(peer, "layercast_rotten_pieces_total", 1, found_by="client")
    assert_gets(peer, digest)
    assert origin.ledger().blob_bytes(digest) == SIZE_BYTES


def test_with_verify_after_0_rot_is_found_while_the_peer_runs(cluster: Cluster, push: Callable[[int], str]) -> None:
    digest = push(SIZE_BYTES)
    peer = cluster.add_peer(extra=["--verify-after", "0"])
    pulled(peer, digest)
    for offset in (0, MIB, SIZE_BYTES - 1):
        flip(stored_path(peer.data_dir, digest), offset)
        assert_gets(peer, digest)
        wait_until(stored_path(peer.data_dir, digest).exists, "the blob under its final name again")
    assert_received(peer, seed=SIZE_BYTES + 3 * PIECE_BYTES, passthrough=0)


def test_with_verify_after_0_a_flip_between_sending_and_reading_changes_nothing(
    cluster: Cluster, push: Callable[[int], str]
) -> None:
    """sendfile lets the client read what the file is by then."""
    digest = push(MIB)
    peer = cluster.add_peer(extra=["--verify-after", "0"])
    pulled(peer, digest)
    sent_before = peer.metrics().value("layercast_client_bytes_total", **{"from": "store"})
    with contextlib.closing(http.client.HTTPConnection(peer.proxy, timeout=PATIENCE_S)) as client:
        client.request("GET", blob_target(digest))
        assert_metric(peer, "layercast_client_bytes_total", sent_before + MIB, **{"from": "store"})
        flip(stored_path(peer.data_dir, digest), *range(0, MIB, PIECE_BYTES))
        assert f"sha256:{hashlib.sha256(client.getresponse().read()).hexdigest()}" == digest


def test_a_peer_without_its_supernode_asks_the_origin_for_the_piece(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    peer = cluster.add_peer(extra=["--supernode-patience", "1s"])
    pulled(peer, digest)
    cluster.supernode.stop()
    restart_with_a_flip(peer, digest, MIB)
    assert_gets(peer, digest)
    assert_received(peer, origin=PIECE_BYTES, passthrough=0)
    assert origin.ledger().blob_bytes(digest) == SIZE_BYTES + PIECE_BYTES


@pytest.mark.parametrize("restarted", [True, False], ids=["after a start", "within the day for which a check counts"])
def test_a_supernode_whose_blob_rotted_asks_the_origin_for_that_piece(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str], restarted: bool
) -> None:
    """Also where it runs all the time: that somebody wrote to the file is seen by its times."""
    digest = push(SIZE_BYTES)
    first = cluster.add_peer()
    pulled(first, digest)
    first.stop()
    cluster.wait_for_sessions(0)
    wait_until(stored_path(cluster.supernode.data_dir, digest).exists, "the blob under its final name")
    if restarted:
        restart_with_a_flip(cluster.supernode, digest, 3 * MIB)
    else:
        flip(stored_path(cluster.supernode.data_dir, digest), 3 * MIB)
    second = cluster.add_peer()
    cluster.wait_for_sessions(1)
    assert_gets(second, digest)
    assert_received(second, seed=SIZE_BYTES, passthrough=0, origin=0)
    assert_metric(cluster.supernode, "layercast_rotten_pieces_total", 1, found_by="peer")
    assert origin.ledger().blob_bytes(digest) == SIZE_BYTES + PIECE_BYTES


def test_a_scrub_finds_what_nobody_reads_and_it_is_fetched_again(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digests = [push(SIZE_BYTES), push(SIZE_BYTES)]
    peer = cluster.add_peer(extra=["--scrub-interval", "2s", "--scrub-rate", "1GiB"])
    for digest in digests:
        pulled(peer, digest)
        # Both before the scrub, which reads all the time, sees one of them.
        peer.process.pause()
        flip(stored_path(peer.data_dir, digest), MIB, 2 * MIB)
        peer.process.resume()
    # The second one may be cut coarser than the first.
    layouts = [stored_layout(peer.data_dir, digest) for digest in digests]
    flipped = [{layout.piece_at(offset) for offset in (MIB, 2 * MIB)} for layout in layouts]
    # one of two may be found by the digest check that follows when the other was fetched again
    assert_becomes(lambda: rotten(peer, "scrub") + rotten(peer, "digest"), float(sum(map(len, flipped))))
    again_bytes = sum(len(pieces) * layout.piece_size_bytes for pieces, layout in zip(flipped, layouts, strict=True))
    assert_received(peer, seed=2 * SIZE_BYTES + again_bytes)
    assert_becomes(lambda: [stored_path(peer.data_dir, digest).exists() for digest in digests], [True, True])
    for digest in digests:
        assert_gets(peer, digest)
    assert [origin.ledger().blob_bytes(digest) for digest in digests] == [SIZE_BYTES, SIZE_BYTES]


def test_what_a_scrub_finds_right_after_a_start_comes_from_the_swarm(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    peer = cluster.add_peer(extra=["--scrub-interval", "100ms", "--scrub-rate", "1GiB"])
    pulled(peer, digest)
    peer.stop()
    flip(stored_path(peer.data_dir, digest), *range(0, 8 * PIECE_BYTES, PIECE_BYTES))
    peer.start()
    assert_becomes(lambda: rotten(peer, "scrub") + rotten(peer, "digest"), 8.0)
    assert_received(peer, seed=8 * PIECE_BYTES, origin=0)
    assert origin.ledger().blob_bytes(digest) == SIZE_BYTES


def test_verify_has_a_running_peer_drop_what_rotted_and_fetch_it_again(
    cluster: Cluster, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    peer = cluster.add_peer()
    pulled(peer, digest)
    assert layercast(peer, "verify").stdout == "verified 1 blobs, 4.0 MiB: all as they should be\n"
    flip(stored_path(peer.data_dir, digest), MIB)
    done = layercast(peer, "verify", digest)
    assert (done.returncode, done.stdout.splitlines()) == (
        3,
        [
            f"{digest}: 1 piece was rotten and dropped; being fetched again",
            "verified 1 blobs, 4.0 MiB: 1 piece was rotten",
        ],
    )
    assert_received(peer, seed=SIZE_BYTES + PIECE_BYTES)
    assert_becomes(lambda: layercast(peer, "verify").returncode, 0)


def test_evict_deletes_a_blob_of_a_running_service(cluster: Cluster, push: Callable[[int], str]) -> None:
    digest = push(SIZE_BYTES)
    peer = cluster.add_peer()
    pulled(peer, digest)
    for service in (peer, cluster.supernode):
        wait_until(partial(evicts, service, digest), "the blob to be used by nobody")
        gone = layercast(service, "evict", digest)
        assert (gone.returncode, "is not in the store" in gone.stderr) == (1, True)
        assert len(gone.stderr.splitlines()) == 1
    assert_gets(peer, digest)


def test_after_a_restart_of_the_machine_clients_are_served_and_what_the_disk_lost_comes_again(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    peer = cluster.add_peer()
    cluster.wait_for_sessions(1)
    origin.set_rate(MIB)
    with start_pull(peer.proxy, digest) as client:
        client.wait_for_bytes(2 * MIB)
        peer.kill()
    origin.set_rate(None)
    unfinished = Path(str(stored_path(peer.data_dir, digest)).replace("/blobs/", "/partial/"))
    (first, _), *_ = held_ranges(peer.data_dir, digest)
    flip(unfinished, first)
    (meta,) = (peer.data_dir / "store" / "meta").glob("*/*/*.json")
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "boot_id": "an earlier one"}))
    peer.start()
    cluster.wait_for_sessions(1)
    assert_gets(peer, digest)
    assert_becomes(lambda: rotten(peer, "scrub") + rotten(peer, "client") + rotten(peer, "peer"), 1.0)
    assert origin.ledger().blob_bytes(digest) == SIZE_BYTES
