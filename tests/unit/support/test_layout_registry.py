"""The embedded read-only registry answers as the distribution spec says."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.image import Image, make_random_image
from benchmarks.cluster.processes import WAIT_S
from tests.support.layout_registry import LayoutRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return make_random_image(tmp_path_factory.mktemp("layout"), [500, 100_000], seed=1)


@pytest.fixture
def connection(image: Image) -> Iterator[http.client.HTTPConnection]:
    with LayoutRegistry({"demo/app": image.layout}) as registry:
        connection = http.client.HTTPConnection(registry.address, timeout=WAIT_S)
        yield connection
        connection.close()


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, headers: dict[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection.request(method, path, headers=headers or {})
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def test_it_answers_the_ping(connection: http.client.HTTPConnection) -> None:
    status, headers, _ = ask(connection, "GET", "/v2/")
    assert (status, headers["Docker-Distribution-API-Version"]) == (200, "registry/2.0")


@pytest.mark.parametrize("by_tag", [True, False])
def test_a_manifest_is_served_byte_exact_with_its_type(
    connection: http.client.HTTPConnection, image: Image, by_tag: bool
) -> None:
    reference = "latest" if by_tag else image.manifest.digest
    status, headers, body = ask(connection, "GET", f"/v2/demo/app/manifests/{reference}")
    assert (status, body) == (200, image.manifest.path.read_bytes())
    assert headers["Content-Type"] == image.manifest.media_type
    assert headers["Docker-Content-Digest"] == image.manifest.digest


def test_a_head_has_the_real_length_and_no_body(connection: http.client.HTTPConnection, image: Image) -> None:
    layer = image.layers[1]
    status, headers, body = ask(connection, "HEAD", f"/v2/demo/app/blobs/{layer.digest}")
    assert (status, headers["Content-Length"], body) == (200, str(layer.size_bytes), b"")


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [("bytes=10-19", 10, 20), ("bytes=90000-", 90_000, None), ("bytes=-5", -5, None), ("bytes=5-999999", 5, None)],
)
def test_a_range_gives_that_part(
    connection: http.client.HTTPConnection, image: Image, asked: str, first: int, end: int | None
) -> None:
    layer = image.layers[1]
    whole = layer.path.read_bytes()
    status, headers, body = ask(connection, "GET", f"/v2/demo/app/blobs/{layer.digest}", {"Range": asked})
    assert (status, body) == (206, whole[first:end])
    start = first % len(whole)
    assert headers["Content-Range"] == f"bytes {start}-{start + len(body) - 1}/{len(whole)}"


def test_a_range_past_the_end_is_416_with_the_size(connection: http.client.HTTPConnection, image: Image) -> None:
    layer = image.layers[0]
    path = f"/v2/demo/app/blobs/{layer.digest}"
    status, headers, _ = ask(connection, "GET", path, {"Range": "bytes=600-"})
    assert (status, headers["Content-Range"]) == (416, f"bytes */{layer.size_bytes}")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/demo/app/manifests/none", 404, "MANIFEST_UNKNOWN"),
        ("/v2/other/manifests/latest", 404, "NAME_UNKNOWN"),
        ("/v2/demo/app/blobs/sha256:" + "0" * 64, 404, "BLOB_UNKNOWN"),
        ("/v2/demo/app/blobs/..", 400, "DIGEST_INVALID"),
    ],
)
def test_what_it_lacks_is_a_registry_error(
    connection: http.client.HTTPConnection, path: str, status: int, code: str
) -> None:
    answered, _, body = ask(connection, "GET", path)
    assert (answered, json.loads(body)["errors"][0]["code"]) == (status, code)


def test_it_lists_its_tags(connection: http.client.HTTPConnection) -> None:
    _, _, body = ask(connection, "GET", "/v2/demo/app/tags/list")
    assert json.loads(body) == {"name": "demo/app", "tags": ["latest"]}
