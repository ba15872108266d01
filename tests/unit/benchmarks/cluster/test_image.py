"""Images that the demo and the tests are built on: valid, of the sizes asked for, and the same every time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.image import Image, ImageBuildError, make_exact_image, make_file_image, make_random_image

if TYPE_CHECKING:
    from pathlib import Path


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_every_blob_has_the_digest_and_size_that_the_manifest_says(tmp_path: Path) -> None:
    image = make_random_image(tmp_path, [500, 100_000], seed=1)
    manifest = json.loads(image.manifest.path.read_text())
    for descriptor in (manifest["config"], *manifest["layers"]):
        data = (tmp_path / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
        assert digest_of(data) == descriptor["digest"]
        assert len(data) == descriptor["size"]


def test_diff_ids_are_the_digests_of_the_unpacked_layers(tmp_path: Path) -> None:
    image = make_random_image(tmp_path, [500, 100_000], seed=1)
    config = json.loads(image.config.path.read_text())
    unpacked = [digest_of(gzip.decompress(layer.path.read_bytes())) for layer in image.layers]
    assert config["rootfs"]["diff_ids"] == unpacked


@pytest.mark.parametrize("size_bytes", [500, 5_000, 65_535, 65_536, 1_000_000, 5 << 20])
def test_a_random_layer_has_about_the_size_asked_for(tmp_path: Path, size_bytes: int) -> None:
    (layer,) = make_random_image(tmp_path, [size_bytes], seed=3).layers
    assert abs(layer.size_bytes - size_bytes) <= min(1024, max(64, size_bytes // 100))


def test_a_layer_is_a_tar_that_unpacks(tmp_path: Path) -> None:
    (layer,) = make_random_image(tmp_path, [70_000], seed=3).layers
    with tarfile.open(fileobj=io.BytesIO(layer.path.read_bytes())) as tar:
        assert tar.getnames() == ["random/0.bin"]


def test_a_seed_gives_one_image_and_another_seed_another(tmp_path: Path) -> None:
    def build(name: str, seed: int) -> Image:
        return make_random_image(tmp_path / name, [500, 70_000], seed)

    first, again, other = build("first", 1), build("again", 1), build("other", 2)
    assert first.manifest.digest == again.manifest.digest
    assert {blob.digest for blob in first.layers}.isdisjoint(blob.digest for blob in other.layers)


def test_layers_of_equal_size_differ(tmp_path: Path) -> None:
    image = make_random_image(tmp_path, [70_000, 70_000], seed=1)
    assert image.layers[0].digest != image.layers[1].digest


def test_the_tag_names_the_index_where_there_is_one(tmp_path: Path) -> None:
    image = make_random_image(tmp_path, [500], seed=1, with_index=True, ref_name="v1")
    (named,) = json.loads((tmp_path / "index.json").read_text())["manifests"]
    (platform,) = json.loads(image.top.path.read_text())["manifests"]
    assert named["digest"] == image.top.digest
    assert platform["digest"] == image.manifest.digest


def test_a_file_image_reaches_its_size_with_few_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "only").write_bytes(bytes(range(256)) * 40)
    image = make_file_image(tmp_path / "image", 20_000, 3, roots=[source])
    assert image.size_bytes >= 20_000
    assert len({layer.digest for layer in image.layers}) == 3


def test_a_file_image_is_the_same_every_time(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("b", "a", "c"):
        (source / name).write_text(name * 1000)
    first = make_file_image(tmp_path / "first", 1_000, 2, roots=[source])
    again = make_file_image(tmp_path / "again", 1_000, 2, roots=[source])
    assert first.manifest.digest == again.manifest.digest


def test_a_machine_without_a_readable_file_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ImageBuildError, match="no readable file"):
        make_file_image(tmp_path / "image", 1_000, 1, roots=[empty])


def test_an_image_has_layers_of_exactly_the_asked_sizes_that_nothing_compresses(tmp_path: Path) -> None:
    image = make_exact_image(tmp_path / "a", [3_000_000, 1000], seed=5)
    assert [layer.size_bytes for layer in image.layers] == [3_000_000, 1000]
    for blob in image.blobs:
        assert blob.digest == digest_of(blob.path.read_bytes())
    assert [one["size"] for one in json.loads(image.manifest.path.read_text())["layers"]] == [3_000_000, 1000]
    assert make_exact_image(tmp_path / "b", [3_000_000, 1000], seed=5).manifest.digest == image.manifest.digest
    assert make_exact_image(tmp_path / "c", [3_000_000, 1000], seed=6).manifest.digest != image.manifest.digest
