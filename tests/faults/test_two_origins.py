"""One blob at two registries, one of which lies, states another size or stands still: that is its readers' trouble."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.services import LOOPBACK, Cluster, Peer
from tests.support.blobs import some_blob
from tests.support.counts import assert_received, assert_received_from_the_swarm
from tests.support.fake_origin import FakeOrigin, Fault, fake_origin
from tests.support.pullers import Pull, blob_target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
SIZE_BYTES = MIB
# Well within what readers of the other registry wait for a digest.
SLOW_BYTES_S = 600_000.0
TRICKLES = Fault(trickle_s=3.0)


@pytest.fixture
def good() -> Iterator[FakeOrigin]:
    with fake_origin() as origin:
        yield origin


@pytest.fixture
def other() -> Iterator[FakeOrigin]:
    """The registry in trouble."""
    with fake_origin() as origin:
        yield origin


@pytest.fixture
def cluster(tmp_path: Path, good: FakeOrigin, other: FakeOrigin) -> Iterator[Cluster]:
    """Three nodes of a supernode that may ask both."""
    flags = ["--insecure-upstream", other.authority]
    with Cluster(tmp_path, good.authority, supernode_flags=flags, peer_flags=flags) as cluster:
        cluster.add_peers([None] * 3)
        cluster.wait_for_sessions(3)
        yield cluster


@pytest.fixture
def peers(cluster: Cluster) -> list[Peer]:
    return cluster.peers


@pytest.fixture
def alone(tmp_path: Path, good: FakeOrigin, other: FakeOrigin) -> Iterator[Peer]:
    """A node without a supernode that may ask both."""
    flags = ["--insecure-upstream", good.authority, "--insecure-upstream", other.authority]
    peer = Peer("alone", tmp_path, [], LOOPBACK, LOOPBACK, flags)
    try:
        peer.start()
        yield peer
    finally:
        peer.close()


def some(good: FakeOrigin, other: FakeOrigin, size_bytes: int = SIZE_BYTES) -> str:
    """Another blob that both have from now on."""
    content = some_blob(size_bytes, seed=good.port << 16 | len(good.blobs)).content
    other.add(content)
    return str(good.add(content))


def lie(other: FakeOrigin, digest: str, surplus: bytes = b"") -> None:
    """Have other bytes under this digest, and more of them."""
    other.blobs[digest] = bytes(byte ^ 0xFF for byte in other.blobs[digest]) + surplus


def start(peer: Peer, digest: str, origin: FakeOrigin) -> Pull:
    return Pull(peer.proxy, f"{blob_target(digest)}?ns={origin.authority}")


def assert_never_wrong(running: Pull, digest: str) -> None:
    """It is cut short, or has what was proved meanwhile."""
    answer = running.result()
    assert not answer.complete or answer.sha256 == digest


def assert_right(running: Pull, digest: str) -> None:
    answer = running.result()
    assert answer.complete, answer
    assert answer.sha256 == digest


def assert_shared(peers: list[Peer], good: FakeOrigin, digest: str) -> None:
    """All pull it from the good registry, which is asked once for all of them."""
    with contextlib.ExitStack() as pulls:
        for running in [pulls.enter_context(start(peer, digest, good)) for peer in peers]:
            assert_right(running, digest)
    for peer in peers:
        assert_received_from_the_swarm(peer, SIZE_BYTES)
        assert_received(peer, passthrough=0, origin=0)
    assert len(good.blob_requests("GET")) == 1


def test_a_layer_that_one_registry_gives_to_anyone_is_shared_by_all_who_may_have_it_at_another(
    cluster: Cluster, good: FakeOrigin, other: FakeOrigin
) -> None:
    digest = some(good, other)
    other.token, other.challenge = "mine", 'Basic realm="private"'
    public_first, private_first, last = cluster.peers
    for peer, origin, headers in [
        (public_first, good, {}),
        (private_first, other, {"Authorization": "Bearer mine"}),
        (private_first, good, {}),
        (last, good, {}),
    ]:
        with Pull(peer.proxy, f"{blob_target(digest)}?ns={origin.authority}", headers=headers) as running:
            assert_right(running, digest)
        assert_received(peer, passthrough=0, origin=0)
    assert (len(good.blob_requests("GET")), [asked.range for asked in other.blob_requests("GET")]) == (1, ["bytes=0-0"])
    # To the other registry's clients it is as private as ever.
    with start(private_first, digest, other) as running:
        assert running.result().status == 401


@pytest.mark.parametrize("bytes_per_s", [None, SLOW_BYTES_S], ids=["at-once", "slowly"])
@pytest.mark.parametrize("surplus", [b"", b"more"], ids=["same-size", "other-size"])
def test_a_registry_that_lies_spoils_no_pull_of_a_good_one(
    cluster: Cluster, good: FakeOrigin, other: FakeOrigin, surplus: bytes, bytes_per_s: float | None
) -> None:
    digest = some(good, other)
    lie(other, digest, surplus)
    other.bytes_per_s = bytes_per_s
    misled_at, other_node, later = cluster.peers
    with start(misled_at, digest, other) as misled:
        wait_until(lambda: bool(other.blob_requests("GET")))
        with start(other_node, digest, good) as right:
            assert_right(right, digest)
        assert_never_wrong(misled, digest)
    # The liar is blamed, or made way while nothing of it had come yet: what the good one sends is shared.
    blamed, left = f"blob_voided .*source={other.authority}$", f"swarm_made_way .*upstream={other.authority} "
    cluster.supernode.process.wait_for_line(f"{blamed}|{left}")
    with start(later, digest, good) as shared:
        assert_right(shared, digest)
    assert_received_from_the_swarm(later, SIZE_BYTES)
    assert_received(later, passthrough=0, origin=0)
    # Nobody but the liar.
    voided = [line for line in cluster.supernode.process.log() if "blob_voided" in line]
    assert all(line.endswith(f"source={other.authority}") for line in voided), voided


def test_readers_of_two_registries_that_come_at_the_same_time_are_not_given_each_others_bytes(
    peers: list[Peer], good: FakeOrigin, other: FakeOrigin
) -> None:
    digests = [some(good, other) for _ in range(6)]
    for digest in digests:
        lie(other, digest)
    good.always["HEAD"] = other.always["HEAD"] = Fault(delay_s=0.3)
    with contextlib.ExitStack() as pulls:
        pairs = [(digest, peers[number % 3], peers[(number + number % 2) % 3]) for number, digest in enumerate(digests)]
        started = [
            (pulls.enter_context(start(one, digest, other)), pulls.enter_context(start(two, digest, good)), digest)
            for digest, one, two in pairs
        ]
        for misled, right, digest in started:
            assert_right(right, digest)
            assert_never_wrong(misled, digest)


def test_the_same_in_a_peer_that_works_alone(alone: Peer, good: FakeOrigin, other: FakeOrigin) -> None:
    digest = some(good, other)
    lie(other, digest)
    other.bytes_per_s = SLOW_BYTES_S
    with start(alone, digest, other) as misled:
        wait_until(lambda: bool(other.blob_requests("GET")))
        with start(alone, digest, good) as right:
            assert_right(right, digest)
        assert_never_wrong(misled, digest)


def test_a_registry_that_stands_still_makes_way_for_one_that_gives(
    peers: list[Peer], good: FakeOrigin, other: FakeOrigin
) -> None:
    digest = some(good, other)
    other.always["GET"] = TRICKLES
    with start(peers[0], digest, other) as first:
        wait_until(lambda: bool(other.blob_requests("GET")))
        assert_shared(peers[1:], good, digest)
        # what has been proved is for all
        assert_right(first, digest)


def test_its_readers_wait_for_one_that_takes_a_moment_to_begin(
    peers: list[Peer], good: FakeOrigin, other: FakeOrigin
) -> None:
    digest = some(good, other)
    other.always["GET"] = TRICKLES
    good.always["GET"] = Fault(delay_s=2.0)
    with start(peers[0], digest, other) as first:
        wait_until(lambda: bool(other.blob_requests("GET")))
        with start(peers[1], digest, good) as second:
            assert_right(second, digest)
        assert_right(first, digest)


def test_in_one_peer_a_check_that_stands_still_keeps_no_reader_of_another_registry_waiting(
    peers: list[Peer], good: FakeOrigin, other: FakeOrigin
) -> None:
    digest = some(good, other)
    other.always["HEAD"] = Fault(delay_s=60.0)
    with start(peers[0], digest, other) as first:
        wait_until(lambda: bool(other.blob_requests("HEAD")))
        with start(peers[0], digest, good) as second:
            assert_right(second, digest)
        assert first.running


def test_in_a_peer_that_works_alone_neither_does_a_body(alone: Peer, good: FakeOrigin, other: FakeOrigin) -> None:
    digest = some(good, other)
    other.always["GET"] = TRICKLES
    with start(alone, digest, other) as first:
        wait_until(lambda: bool(other.blob_requests("GET")))
        with start(alone, digest, good) as second:
            assert_right(second, digest)
        assert first.running
