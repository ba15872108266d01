"""What every kind of origin must do: derive OriginSuite and give it a fixture `upstream`.

The upstream has the image of the fixture `image` as REPOSITORY:TAG, and the empty blob there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from multidict import CIMultiDict

from benchmarks.cluster.image import Image, make_random_image
from benchmarks.cluster.processes import WAIT_S
from peer.registry.base import ANYONE, NODE
from peer.registry.origins import Origins
from peer.transport.cancellation import Cancellation, FetchCancelled
from proto.errors import UpstreamError, UpstreamKind
from proto.ids import Digest
from proto.oci.registry_errors import refusal_for
from proto.oci.routes import parse_request
from proto.oci.upstreams import UpstreamTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from peer.registry.base import BlobBody, Origin
    from proto.oci.upstreams import UpstreamConfig

HOST = "origin.test"
REPOSITORY = "org/app"
TAG = "v1.0"
EMPTY = Digest.of(b"")
NOWHERE = Digest.of(b"nobody has this")
ACCEPTED = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


def image_in(folder: Path) -> Image:
    """An image with an index, and the empty blob beside it, as an OCI layout."""
    image = make_random_image(folder, [500, 70_000, 900_000], seed=5, with_index=True, ref_name=TAG)
    (folder / "blobs" / "sha256" / EMPTY.hex).write_bytes(b"")
    return image


@dataclass(frozen=True)
class Answered:
    """An answer of `manifest`, read to its end; a refusal of ours in the words that clients get."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def answered(origins: Origins, method: str, target: str) -> Answered:
    """What this request gets of the upstream."""
    path, _, query = target.partition("?")
    request = parse_request(path, query, HOST)

    async def ask() -> Answered:
        headers = CIMultiDict(("Accept", media_type) for media_type in ACCEPTED)
        try:
            answer = await origins.at(HOST).manifest(method, request, headers)
            return Answered(answer.status, answer.headers, answer.body)
        except UpstreamError as error:
            refusal = refusal_for(error, request.route)
            return Answered(refusal.status, refusal.headers, b"" if method == "HEAD" else refusal.body)

    return asyncio.run(ask())


def read_all(body: BlobBody) -> bytes:
    received, buffer = bytearray(), memoryview(bytearray(30_000))
    with body:
        while count := body.readinto(buffer):
            received += buffer[:count]
            assert body.position == body.start + len(received)
    return bytes(received)


def refused(call: Callable[[], object]) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        call()
    return caught.value


