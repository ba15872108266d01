"""Builds real OCI images on disk, as OCI image layouts, for demos, benchmarks and tests.

`make_file_image` packs files of this machine (compressible, many small files, like a real image), `make_random_image`
packs incompressible bytes made from a seed, in layers of about the asked sizes. Both give an image that container
clients unpack: gzip tar layers and a config with diff_ids. `make_exact_image` has layers of exactly the asked sizes,
which no client can unpack. Nothing here talks to a network.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import sysconfig
import tarfile
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MEDIA_TYPES: Final = {
    "index": "application/vnd.oci.image.index.v1+json",
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "config": "application/vnd.oci.image.config.v1+json",
    "layer": "application/vnd.oci.image.layer.v1.tar+gzip",
}
REF_NAME_ANNOTATION: Final = "org.opencontainers.image.ref.name"
CREATED: Final = "2024-01-01T00:00:00Z"
FILE_MTIME_S: Final = 1_704_067_200  # CREATED, so that two builds of the same files are equal byte for byte

_CHUNK_BYTES: Final = 1 << 20
# Below this a layer is deflated, because tar padding alone would exceed a 500-byte layer; above it the bytes
# are stored, because deflating random bytes costs CPU and gains nothing.
_DEFLATE_BELOW_BYTES: Final = 64 << 10
_FILE_MAX_BYTES: Final = 32 << 20
# Files are listed until they hold this many times the image's bytes: what gzip makes of programs and libraries.
_EXPECTED_RATIO: Final = 4


class ImageBuildError(Exception):
    """No image could be built from what this machine has; the message says what was looked for."""


@dataclass(frozen=True, slots=True)
class BlobFile:
    """One blob of a layout: its digest (`sha256:HEX`), length, media type and the file that holds it."""

    digest: str
    size_bytes: int
    media_type: str
    path: Path

    def descriptor(self) -> dict[str, object]:
        """The OCI descriptor of this blob."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size_bytes}


@dataclass(frozen=True, slots=True)
class Image:
    """An image in an OCI layout directory. `top` is what a tag names: the manifest, or the index around it."""

    layout: Path
    config: BlobFile
    layers: tuple[BlobFile, ...]
    manifest: BlobFile
    top: BlobFile

    @property
    def blobs(self) -> tuple[BlobFile, ...]:
        """What `/blobs/` serves of this image: the layers and the config."""
        return (*self.layers, self.config)

    @property
    def size_bytes(self) -> int:
        """Sum of all blobs' sizes, manifests left out."""
        return sum(blob.size_bytes for blob in self.blobs)

    @property
    def manifests(self) -> tuple[BlobFile, ...]:
        """What a client asks for before the blobs: what a tag names, and the manifest in it."""
        return (self.manifest,) if self.top == self.manifest else (self.top, self.manifest)

    @property
    def pulled_bytes(self) -> int:
        """All that a client pulls, manifests too."""
        return self.size_bytes + sum(manifest.size_bytes for manifest in self.manifests)


@dataclass(frozen=True, slots=True)
class _Layer:
    blob: BlobFile
    diff_id: str


class _LayerWriter:
    """Writes files as a gzip-compressed tar into the layout, and hashes both the tar and the blob on the way.

    Headers are made here rather than by `tarfile.open`, which pads to 10 KiB records: too much for a layer of
    500 bytes.
    """

    def __init__(self, blobs_dir: Path, level: int) -> None:
        self._blobs_dir = blobs_dir
        self._partial = blobs_dir / f"layer.{os.getpid()}.{threading.get_ident()}.partial"
        self._file = self._partial.open("wb")
        self._gzip = zlib.compressobj(level, zlib.DEFLATED, 31)
        self._tar_hash = hashlib.sha256()
        self._blob_hash = hashlib.sha256()
        self.size_bytes = 0

    def __enter__(self) -> _LayerWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)  # what was finished has another name by now

    def add_file(self, name: str, size_bytes: int, mode: int, chunks: Iterable[bytes]) -> None:
        """Append one regular file whose content is `chunks`, together `size_bytes` long."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size_bytes, mode, FILE_MTIME_S
        self._write(info.tobuf(tarfile.GNU_FORMAT))
        for chunk in chunks:
            self._write(chunk)
        self._write(bytes(-size_bytes % tarfile.BLOCKSIZE))

    def _write(self, chunk: bytes) -> None:
        self._tar_hash.update(chunk)
        self._append(self._gzip.compress(chunk))

    def _append(self, compressed: bytes) -> None:
        self._blob_hash.update(compressed)
        self._file.write(compressed)
        self.size_bytes += len(compressed)

    def finish(self, media_type: str) -> _Layer:
        """End the archive and give the file its digest as name."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._append(self._gzip.flush())
        self._file.close()
        hex_digest = self._blob_hash.hexdigest()
        path = self._blobs_dir / hex_digest
        self._partial.rename(path)
        blob = BlobFile(f"sha256:{hex_digest}", self.size_bytes, media_type, path)
        return _Layer(blob, f"sha256:{self._tar_hash.hexdigest()}")


