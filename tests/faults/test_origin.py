"""An origin that misbehaves: what clients get, in what time, and how often it is asked.

One cluster for all: each test has a blob of its own, and its faults name that blob.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.faults import Fault
from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.proxy_process import CountingProxyProcess
from benchmarks.cluster.services import Cluster
from peer.registry.retry import RetrySettings
from tests.support.counts import assert_received, assert_received_from_the_swarm
from tests.support.held import stored_layout
from tests.support.pullers import pull, start_pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.cluster.proxy_process import ProxyControl
    from benchmarks.cluster.registry import Registry
    from benchmarks.cluster.services import Peer

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20
SIZE_BYTES = 3 * MIB
# The last bytes that a client gets only after the blob's digest passed at its node.
WITHHELD_BYTES = 64 << 10


@pytest.fixture(scope="module")
def shared_origin(registry: Registry) -> Iterator[CountingProxyProcess]:
    """In a process of its own: the services keep connections to it from one test to the next."""
    with CountingProxyProcess(registry.host_port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def peers(shared_origin: CountingProxyProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Peer]]:
    with Cluster(tmp_path_factory.mktemp("cluster"), shared_origin.address) as cluster:
        cluster.add_peers([None, None])
        cluster.wait_for_sessions(2)
        yield cluster.peers


@pytest.fixture
def origin(shared_origin: CountingProxyProcess) -> Iterator[ProxyControl]:
    yield shared_origin
    shared_origin.clear_faults()
    shared_origin.set_rate(None)


def assert_everyone_gets_it_from_one_fetch(peers: list[Peer], origin: ProxyControl, digest: str) -> None:
    """All peers pull at once; every byte leaves the origin once, for the supernode."""
    before = [(peer.received_bytes("passthrough"), peer.received_bytes("origin")) for peer in peers]
    swarm_bytes = [peer.received_bytes("peer") + peer.received_bytes("seed") for peer in peers]
    pulls = [start_pull(peer.proxy, digest) for peer in peers]
    for running in pulls:
        with running:
            answer = running.result()
            assert answer.complete, answer
            assert answer.sha256 == digest
    ledger = origin.ledger()
    assert ledger.distinct_bytes(digest) == SIZE_BYTES
    assert ledger.repeated_bytes(digest) == 0
    for peer, bytes_before, (passthrough, own) in zip(peers, swarm_bytes, before, strict=True):
        assert_received_from_the_swarm(peer, bytes_before + SIZE_BYTES)
        assert_received(peer, passthrough=passthrough, origin=own)


def test_an_origin_that_cuts_in_mid_blob_is_asked_for_the_rest(
    peers: list[Peer], origin: ProxyControl, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    origin.add_fault(Fault(path_contains=digest, method="GET", cut_after_bytes=MIB + 12_345, times=2))
    assert_everyone_gets_it_from_one_fetch(peers, origin, digest)
    assert origin.ledger().gets(digest) == 3


def test_an_origin_that_resets_in_mid_blob_is_asked_for_the_rest(
    peers: list[Peer], origin: ProxyControl, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    origin.add_fault(Fault(path_contains=digest, method="GET", cut_after_bytes=MIB + 12_345, reset=True, times=1))
    assert_everyone_gets_it_from_one_fetch(peers, origin, digest)


def test_an_origin_that_stalls_is_asked_again_for_the_rest(
    peers: list[Peer], origin: ProxyControl, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    origin.add_fault(Fault(path_contains=digest, method="GET", stall_after_bytes=MIB, times=1))
    assert_everyone_gets_it_from_one_fetch(peers, origin, digest)
    stalled, resumed = origin.ledger().of_blob(digest)
    # silent for 10 s means stalled
    assert resumed.started_s - stalled.started_s >= 9.0


def test_a_slow_first_byte_is_waited_for(peers: list[Peer], origin: ProxyControl, push: Callable[[int], str]) -> None:
    digest = push(SIZE_BYTES)
    origin.add_fault(Fault(path_contains=digest, method="GET", first_byte_delay_s=5.0))
    assert_everyone_gets_it_from_one_fetch(peers, origin, digest)
    assert origin.ledger().gets(digest) == 1


def test_an_origin_that_answers_late_is_waited_for(
    peers: list[Peer], origin: ProxyControl, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    origin.add_fault(Fault(path_contains=digest, head_delay_s=3.0))
    assert_everyone_gets_it_from_one_fetch(peers, origin, digest)
    assert origin.ledger().gets(digest) == 1


def test_too_many_requests_are_paused_for_as_long_as_the_origin_says(
    peers: list[Peer], origin: ProxyControl, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    origin.add_fault(Fault(path_contains=digest, method="GET", status=429, headers=(("Retry-After", "3"),), times=1))
    assert_everyone_gets_it_from_one_fetch(peers, origin, digest)
    refused, answered = origin.ledger().of_blob(digest)
    assert answered.started_s - refused.ended_s >= 3.0


def test_an_origin_that_is_briefly_unavailable_is_asked_again(
    peers: list[Peer], origin: ProxyControl, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    origin.add_fault(Fault(path_contains=digest, method="GET", status=503, times=2))
    assert_everyone_gets_it_from_one_fetch(peers, origin, digest)
    assert origin.ledger().gets(digest) == 1


def test_an_origin_without_ranges_is_read_in_one_stream(
    peers: list[Peer], origin: ProxyControl, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    origin.add_fault(Fault(path_contains=digest, ignore_range=True))
    assert_everyone_gets_it_from_one_fetch(peers, origin, digest)
    assert origin.ledger().gets(digest) == 1


def test_a_chunked_answer_is_read_to_its_end(
    peers: list[Peer], origin: ProxyControl, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    origin.add_fault(Fault(path_contains=digest, method="GET", chunked=True))
    assert_everyone_gets_it_from_one_fetch(peers, origin, digest)


def assert_never_complete_and_wrong(peers: list[Peer], digest: str) -> None:
    """Each client's body is right, or it ends short before the withheld bytes, or it is refused."""
    pulls = [start_pull(peer.proxy, digest) for peer in peers]
    for running in pulls:
        with running:
            answer = running.result()
            if answer.complete:
                assert answer.sha256 == digest
            elif answer.status == 200:
                assert answer.received_bytes <= int(answer.headers["content-length"]) - WITHHELD_BYTES
            else:
                assert answer.status >= 400


