"""A directory as an upstream: both forms pass the suite of origins, and nothing else can be reached through it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from multidict import CIMultiDict

from peer.registry.base import ANYONE, NODE
from peer.registry.directory import check, media_type_of
from peer.registry.origins import Origins
from peer.store.disk import DiskStore
from peer.transport.cancellation import Cancellation
from proto.errors import RemoteError, UpstreamError, UpstreamKind
from proto.ids import Digest
from proto.oci.routes import parse_request
from proto.oci.upstreams import UpstreamConfig, UpstreamTable
from proto.pieces import PieceLayout
from proto.wire.messages import Source
from supernode.origin.sources import OriginFetcher
from tests.conformance.origin_suite import EMPTY, HOST, REPOSITORY, TAG, OriginSuite, answered, image_in, refused
from tests.support.registry_storage import RegistryStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.cluster.image import Image


def directory(place: Path) -> UpstreamConfig:
    return UpstreamConfig(HOST, "", configured=True, kind="directory", place=str(place))


def origins_of(place: Path) -> Origins:
    table = UpstreamTable.build(sections=[directory(place)])
    return Origins(lambda: table)


class TestImageLayout(OriginSuite):
    @pytest.fixture
    def upstream(self, image: Image) -> UpstreamConfig:
        return directory(image.layout)


class TestRegistryStorage(OriginSuite):
    @pytest.fixture
    def upstream(self, image: Image, tmp_path: Path) -> UpstreamConfig:
        storage = RegistryStorage(tmp_path)
        storage.add(image, REPOSITORY, TAG)
        storage.add_blob(REPOSITORY, EMPTY, image.layout / "blobs" / "sha256" / EMPTY.hex)
        return directory(tmp_path)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return image_in(tmp_path_factory.mktemp("layout"))


@pytest.fixture
def storage(image: Image, tmp_path: Path) -> RegistryStorage:
    storage = RegistryStorage(tmp_path / "storage")
    storage.add(image, REPOSITORY, TAG)
    return storage


@pytest.fixture
def layout(image: Image, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(image.layout, tmp_path / "layout"))


def size(place: Path, digest: Digest, repository: str = REPOSITORY) -> int | None:
    return origins_of(place).at(HOST).stat(repository, digest, ANYONE, Cancellation())


def refusal(place: Path, digest: Digest, repository: str = REPOSITORY) -> UpstreamError:
    return refused(lambda: size(place, digest, repository))


# --- what belongs to a repository ------------------------------------------------------------------------------------


def test_a_blob_belongs_to_the_repositories_that_link_it(storage: RegistryStorage, image: Image) -> None:
    digest = Digest.parse(image.layers[0].digest)
    assert refusal(storage.root, digest, "other/app").kind is UpstreamKind.UNKNOWN
    storage.link(f"other/app/_layers/sha256/{digest.hex}", str(digest))
    assert size(storage.root, digest, "other/app") == image.layers[0].size_bytes


def test_a_manifest_that_was_deleted_is_gone_by_tag_and_digest(storage: RegistryStorage, image: Image) -> None:
    shutil.rmtree(storage.v2 / "repositories" / REPOSITORY / "_manifests" / "revisions")
    for reference in (TAG, image.top.digest):
        assert answered(origins_of(storage.root), "GET", f"/v2/{REPOSITORY}/manifests/{reference}").status == 404


def test_a_blob_whose_bytes_were_collected_is_gone(storage: RegistryStorage, image: Image) -> None:
    digest = Digest.parse(image.layers[0].digest)
    storage.data(digest).unlink()
    assert refusal(storage.root, digest).kind is UpstreamKind.UNKNOWN


def test_a_link_may_name_the_same_bytes_by_another_algorithm(storage: RegistryStorage, image: Image) -> None:
    content = image.layers[0].path.read_bytes()
    digest = Digest.of(content, "sha512")
    storage.link(f"{REPOSITORY}/_layers/sha512/{digest.hex}", image.layers[0].digest)
    assert size(storage.root, digest) == len(content)


def test_what_is_pushed_while_it_is_read_is_there(storage: RegistryStorage, image: Image) -> None:
    origins = origins_of(storage.root)
    assert answered(origins, "GET", f"/v2/{REPOSITORY}/manifests/next").status == 404
    storage.tag(REPOSITORY, "next", Digest.parse(image.manifest.digest))
    assert answered(origins, "GET", f"/v2/{REPOSITORY}/manifests/next").body == image.manifest.path.read_bytes()


def name_in_index(layout: Path, *names: str) -> None:
    index = json.loads((layout / "index.json").read_text())
    entry = index["manifests"][0]
    index["manifests"] = [{**entry, "annotations": {"org.opencontainers.image.ref.name": name}} for name in names]
    (layout / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("repository", "tags"), [("org/app", ["1", "2", "3"]), ("other", ["1"]), ("library/alpine", ["1", "edge"])]
)
def test_a_layouts_tag_answers_everywhere_or_in_the_repository_that_it_names(
    layout: Path, repository: str, tags: list[str]
) -> None:
    name_in_index(layout, "1", "org/app:2", "registry.test:5000/org/app:3", "docker.io/library/alpine:edge")
    answer = answered(origins_of(layout), "GET", f"/v2/{repository}/tags/list")
    assert json.loads(answer.body)["tags"] == tags
    for tag in tags:
        assert answered(origins_of(layout), "HEAD", f"/v2/{repository}/manifests/{tag}").status == 200


# --- tags ------------------------------------------------------------------------------------------------------------


def test_tags_come_in_order_and_by_the_page(storage: RegistryStorage, image: Image) -> None:
    digest = Digest.parse(image.top.digest)
    for tag in ("b", "a", "d", "c"):
        storage.tag(REPOSITORY, tag, digest)
    origins = origins_of(storage.root)
    target, seen = f"/v2/{REPOSITORY}/tags/list?n=2", []
    while target:
        answer = answered(origins, "GET", target)
        seen.append(json.loads(answer.body)["tags"])
        target = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert seen == [["a", "b"], ["c", "d"], [TAG]]
    none = answered(origins, "GET", f"/v2/{REPOSITORY}/tags/list?n=0")
    assert (json.loads(none.body)["tags"], none.headers.get("Link")) == ([], None)


def test_the_tags_of_a_repository_that_is_not_there_are_unknown(storage: RegistryStorage) -> None:
    answer = answered(origins_of(storage.root), "GET", "/v2/no/such/tags/list")
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (404, "NAME_UNKNOWN")


# --- media types -----------------------------------------------------------------------------------------------------

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        ({"mediaType": "application/x+json", "layers": []}, "application/x+json"),
        ({"schemaVersion": 2, "config": {}, "layers": []}, OCI_MANIFEST),
        ({"schemaVersion": 2, "manifests": []}, OCI_INDEX),
        ({"schemaVersion": 1, "fsLayers": []}, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        ({"mediaType": "a/b\r\nX: y", "layers": []}, OCI_MANIFEST),
        ({"mediaType": OCI_INDEX, "layers": [], "manifests": []}, None),
        ({"mediaType": 7}, None),
        ([], None),
        ("layers", None),
    ],
)
def test_a_manifest_says_or_shows_what_it_is(document: object, media_type: str | None) -> None:
    assert media_type_of(json.dumps(document).encode()) == media_type


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08", b"[" * 100_000, b'{"layers": '])
def test_what_is_no_json_is_no_manifest(content: bytes) -> None:
    assert media_type_of(content) is None


def test_a_layer_is_not_given_as_a_manifest(image: Image) -> None:
    target = f"/v2/{REPOSITORY}/manifests/{image.layers[0].digest}"
    assert answered(origins_of(image.layout), "GET", target).status == 404


def test_a_manifest_that_was_changed_on_disk_is_not_given(layout: Path, image: Image) -> None:
    path = layout / "blobs" / "sha256" / Digest.parse(image.top.digest).hex
    path.write_bytes(path.read_bytes().replace(b"linux", b"Linux"))
    answer = answered(origins_of(layout), "GET", f"/v2/{REPOSITORY}/manifests/{TAG}")
    assert answer.status == 502
    assert b"does not match its digest" in answer.body


# --- nothing outside of it -------------------------------------------------------------------------------------------


def test_no_symbolic_link_below_it_is_followed(storage: RegistryStorage, image: Image, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"top secret")
    digest = Digest.parse(image.layers[0].digest)
    file = storage.data(digest)
    file.unlink()
    file.symlink_to(secret)
    error = refusal(storage.root, digest)
    assert error.kind is UpstreamKind.UNKNOWN
    assert "symbolic link" in str(error)
    folder = file.parent.rename(tmp_path / "elsewhere")
    (folder / "data").unlink()
    (folder / "data").write_bytes(b"top secret")
    file.parent.symlink_to(folder)
    assert refusal(storage.root, digest).kind is UpstreamKind.UNKNOWN


def test_links_and_index_can_name_nothing_outside(storage: RegistryStorage, layout: Path, image: Image) -> None:
    digest = Digest.parse(image.layers[0].digest)
    for content in ("sha256:../../../../etc/passwd", "../../..", "", "x" * 1000, "\xff\xfe"):
        storage.link(f"{REPOSITORY}/_layers/sha256/{digest.hex}", content)
        assert refusal(storage.root, digest).kind is UpstreamKind.CONTENT
    index = layout / "index.json"
    climbing = (
        '{"manifests": [{"digest": "sha256:../../x", "annotations": {"org.opencontainers.image.ref.name": "t"}}]}'
    )
    for text in (climbing, "[]", "{", '{"manifests": 3}'):
        index.write_text(text)
        assert answered(origins_of(layout), "GET", f"/v2/{REPOSITORY}/manifests/t").status == 502


@pytest.mark.parametrize(
    "target",
    [
        "/v2/../../etc/manifests/passwd",
        "/v2/%2e%2e/%2e%2e/etc/manifests/passwd",
        "/v2/a/manifests/..",
        "/v2/a/blobs/../x",
    ],
)
def test_paths_that_climb_are_no_names(target: str) -> None:
    with pytest.raises(RemoteError):
        parse_request(target, "", HOST)


def test_what_is_no_file_is_not_there(storage: RegistryStorage, image: Image) -> None:
    digest = Digest.parse(image.layers[0].digest)
    storage.data(digest).unlink()
    os.mkfifo(storage.data(digest))
    assert refusal(storage.root, digest).kind is UpstreamKind.UNKNOWN
    storage.data(digest).unlink()
    storage.data(digest).mkdir()
    assert refusal(storage.root, digest).kind is UpstreamKind.UNKNOWN


def test_the_directory_itself_may_be_a_symbolic_link(image: Image, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(image.layout)
    assert size(tmp_path / "link", Digest.parse(image.layers[0].digest)) == image.layers[0].size_bytes


# --- trouble ---------------------------------------------------------------------------------------------------------


def test_a_directory_that_is_away_says_nothing_of_what_it_has(
    image: Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does the error name a path of this machine: clients and other nodes read it. The log does."""
    digest = Digest.parse(image.layers[0].digest)
    away = tmp_path / "share"
    error = refusal(away, digest)
    assert error.kind is UpstreamKind.UNAVAILABLE
    assert str(away) not in str(error)
    assert str(away) in caplog.text
    away.mkdir()
    assert refusal(away, digest).kind is UpstreamKind.UNAVAILABLE


