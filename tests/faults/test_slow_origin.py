"""One origin's trouble is its own: registries that trickle, limit, scan before they send, or contradict themselves."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.services import LOOPBACK, Cluster, Peer
from tests.support.blobs import some_blob
from tests.support.fake_origin import FakeOrigin, Fault, fake_origin
from tests.support.pullers import Pull, blob_target, get, pull

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
SIZE_BYTES = MIB
LIMITED = Fault(status=429, headers={"Retry-After": "600", "RateLimit-Limit": "7"})


@pytest.fixture
def origin() -> Iterator[FakeOrigin]:
    with fake_origin() as origin:
        yield origin


@pytest.fixture
def stuck() -> Iterator[FakeOrigin]:
    """Another registry."""
    with fake_origin() as origin:
        yield origin


@contextlib.contextmanager
def peers_of(folder: Path, origin: FakeOrigin, *flags: str, count: int = 1) -> Iterator[list[Peer]]:
    with Cluster(folder, origin.authority, supernode_flags=flags, peer_flags=flags) as cluster:
        peers = cluster.add_peers([None] * count)
        cluster.wait_for_sessions(count)
        yield peers


@contextlib.contextmanager
def peer_alone(folder: Path, origin: FakeOrigin, *flags: str) -> Iterator[Peer]:
    """Without a supernode."""
    own = ["--default-upstream", origin.url, "--insecure-upstream", origin.authority]
    peer = Peer("alone", folder, [], LOOPBACK, LOOPBACK, [*own, *flags])
    try:
        peer.start()
        yield peer
    finally:
        peer.close()


def some(origin: FakeOrigin, size_bytes: int = SIZE_BYTES) -> str:
    """Another blob that the registry has from now on."""
    return str(origin.add(some_blob(size_bytes, seed=origin.port << 16 | len(origin.blobs)).content))


def of_stuck(stuck: FakeOrigin, count: int) -> list[str]:
    """Targets of blobs that trickle."""
    stuck.always["GET"] = Fault(trickle_s=3.0)
    return [f"{blob_target(some(stuck))}?ns={stuck.authority}" for _ in range(count)]


def assert_shared(peer: Peer, count: int = 1) -> None:
    """So many blobs came into the peer's store, and not past it to one client."""
    wait_until(lambda: sum(peer.received_bytes(source) for source in ("seed", "peer", "origin")) >= count * SIZE_BYTES)


def assert_pulled(proxy: str, digest: str) -> None:
    answer = pull(proxy, digest)
    assert answer.complete, answer
    assert answer.sha256 == digest


def test_a_registry_that_trickles_keeps_no_other_registrys_pull_waiting(
    tmp_path: Path, origin: FakeOrigin, stuck: FakeOrigin
) -> None:
    with peers_of(tmp_path, origin, "--insecure-upstream", stuck.authority) as [peer], contextlib.ExitStack() as pulls:
        for target in of_stuck(stuck, 20):
            pulls.enter_context(Pull(peer.proxy, target))
        assert_pulled(peer.proxy, some(origin))
        assert_shared(peer)


def test_the_same_in_a_peer_that_works_alone(tmp_path: Path, origin: FakeOrigin, stuck: FakeOrigin) -> None:
    with peer_alone(tmp_path, origin, "--insecure-upstream", stuck.authority) as peer, contextlib.ExitStack() as pulls:
        for target in of_stuck(stuck, 6):
            pulls.enter_context(Pull(peer.proxy, target))
        assert_pulled(peer.proxy, some(origin))
        assert_shared(peer)


@pytest.mark.parametrize("head", [Fault(delay_s=8.0), LIMITED])
def test_checks_at_a_registry_in_trouble_keep_no_others_waiting(
    tmp_path: Path, origin: FakeOrigin, stuck: FakeOrigin, head: Fault
) -> None:
    stuck.always["HEAD"] = head
    with peers_of(tmp_path, origin, "--insecure-upstream", stuck.authority) as [peer], contextlib.ExitStack() as pulls:
        for target in of_stuck(stuck, 96):
            pulls.enter_context(Pull(peer.proxy, target))
        assert_pulled(peer.proxy, some(origin))
        assert_shared(peer)


