"""The image that is distributed: layers of exactly the asked sizes, incompressible, stored as they are.

benchmarks.origin.image makes layers that clients can unpack, which come out a little larger or smaller; here a byte
more would double the piece size, and nobody unpacks. Content is made from the seed.
"""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING, Final

from benchmarks.origin.image import BlobFile, Image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

REPOSITORY: Final = "fanout/image"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CHUNK_BYTES: Final = 1 << 20


def make_image(folder: Path, sizes_bytes: Sequence[int], seed: int) -> Image:
    """Write the blobs into `folder` and describe them."""
    folder.mkdir(parents=True)
    layers = tuple(
        _random_blob(folder, random.Random(f"{seed} {number} {size}"), size) for number, size in enumerate(sizes_bytes)
    )
    rootfs = {"type": "layers", "diff_ids": [layer.digest for layer in layers]}
    config = _json_blob(folder, _CONFIG, {"architecture": "amd64", "os": "linux", "rootfs": rootfs})
    manifest = _json_blob(
        folder,
        MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor() for layer in layers],
        },
    )
    return Image(folder, config, layers, manifest, manifest)


def _random_blob(folder: Path, rng: random.Random, size_bytes: int) -> BlobFile:
    hasher = hashlib.sha256()
    partial = folder / "partial"
    with partial.open("wb") as file:
        for at in range(0, size_bytes, _CHUNK_BYTES):
            part = rng.randbytes(min(_CHUNK_BYTES, size_bytes - at))
            hasher.update(part)
            file.write(part)
    path = partial.rename(folder / hasher.hexdigest())
    return BlobFile(f"sha256:{hasher.hexdigest()}", size_bytes, _LAYER, path)


def _json_blob(folder: Path, media_type: str, document: dict[str, object]) -> BlobFile:
    data = json.dumps(document).encode()
    name = hashlib.sha256(data).hexdigest()
    path = folder / name
    path.write_bytes(data)
    return BlobFile(f"sha256:{name}", len(data), media_type, path)