def make_random_image(
    directory: Path,
    layer_sizes_bytes: Sequence[int],
    seed: int,
    *,
    with_index: bool = False,
    ref_name: str = "latest",
) -> Image:
    """An image whose layers are random bytes, made from `seed` alone, in the layout `directory`.

    Each layer comes within 1 % or 1 KiB of the size asked for, whichever is less; the least is about 150 bytes.
    `with_index` puts an index of one platform (linux/amd64) around the manifest.
    """
    blobs_dir = _open_layout(directory)
    rng = random.Random(seed)
    layers = [
        _random_layer(blobs_dir, number, size_bytes, rng.getrandbits(64), MEDIA_TYPES["layer"])
        for number, size_bytes in enumerate(layer_sizes_bytes)
    ]
    return _finish_image(directory, layers, with_index=with_index, ref_name=ref_name)


def _random_layer(blobs_dir: Path, number: int, size_bytes: int, seed: int, media_type: str) -> _Layer:
    small = size_bytes < _DEFLATE_BELOW_BYTES
    # What a tar of one file adds: about 130 bytes when its zeros are deflated, 1.5 to 2 KiB when they are not.
    payload_bytes = max(1, size_bytes - (140 if small else 2048))
    with _LayerWriter(blobs_dir, level=9 if small else 0) as writer:
        chunks = _random_chunks(random.Random(seed), payload_bytes)
        writer.add_file(f"random/{number}.bin", payload_bytes, 0o644, chunks)
        return writer.finish(media_type)


def _random_chunks(rng: random.Random, size_bytes: int) -> Iterator[bytes]:
    for offset in range(0, size_bytes, _CHUNK_BYTES):
        yield rng.randbytes(min(_CHUNK_BYTES, size_bytes - offset))


def make_exact_image(directory: Path, layer_sizes_bytes: Sequence[int], seed: int) -> Image:
    """An image whose layers are random bytes as they are, for measurements in which a byte more would be too much."""
    blobs_dir = _open_layout(directory)
    layers = [
        _exact_layer(blobs_dir, random.Random(f"{seed} {number} {size_bytes}"), size_bytes)
        for number, size_bytes in enumerate(layer_sizes_bytes)
    ]
    return _finish_image(directory, layers, with_index=False, ref_name="latest")


def _exact_layer(blobs_dir: Path, rng: random.Random, size_bytes: int) -> _Layer:
    hasher = hashlib.sha256()
    partial = blobs_dir / "exact.partial"
    with partial.open("wb") as file:
        for chunk in _random_chunks(rng, size_bytes):
            hasher.update(chunk)
            file.write(chunk)
    digest = f"sha256:{hasher.hexdigest()}"
    path = partial.rename(blobs_dir / hasher.hexdigest())
    return _Layer(BlobFile(digest, size_bytes, "application/vnd.oci.image.layer.v1.tar", path), digest)


def make_file_image(
    directory: Path,
    size_bytes: int,
    layer_count: int,
    *,
    roots: Sequence[Path] | None = None,
) -> Image:
    """An image of this machine's own files, at least `size_bytes` of compressed layers, in the layout `directory`.

    Files are taken in the order of their paths below `roots` (/usr/lib, /usr/bin, the Python library, /usr/share),
    so one machine gives one image. Each layer is half as large as the one before it, the last two equal. A
    machine that has too few files gives them more than once, under another top directory.

    Raises ImageBuildError if there is not one readable file below `roots`.
    """
    blobs_dir = _open_layout(directory)
    targets_bytes = _halving_sizes(size_bytes, layer_count)
    shares = _share_files(_regular_files(roots or default_roots(), _EXPECTED_RATIO * size_bytes), targets_bytes)

    def build(number: int) -> _Layer:
        with _LayerWriter(blobs_dir, level=1) as writer:
            files = _endless_files(shares[number], f"layer-{number}")
            while writer.size_bytes < targets_bytes[number]:
                writer.add_file(*next(files))
            return writer.finish(MEDIA_TYPES["layer"])

    # zlib and sha256 release the GIL, and they are nearly all of the work
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        layers = list(pool.map(build, range(layer_count)))
    return _finish_image(directory, layers, with_index=False, ref_name="latest")


