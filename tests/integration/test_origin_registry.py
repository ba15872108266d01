"""The origin client against Debian's docker-registry: every byte is asked for once, with tokens and TLS too."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.image import Image, make_random_image
from benchmarks.cluster.registry import Registry
from peer.registry.origins import Origins
from peer.store.disk import DiskStore
from peer.transport.cancellation import Cancellation
from proto.errors import UpstreamError, UpstreamKind
from proto.ids import Digest
from proto.oci.upstreams import UpstreamConfig, UpstreamTable
from proto.pieces import MIB, PieceLayout
from proto.wire.messages import Source
from supernode.origin.byte_ranges import WindowSettings
from supernode.origin.sources import OriginFetcher
from tests.support.passwords import PASSWORD, USER, basic_authorization, password_auth
from tests.support.tls import Authority
from tests.support.tokens import TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.client("docker-registry")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return make_random_image(tmp_path_factory.mktemp("image"), [500, 70_000, 40_000_000], seed=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    opened = DiskStore(tmp_path / "store", size_limit_bytes=1 << 40, free_floor_bytes=0)
    yield opened
    opened.close()


class Origin:
    """The origin client for one upstream; a context manager."""

    def __init__(self, upstream: UpstreamConfig, windows: WindowSettings | None = None) -> None:
        self.host = upstream.host
        table = UpstreamTable.build(sections=[upstream])
        self.requests: list[str] = []
        self._origins = Origins(lambda: table, on_request=self.requests.append)
        self.registry = OriginFetcher(self._origins, windows=windows)

    def __enter__(self) -> Origin:
        return self

    def __exit__(self, *_: object) -> None:
        self._origins.close()

    def bring(self, store: DiskStore, repository: str, digest: Digest) -> bool:
        """Do what the supernode does for a blob; whether its digest matches."""
        source = Source(self.host, repository)
        size_bytes = self.registry.public_size(source, digest, Cancellation())
        assert size_bytes is not None
        layout = PieceLayout.of(size_bytes)
        handle = store.open(digest, layout)
        try:
            told: list[int] = []
            lock = threading.Lock()

            def on_piece(piece: int, piece_hash: bytes) -> None:
                with lock:
                    told.append(piece)

            self.registry.fetch(handle, (source,), layout.full_mask, on_piece, Cancellation())
            assert sorted(told) == list(range(layout.count))
            return handle.check_digest()
        finally:
            handle.close()


def plain(address: str) -> UpstreamConfig:
    return UpstreamConfig(address, f"http://{address}", configured=True)


def test_every_blob_of_an_image_leaves_the_registry_once(tmp_path: Path, store: DiskStore, image: Image) -> None:
    with Registry(tmp_path / "registry") as registry, CountingProxy(registry.host_port) as proxy:
        registry.push(image, "org/app")
        with Origin(plain(proxy.address)) as origin:
            for blob in image.blobs:
                assert origin.bring(store, "org/app", Digest.parse(blob.digest))
        ledger = proxy.ledger()
        for blob in image.blobs:
            assert ledger.distinct_bytes(blob.digest) == blob.size_bytes
            assert ledger.blob_bytes(blob.digest) == blob.size_bytes
        assert [ledger.gets(layer.digest) for layer in image.layers] == [1, 1, 2]


def test_parallel_ranges_ask_for_no_byte_twice(tmp_path: Path, store: DiskStore, image: Image) -> None:
    windows = WindowSettings(
        first_bytes=4 * MIB, trial_bytes=MIB, align_bytes=MIB, measure_bytes=MIB, measure_s=0.01, gain_min=0.0
    )
    blob = image.layers[-1]
    with Registry(tmp_path / "registry") as registry, CountingProxy(registry.host_port) as proxy:
        registry.push(image, "org/app")
        with Origin(plain(proxy.address), windows) as origin:
            assert origin.bring(store, "org/app", Digest.parse(blob.digest))
        ledger = proxy.ledger()
    assert len({exchange.client for exchange in ledger.of_blob(blob.digest)}) > 1
    assert ledger.repeated_bytes(blob.digest) == 0
    assert ledger.blob_bytes(blob.digest) == blob.size_bytes
    ends = sorted((first, last) for first, last in (asked for asked in ledger.ranges(blob.digest) if asked))
    assert [first for first, _ in ends] == [0, *(last + 1 for _, last in ends[:-1] if last is not None)]


def test_an_anonymous_token_opens_public_repositories_alone(tmp_path: Path, store: DiskStore, image: Image) -> None:
    signer = Authority(tmp_path).issue(["token.test"])
    with (
        TokenServer(signer, {USER: PASSWORD}, {"public/app"}) as tokens,
        Registry(tmp_path / "registry", auth=tokens.registry_auth()) as registry,
        Origin(dataclasses.replace(plain(registry.address), redirect_hosts=(tokens.address,))) as origin,
    ):
        for repository in ("public/app", "private/app"):
            writer = tokens.token(USER, [f"repository:{repository}:pull,push"])
            registry.push(image, repository, headers={"Authorization": f"Bearer {writer}"})
        tokens.requests.clear()
        digest = Digest.parse(image.layers[1].digest)
        assert origin.bring(store, "public/app", digest)
        with pytest.raises(UpstreamError) as caught:
            origin.bring(store, "private/app", digest)
        assert caught.value.kind is UpstreamKind.DENIED
        assert {request.user for request in tokens.requests} == {""}


def test_a_registry_with_a_password_gives_nothing_to_anyone(tmp_path: Path, store: DiskStore, image: Image) -> None:
    root = tmp_path / "registry"
    with Registry(root, auth=password_auth(root)) as registry, Origin(plain(registry.address)) as origin:
        registry.push(image, "org/app", headers=basic_authorization())
        with pytest.raises(UpstreamError) as caught:
            origin.bring(store, "org/app", Digest.parse(image.layers[0].digest))
        assert caught.value.kind is UpstreamKind.DENIED


def test_tls_is_verified_against_the_upstreams_own_authority(tmp_path: Path, store: DiskStore, image: Image) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue(["127.0.0.1"])
    digest = Digest.parse(image.layers[1].digest)
    with (
        Registry(tmp_path / "registry") as registry,
        CountingProxy(registry.host_port, tls=pair.server_context()) as proxy,
    ):
        registry.push(image, "org/app")
        upstream = UpstreamConfig(proxy.address, f"https://{proxy.address}", configured=True)
        with Origin(upstream) as distrusting, pytest.raises(UpstreamError) as caught:
            distrusting.bring(store, "org/app", digest)
        assert caught.value.kind is UpstreamKind.UNAVAILABLE
        with Origin(dataclasses.replace(upstream, ca_file=authority.certificate_file)) as origin:
            assert origin.bring(store, "org/app", digest)
            assert origin.requests == ["HEAD", "GET"]