def test_checks_that_stand_still_keep_no_blob_of_another_registry_waiting_in_the_same_peer(
    tmp_path: Path, origin: FakeOrigin, stuck: FakeOrigin
) -> None:
    stuck.always["HEAD"] = Fault(delay_s=30.0)
    with peers_of(tmp_path, origin, "--insecure-upstream", stuck.authority) as [peer], contextlib.ExitStack() as pulls:
        waiting = [pulls.enter_context(Pull(peer.proxy, target)) for target in of_stuck(stuck, 96)]
        wait_until(lambda: len(stuck.blob_requests("HEAD")) >= 16)
        assert_pulled(peer.proxy, some(origin))
        assert all(pull.running for pull in waiting)
        assert_shared(peer)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_blob_that_is_limited_is_asked_for_once_and_every_client_hears_so(
    tmp_path: Path, origin: FakeOrigin, method: str
) -> None:
    limited, other = some(origin), some(origin)
    with peers_of(tmp_path, origin, count=4) as peers:
        origin.always[method] = LIMITED
        for running in [Pull(peer.proxy, blob_target(limited)) for peer in peers for _ in range(2)]:
            with running:
                answer = running.result()
                assert answer.status == 429
                assert 0 < int(answer.headers["retry-after"]) <= 600
        # other blobs of that registry do not wait for it
        origin.always.clear()
        assert_pulled(peers[0].proxy, other)
        assert get(peers[0].proxy, blob_target(limited)).status == 429
        # a client with a limit of its own is asked for
        assert get(peers[0].proxy, blob_target(limited), headers={"Authorization": "Bearer mine"}).complete
    anonymous = [asked for asked in origin.asked if limited in asked.target and "authorization" not in asked.headers]
    assert len([asked for asked in anonymous if asked.method == method]) == 1


def test_origins_that_take_their_time_are_waited_for_with_one_request_each(
    tmp_path: Path, origin: FakeOrigin, stuck: FakeOrigin
) -> None:
    """Both at once, since one waits for each."""
    origin.always = {"GET": Fault(delay_s=12.0)}
    stuck.always = {"HEAD": Fault(delay_s=9.0), "GET": Fault(delay_s=9.0)}
    with peers_of(tmp_path, origin, "--insecure-upstream", stuck.authority, count=2) as peers:
        digests = {some(each): each for each in (origin, stuck)}
        targets = [f"{blob_target(digest)}?ns={each.authority}" for digest, each in digests.items()]
        pulls = [Pull(peer.proxy, target) for target in targets for peer in peers]
        for number, running in enumerate(pulls):
            with running:
                assert running.result().sha256 == list(digests)[number // len(peers)]
        assert_shared(peers[0], 2)
    assert [len(each.blob_requests("GET")) for each in (origin, stuck)] == [1, 1]


def test_a_blob_that_a_head_gives_and_a_get_refuses_is_refused_in_the_origins_words(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    digest = some(origin)
    origin.always["GET"] = Fault(status=403, headers={"X-Reason": "scanned"})
    with peers_of(tmp_path, origin) as [peer]:
        answer = get(peer.proxy, blob_target(digest))
        assert (answer.status, answer.headers["x-reason"]) == (403, "scanned")
        origin.always.clear()
        assert_pulled(peer.proxy, digest)


def test_a_size_that_a_head_got_wrong_is_corrected_by_the_get(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = some(origin)
    origin.faults = [Fault(content_length=SIZE_BYTES + 5)]
    with peers_of(tmp_path, origin) as [peer]:
        assert_pulled(peer.proxy, digest)
        assert_shared(peer)


def test_a_blob_that_became_private_is_given_no_longer_than_the_operator_says(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    digest = some(origin)
    with peers_of(tmp_path, origin, "--permission-ttl", "0s", count=2) as [first, second]:
        assert_pulled(first.proxy, digest)
        origin.token = "for members"
        origin.challenge = 'Basic realm="members"'
        for peer in (first, second):
            assert get(peer.proxy, blob_target(digest)).status == 401