@pytest.mark.parametrize("delta_bytes", [100_000, -100_000])
@pytest.mark.parametrize("method", ["", "GET", "HEAD"])
def test_an_origin_that_lies_about_the_length_completes_no_wrong_body(
    peers: list[Peer], origin: ProxyControl, push: Callable[[int], str], delta_bytes: int, method: str
) -> None:
    digest = push(SIZE_BYTES)
    origin.add_fault(Fault(path_contains=digest, method=method, length_delta_bytes=delta_bytes))
    # one peer: each that tries the origin for itself does so with patience
    assert_never_complete_and_wrong(peers[:1], digest)


@pytest.mark.parametrize("size_bytes", [500, SIZE_BYTES])
def test_an_origin_that_sends_other_content_completes_no_body(
    peers: list[Peer], origin: ProxyControl, push: Callable[[int], str], size_bytes: int
) -> None:
    digest = push(size_bytes)
    origin.add_fault(Fault(path_contains=digest, method="GET", corrupt_at=size_bytes // 2))
    for running in [start_pull(peer.proxy, digest) for peer in peers]:
        with running:
            answer = running.result()
            assert not answer.complete
            assert answer.received_bytes <= max(0, size_bytes - WITHHELD_BYTES)


def test_content_that_was_wrong_once_is_fetched_afresh(
    peers: list[Peer], origin: ProxyControl, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    origin.add_fault(Fault(path_contains=digest, method="GET", corrupt_at=MIB, times=1))
    assert_never_complete_and_wrong(peers, digest)
    origin.clear_faults()
    for peer in peers:
        answer = pull(peer.proxy, digest)
        assert answer.complete
        assert answer.sha256 == digest


def test_a_blob_that_the_origin_does_not_know_is_refused_in_its_words(peers: list[Peer], origin: ProxyControl) -> None:
    digest = f"sha256:{'0' * 64}"
    answer = pull(peers[0].proxy, digest)
    assert answer.status == 404
    assert b"BLOB_UNKNOWN" in answer.start
    # The supernode said so: the peer did not wait in vain for the size first.
    peers[0].process.wait_for_line("read_refused .*answered 404")


def test_a_limit_in_mid_blob_is_obeyed_by_all_and_one_asks_again(
    peers: list[Peer], origin: ProxyControl, push: Callable[[int], str]
) -> None:
    digest, other = push(SIZE_BYTES), push(SIZE_BYTES)
    # Longer than a fetch waits for by itself.
    retry_after_s = RetrySettings().retry_after_max_s + 2.0
    limited = (("Retry-After", str(round(retry_after_s))),)
    origin.add_fault(Fault(path_contains=digest, method="GET", cut_after_bytes=2 * MIB, times=1))
    origin.add_fault(Fault(path_contains=digest, method="GET", status=429, headers=limited, times=1))
    pulls = [start_pull(peer.proxy, digest) for peer in peers]
    wait_until(lambda: len(origin.ledger().of_blob(digest)) >= 2, "the limit")
    # No business of another blob's.
    assert pull(peers[0].proxy, other).sha256 == other
    for running in pulls:
        with running:
            answer = running.result()
            assert (answer.complete, answer.sha256) == (True, digest)
    _, refused, answered = origin.ledger().of_blob(digest)
    assert answered.started_s - refused.ended_s >= retry_after_s
    # Of the piece that had begun.
    begun_bytes = 2 * MIB % stored_layout(peers[0].data_dir, digest).piece_size_bytes
    assert origin.ledger().repeated_bytes(digest) == begun_bytes