def default_roots() -> list[Path]:
    """Where `make_file_image` finds its files, in order."""
    return [Path("/usr/lib"), Path("/usr/bin"), Path(sysconfig.get_path("stdlib")), Path("/usr/share")]


def _halving_sizes(total_bytes: int, count: int) -> list[int]:
    if count < 1:
        raise ImageBuildError(f"an image of {count} layers cannot be built: at least 1 is needed")
    weights = [2 ** max(0, count - 2 - number) for number in range(count)]
    return [-(-total_bytes * weight // sum(weights)) for weight in weights]


def _share_files(files: Sequence[tuple[Path, int]], targets_bytes: Sequence[int]) -> list[list[Path]]:
    """Cut the list of (path, bytes) into one run of paths a layer, sized like the layers; none is empty."""
    if not files:
        raise ImageBuildError("no readable file below the roots: nothing to build an image of")
    scale = sum(size_bytes for _, size_bytes in files) / sum(targets_bytes)
    shares: list[list[Path]] = []
    position = 0
    for target_bytes in targets_bytes:
        share: list[Path] = []
        held_bytes = 0
        while position < len(files) and held_bytes < target_bytes * scale:
            path, size_bytes = files[position]
            share.append(path)
            held_bytes += size_bytes
            position += 1
        shares.append(share or [path for path, _ in files])
    return shares


def _endless_files(paths: Sequence[Path], top: str) -> Iterator[tuple[str, int, int, tuple[bytes]]]:
    """Name, size, mode and content of each file, again and again under a new directory each time."""
    for turn in range(1 << 30):
        for path in paths:
            content = path.read_bytes()
            yield f"{top}/copy-{turn}{path}", len(content), path.stat().st_mode & 0o755, (content,)


def _regular_files(roots: Sequence[Path], enough_bytes: int) -> list[tuple[Path, int]]:
    """Readable regular files below `roots` and their sizes, in the order of their paths, until it is enough."""
    files: list[tuple[Path, int]] = []
    found_bytes = 0
    for path in (Path(folder, name) for root in roots for folder, names in _walk(root) for name in names):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and 0 < status.st_size <= _FILE_MAX_BYTES and os.access(path, os.R_OK):
            files.append((path, status.st_size))
            found_bytes += status.st_size
            if found_bytes >= enough_bytes:
                break
    return files


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        yield folder, sorted(names)


def _open_layout(directory: Path) -> Path:
    blobs_dir = directory / "blobs" / "sha256"
    blobs_dir.mkdir(parents=True, exist_ok=True)
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return blobs_dir


def _finish_image(directory: Path, layers: Sequence[_Layer], *, with_index: bool, ref_name: str) -> Image:
    """Write config, manifest and index.json around `layers`."""
    config = _write_json(
        directory,
        MEDIA_TYPES["config"],
        {
            "architecture": "amd64",
            "os": "linux",
            "created": CREATED,
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": CREATED, "created_by": f"layer {n}"} for n in range(len(layers))],
        },
    )
    manifest = _write_json(
        directory,
        MEDIA_TYPES["manifest"],
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPES["manifest"],
            "config": config.descriptor(),
            "layers": [layer.blob.descriptor() for layer in layers],
        },
    )
    top = manifest
    if with_index:
        entry = {**manifest.descriptor(), "platform": {"architecture": "amd64", "os": "linux"}}
        top = _write_json(
            directory,
            MEDIA_TYPES["index"],
            {"schemaVersion": 2, "mediaType": MEDIA_TYPES["index"], "manifests": [entry]},
        )
    named = {**top.descriptor(), "annotations": {REF_NAME_ANNOTATION: ref_name}}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    return Image(directory, config, tuple(layer.blob for layer in layers), manifest, top)


def _write_json(directory: Path, media_type: str, document: dict[str, object]) -> BlobFile:
    data = json.dumps(document, separators=(",", ":")).encode()
    hex_digest = hashlib.sha256(data).hexdigest()
    path = directory / "blobs" / "sha256" / hex_digest
    path.write_bytes(data)
    return BlobFile(f"sha256:{hex_digest}", len(data), media_type, path)