def test_a_file_that_becomes_shorter_while_it_is_read_is_an_error(layout: Path, image: Image) -> None:
    digest = Digest.parse(image.layers[1].digest)
    origin = origins_of(layout).at(HOST)
    with origin.open_range(REPOSITORY, digest, 0, None, NODE, Cancellation()) as body:
        os.truncate(layout / "blobs" / "sha256" / digest.hex, 100)
        buffer = memoryview(bytearray(1000))
        assert body.readinto(buffer) == 100
        assert refused(lambda: body.readinto(buffer)).kind is UpstreamKind.UNAVAILABLE


def test_a_stores_copy_is_made_by_the_kernel_and_is_its_own(
    layout: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No link: what is written to the folder later changes nothing that was checked."""
    copied: list[int] = []
    real = os.copy_file_range

    def copy_file_range(source: int, target: int, count: int, at: int, to: int) -> int:
        copied.append(count)
        return real(source, target, count, at, to)

    monkeypatch.setattr(os, "copy_file_range", copy_file_range)
    blob = image.layers[-1]
    digest = Digest.parse(blob.digest)
    file = layout / "blobs" / "sha256" / digest.hex
    store = DiskStore(tmp_path / "store", size_limit_bytes=1 << 30, free_floor_bytes=0)
    handle = store.open(digest, PieceLayout.of(blob.size_bytes))
    OriginFetcher(origins_of(layout)).fetch(
        handle, (Source(HOST, REPOSITORY),), handle.layout.full_mask, lambda piece, _: None, Cancellation()
    )
    assert handle.check_digest()
    assert sum(copied) == blob.size_bytes
    assert os.stat(file).st_nlink == 1
    content = file.read_bytes()
    file.write_bytes(bytes(len(content)))
    assert os.pread(handle.fileno(), len(content), 0) == content
    handle.close()
    store.close()


def test_what_an_operator_named_wrongly_is_told_with_what_is_right(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for place, why in ((tmp_path / "none", "No such file"), (file, "Not a directory"), (tmp_path, "expected")):
        with pytest.raises(ValueError, match=why) as caught:
            check(str(place))
        assert "rootdirectory" in str(caught.value)
        assert "OCI layout" in str(caught.value)


def test_a_directory_that_may_not_be_read_is_told_with_who_needs_the_right(
    storage: RegistryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root reads everything: the kernel's refusal is made up."""

    def refuse(*_: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(ValueError, match=f"Permission denied; give user {os.geteuid()} the right to read it"):
        check(str(storage.root))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda layout: (layout / "index.json").unlink(), "index.json is not there"),
        (lambda layout: (layout / "index.json").write_text("{"), "index.json is no index"),
        (lambda layout: shutil.rmtree(layout / "blobs"), "blobs is not there"),
    ],
)
def test_half_a_layout_is_told_with_what_it_lacks(layout: Path, spoil: Callable[[Path], object], why: str) -> None:
    spoil(layout)
    with pytest.raises(ValueError, match=why):
        check(str(layout))


def test_a_storage_and_a_layout_are_right(storage: RegistryStorage, layout: Path) -> None:
    check(str(storage.root))
    check(str(layout))


def test_a_folder_is_only_read(image: Image) -> None:
    with contextlib.closing(origins_of(image.layout)) as origins:
        request = parse_request(f"/v2/{REPOSITORY}/manifests/{TAG}", "", HOST)
        answer = origins.at(HOST).write("DELETE", request, CIMultiDict(), None, Cancellation())
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (405, "UNSUPPORTED")
