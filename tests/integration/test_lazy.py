"""Lazy clients: ranges of a cold layer through real peers, with the origin's bytes counted.

The peers are the same for most tests, each of which has a layer of its own.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.image import make_random_image
from benchmarks.cluster.proxy_process import CountingProxyProcess
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from proto.pieces import PieceLayout, range_piece_size_for
from tests.support.passwords import PASSWORD, USER, basic_authorization, password_auth
from tests.support.pullers import REPOSITORY, blob_target, get
from tests.support.ranges import ask, read_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.cluster.services import Peer

pytestmark = pytest.mark.client("docker-registry")

SIZE_BYTES = 16 << 20
LAYOUT = PieceLayout(SIZE_BYTES, range_piece_size_for(SIZE_BYTES))
PIECE_BYTES = LAYOUT.piece_size_bytes
FOOTER = (SIZE_BYTES - 51, SIZE_BYTES)
RATE_BYTES_S = 8_000_000
NODES = 3


@pytest.fixture(scope="module")
def proxy(registry: Registry) -> Iterator[CountingProxyProcess]:
    with CountingProxyProcess(registry.host_port) as running:
        yield running


@pytest.fixture
def origin(proxy: CountingProxyProcess) -> Iterator[CountingProxyProcess]:
    """The registry as the peers see it, slow for one test alone."""
    yield proxy
    proxy.set_rate(None)


@pytest.fixture(scope="module")
def cluster(proxy: CountingProxyProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), proxy.address) as running:
        running.add_peers([None] * NODES)
        running.wait_for_sessions(NODES)
        yield running


@pytest.fixture
def blob(registry: Registry, request: pytest.FixtureRequest) -> tuple[str, bytes]:
    """A cold layer, each test's own, with its content."""
    content = random.Random(request.node.name).randbytes(SIZE_BYTES)
    with registry.writer() as writer:
        return writer.push_blob_bytes(REPOSITORY, content), content


def pieces_of(*ranges: tuple[int, int]) -> list[tuple[int, int]]:
    """The bytes of the pieces that these ranges are in."""
    mask = 0
    for start, end in ranges:
        mask |= LAYOUT.pieces_in(start, end)
    return LAYOUT.byte_ranges(mask)


def sent(origin: CountingProxyProcess, digest: str) -> list[tuple[int, int]]:
    """What left the origin, joined; an assertion fails where it sent a byte twice."""
    ledger = origin.ledger()
    assert ledger.repeated_bytes(digest) == 0
    joined: list[tuple[int, int]] = []
    for start, end in ledger.intervals(digest):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def test_the_footer_of_a_cold_layer_comes_before_all_else(
    cluster: Cluster, origin: CountingProxyProcess, blob: tuple[str, bytes]
) -> None:
    digest, content = blob
    peer = cluster.peers[0]
    origin.set_rate(RATE_BYTES_S)
    assert read_ranges(peer.proxy, digest, FOOTER) == [content[-51:]]
    assert sent(origin, digest) == pieces_of(FOOTER)


def test_several_ranges_in_one_request_bring_their_pieces_alone(
    cluster: Cluster, origin: CountingProxyProcess, blob: tuple[str, bytes]
) -> None:
    digest, content = blob
    peer = cluster.peers[0]
    ranges = [(10, 20), (5 * PIECE_BYTES - 9, 5 * PIECE_BYTES + 9), (9_000_000, 9_100_000), FOOTER]
    assert read_ranges(peer.proxy, digest, *ranges) == [content[start:end] for start, end in ranges]
    assert sent(origin, digest) == pieces_of(*ranges)
    # Again, from the store.
    assert read_ranges(peer.proxy, digest, *ranges) == [content[start:end] for start, end in ranges]
    assert sent(origin, digest) == pieces_of(*ranges)