class OriginSuite:
    """Blobs in threads, manifests on the loop, and refusals of each kind."""

    @pytest.fixture(scope="class")
    @classmethod
    def image(cls, tmp_path_factory: pytest.TempPathFactory) -> Image:
        return image_in(tmp_path_factory.mktemp("layout"))

    @pytest.fixture
    def origins(self, upstream: UpstreamConfig) -> Iterator[Origins]:
        table = UpstreamTable.build(sections=[upstream])
        with contextlib.closing(Origins(lambda: table)) as origins:
            yield origins

    @pytest.fixture
    def origin(self, origins: Origins) -> Origin:
        return origins.at(HOST)

    # --- blobs -------------------------------------------------------------------------------------------------

    def test_it_has_the_name_of_its_upstream(self, origin: Origin) -> None:
        assert origin.host == HOST

    def test_it_tells_the_size_of_a_blob_to_anyone(self, origin: Origin, image: Image) -> None:
        for blob in image.blobs:
            assert origin.stat(REPOSITORY, Digest.parse(blob.digest), ANYONE, Cancellation()) == blob.size_bytes
        assert origin.stat(REPOSITORY, EMPTY, ANYONE, Cancellation()) == 0

    def test_it_gives_a_whole_blob(self, origin: Origin, image: Image) -> None:
        for blob in image.blobs:
            body = origin.open_range(REPOSITORY, Digest.parse(blob.digest), 0, None, NODE, Cancellation())
            assert (body.is_range, body.start, body.end, body.size_bytes) == (
                False,
                0,
                blob.size_bytes,
                blob.size_bytes,
            )
            assert read_all(body) == blob.path.read_bytes()

    @pytest.mark.parametrize(("start", "end"), [(0, 1), (1, 300_000), (700_000, None), (65_536, 65_537)])
    def test_it_gives_any_range(self, origin: Origin, image: Image, start: int, end: int | None) -> None:
        blob = image.layers[-1]
        body = origin.open_range(REPOSITORY, Digest.parse(blob.digest), start, end, NODE, Cancellation())
        assert body.is_range
        assert (body.start, body.end, body.size_bytes) == (start, end or blob.size_bytes, blob.size_bytes)
        assert read_all(body) == blob.path.read_bytes()[start:end]

    def test_a_range_that_leads_beyond_the_end_stops_there(self, origin: Origin, image: Image) -> None:
        blob = image.layers[0]
        body = origin.open_range(REPOSITORY, Digest.parse(blob.digest), 10, 1 << 40, NODE, Cancellation())
        assert read_all(body) == blob.path.read_bytes()[10:]

    def test_where_the_blob_has_no_byte_it_says_so(self, origin: Origin, image: Image) -> None:
        blob = image.layers[0]
        digest = Digest.parse(blob.digest)
        error = refused(lambda: origin.open_range(REPOSITORY, digest, blob.size_bytes, None, NODE, Cancellation()))
        assert (error.kind, error.status) == (UpstreamKind.CONTENT, 416)

    @pytest.mark.parametrize("end", [None, 1000])
    def test_an_empty_blob_has_an_empty_body(self, origin: Origin, end: int | None) -> None:
        body = origin.open_range(REPOSITORY, EMPTY, 0, end, NODE, Cancellation())
        assert body.size_bytes == 0
        assert read_all(body) == b""

    def test_a_body_may_be_closed_before_its_end_and_more_than_once(self, origin: Origin, image: Image) -> None:
        blob = image.layers[-1]
        for _ in range(3):
            body = origin.open_range(REPOSITORY, Digest.parse(blob.digest), 5, None, NODE, Cancellation())
            assert body.readinto(memoryview(bytearray(10))) > 0
            body.close()
            body.close()

    def test_a_blob_that_it_does_not_have_is_unknown(self, origin: Origin) -> None:
        for call in (
            lambda: origin.stat(REPOSITORY, NOWHERE, ANYONE, Cancellation()),
            lambda: origin.open_range(REPOSITORY, NOWHERE, 0, None, NODE, Cancellation()),
        ):
            error = refused(call)
            assert (error.kind, error.status) == (UpstreamKind.UNKNOWN, 404)

    def test_many_threads_read_at_once(self, origin: Origin, image: Image) -> None:
        blob = image.layers[-1]
        start_together = threading.Barrier(4)

        def read(_: int) -> bytes:
            start_together.wait(WAIT_S)
            return read_all(origin.open_range(REPOSITORY, Digest.parse(blob.digest), 0, None, NODE, Cancellation()))

        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(read, range(4))) == {blob.path.read_bytes()}

    def test_what_is_cancelled_begins_nothing_and_reads_no_further(self, origin: Origin, image: Image) -> None:
        digest = Digest.parse(image.layers[-1].digest)
        cancel = Cancellation()
        with origin.open_range(REPOSITORY, digest, 0, None, NODE, cancel) as body:
            cancel.cancel()
            with pytest.raises(FetchCancelled):
                body.readinto(memoryview(bytearray(10)))
        with pytest.raises(FetchCancelled):
            origin.open_range(REPOSITORY, digest, 0, None, NODE, cancel)
        with pytest.raises(FetchCancelled):
            origin.stat(REPOSITORY, digest, ANYONE, cancel)

    # --- manifests -----------------------------------------------------------------------------------------------

    def test_it_is_a_registry(self, origins: Origins) -> None:
        answer = answered(origins, "GET", "/v2/")
        assert (answer.status, answer.body) == (200, b"{}")

    @pytest.mark.parametrize("by_digest", [False, True])
    def test_a_manifest_comes_byte_for_byte_with_its_type_and_digest(
        self, origins: Origins, image: Image, by_digest: bool
    ) -> None:
        reference = image.top.digest if by_digest else TAG
        answer = answered(origins, "GET", f"/v2/{REPOSITORY}/manifests/{reference}")
        assert answer.status == 200
        assert answer.body == image.top.path.read_bytes()
        assert answer.headers["Content-Type"] == image.top.media_type
        assert answer.headers["Docker-Content-Digest"] == image.top.digest
        assert answer.headers["Content-Length"] == str(image.top.size_bytes)

    def test_the_manifest_of_an_index_comes_by_its_digest(self, origins: Origins, image: Image) -> None:
        answer = answered(origins, "GET", f"/v2/{REPOSITORY}/manifests/{image.manifest.digest}")
        assert answer.body == image.manifest.path.read_bytes()
        assert answer.headers["Content-Type"] == image.manifest.media_type

    def test_a_manifest_is_read_as_a_blob_is(self, origin: Origin, image: Image) -> None:
        for each in (image.top, image.manifest):
            digest = Digest.parse(each.digest)
            assert origin.stat(REPOSITORY, digest, ANYONE, Cancellation(), manifest=True) == each.size_bytes
            body = origin.open_range(REPOSITORY, digest, 0, None, NODE, Cancellation(), manifest=True)
            assert read_all(body) == each.path.read_bytes()

    def test_a_manifest_that_it_does_not_have_is_unknown(self, origin: Origin) -> None:
        error = refused(lambda: origin.stat(REPOSITORY, NOWHERE, ANYONE, Cancellation(), manifest=True))
        assert (error.kind, error.status) == (UpstreamKind.UNKNOWN, 404)

    def test_a_head_has_the_same_lines_and_no_body(self, origins: Origins, image: Image) -> None:
        blob = image.layers[1]
        for target, size_bytes in (
            (f"manifests/{TAG}", image.top.size_bytes),
            (f"blobs/{blob.digest}", blob.size_bytes),
        ):
            answer = answered(origins, "HEAD", f"/v2/{REPOSITORY}/{target}")
            assert (answer.status, answer.body) == (200, b"")
            assert answer.headers["Content-Length"] == str(size_bytes)
            assert answer.headers["Docker-Content-Digest"].startswith("sha256:")

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("target", [f"manifests/{NOWHERE}", "manifests/no-such-tag", f"blobs/{NOWHERE}"])
    def test_what_it_does_not_have_is_a_registrys_404(self, origins: Origins, method: str, target: str) -> None:
        answer = answered(origins, method, f"/v2/{REPOSITORY}/{target}")
        assert answer.status == 404
        if method == "GET":
            assert json.loads(answer.body)["errors"][0]["code"] in ("MANIFEST_UNKNOWN", "BLOB_UNKNOWN")

    def test_what_a_tag_names_is_its_manifest_whole(self, origins: Origins, image: Image) -> None:
        content = origins.at(HOST).tagged(REPOSITORY, TAG, ANYONE, Cancellation())
        assert str(Digest.of(content)) == image.top.digest

    def test_a_tag_that_is_not_there_is_unknown(self, origins: Origins) -> None:
        with pytest.raises(UpstreamError) as refused:
            origins.at(HOST).tagged(REPOSITORY, "no-such-tag", ANYONE, Cancellation())
        assert refused.value.kind is UpstreamKind.UNKNOWN

    def test_the_digest_of_a_tag_is_that_of_its_manifest(self, origins: Origins, image: Image) -> None:
        assert str(origins.at(HOST).tag_digest(REPOSITORY, TAG, ANYONE, Cancellation())) == image.top.digest
        with pytest.raises(UpstreamError) as refused:
            origins.at(HOST).tag_digest(REPOSITORY, "no-such-tag", ANYONE, Cancellation())
        assert refused.value.kind is UpstreamKind.UNKNOWN

    def test_it_tells_its_tags(self, origins: Origins) -> None:
        assert origins.at(HOST).tags(REPOSITORY, 10, ANYONE, Cancellation()) == [TAG]
        assert origins.at(HOST).tags(REPOSITORY, 0, ANYONE, Cancellation()) == []

    def test_it_lists_its_tags(self, origins: Origins) -> None:
        answer = answered(origins, "GET", f"/v2/{REPOSITORY}/tags/list")
        assert json.loads(answer.body) == {"name": REPOSITORY, "tags": [TAG]}
        assert answer.headers["Content-Type"].startswith("application/json")