def test_nodes_that_read_the_same_have_each_piece_from_the_origin_once(
    cluster: Cluster, origin: CountingProxyProcess, blob: tuple[str, bytes]
) -> None:
    digest, content = blob
    origin.set_rate(RATE_BYTES_S)
    rng = random.Random(3)
    starts = [rng.randrange(SIZE_BYTES - 64_000) for _ in range(16)]

    def reader(peer: Peer, own: list[int]) -> None:
        for start in own:
            assert read_ranges(peer.proxy, digest, (start, start + 64_000)) == [content[start : start + 64_000]]

    with ThreadPoolExecutor(NODES * 4) as readers:
        running = [readers.submit(reader, peer, starts[part::4]) for peer in cluster.peers for part in range(4)]
        for each in running:
            each.result()
    assert sent(origin, digest) == pieces_of(*((start, start + 64_000) for start in starts))


def test_what_was_read_survives_a_restart_and_becomes_the_whole(
    cluster: Cluster, origin: CountingProxyProcess, blob: tuple[str, bytes]
) -> None:
    digest, content = blob
    ranges = [(3_000_000, 3_200_000), FOOTER]
    with cluster.guest() as reader:
        assert read_ranges(reader.proxy, digest, *ranges) == [content[start:end] for start, end in ranges]
        reader.kill()
        reader.start()
        cluster.wait_for_sessions(len(cluster.peers))
        # It is no whole blob, for whoever asks for one.
        for peer in (reader, cluster.peers[0]):
            answer = get(peer.proxy, blob_target(digest))
            assert (answer.complete, answer.sha256) == (True, digest)
    assert sent(origin, digest) == [(0, SIZE_BYTES)]


def test_ranges_do_not_wait_for_a_pull_of_the_whole(
    cluster: Cluster, origin: CountingProxyProcess, blob: tuple[str, bytes]
) -> None:
    digest, content = blob
    reader, puller = cluster.peers[:2]
    # A piece takes it a second, and half of the blob far longer than any machine takes for two.
    origin.set_rate(PIECE_BYTES)
    with ThreadPoolExecutor(1) as pulls:
        pull = pulls.submit(get, puller.proxy, blob_target(digest))
        read_ranges(reader.proxy, digest, (0, 10))
        assert read_ranges(reader.proxy, digest, FOOTER) == [content[-51:]]
        assert not pull.done()
        assert origin.ledger().distinct_bytes(digest) < SIZE_BYTES // 2
        origin.set_rate(None)
        assert pull.result().sha256 == digest


def test_where_it_is_configured_the_rest_comes_too(
    cluster: Cluster, origin: CountingProxyProcess, blob: tuple[str, bytes]
) -> None:
    digest, content = blob
    with cluster.guest(extra=["--range-prefetch", "true"]) as peer:
        assert read_ranges(peer.proxy, digest, FOOTER) == [content[-51:]]
        answer = get(peer.proxy, blob_target(digest))
        assert answer.sha256 == digest
    assert origin.ledger().distinct_bytes(digest) == SIZE_BYTES


@pytest.mark.parametrize("login", [True, False])
def test_private_ranges_are_given_to_those_alone_whom_the_origin_allows(tmp_path: Path, *, login: bool) -> None:
    image = make_random_image(tmp_path / "image", (3_000_000,), seed=9)
    root = tmp_path / "registry"
    layer, start = image.layers[0], 1_000_000
    with Registry(root, auth=password_auth(root)) as registry, CountingProxy(registry.host_port) as origin:
        registry.push(image, "private/app", headers=basic_authorization())
        secret, config = tmp_path / "login", tmp_path / "supernode.toml"
        secret.write_text(f"{USER}:{PASSWORD}\n")
        section = f'[upstream."{origin.address}"]\nurl = "http://{origin.address}"\n'
        config.write_text(section + (f'credentials = "file:{secret}"\n' if login else ""))
        with Cluster(tmp_path, origin.address, supernode_flags=["--config", str(config)]) as cluster:
            peers = cluster.add_peers([None, None])
            cluster.wait_for_sessions(2)
            for peer in peers:
                found = read_ranges(
                    peer.proxy,
                    layer.digest,
                    (start, start + 9),
                    repository="private/app",
                    headers=basic_authorization(),
                )
                assert found == [layer.path.read_bytes()[start : start + 9]]
                assert ask(peer.proxy, layer.digest, (start, start + 9), repository="private/app")[0] == 401
            if login:
                assert origin.ledger().repeated_bytes(layer.digest) == 0
