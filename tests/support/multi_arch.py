"""An image for two platforms: an index that names an image for each."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING

from benchmarks.cluster.image import MEDIA_TYPES, BlobFile, Image, make_random_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.cluster.registry import Registry


@dataclasses.dataclass(frozen=True, slots=True)
class MultiArchImage:
    """`native` is what amd64 machines pull, and what its `top` names is the index of both."""

    native: Image
    other: Image

    def push(self, registry: Registry, repository: str, headers: dict[str, str] | None = None) -> None:
        """As `latest`."""
        registry.push(self.other, repository, "arm64", headers=headers)
        registry.push(self.native, repository, headers=headers)


def make_multi_arch_image(directory: Path, layer_sizes_bytes: Sequence[int], seed: int) -> MultiArchImage:
    """Layers of random bytes, made from `seed` alone, for amd64; one of 500 bytes for arm64."""
    native = make_random_image(directory / "amd64", layer_sizes_bytes, seed)
    other = make_random_image(directory / "arm64", (500,), seed + 1)
    entries = [
        {**image.manifest.descriptor(), "platform": {"architecture": architecture, "os": "linux"}}
        # The first that fits is taken: a client that looked at none would take the wrong one.
        for architecture, image in (("arm64", other), ("amd64", native))
    ]
    index = {"schemaVersion": 2, "mediaType": MEDIA_TYPES["index"], "manifests": entries}
    content = json.dumps(index).encode()
    hex_digest = hashlib.sha256(content).hexdigest()
    path = native.layout / "blobs" / "sha256" / hex_digest
    path.write_bytes(content)
    top = BlobFile(f"sha256:{hex_digest}", len(content), MEDIA_TYPES["index"], path)
    return MultiArchImage(dataclasses.replace(native, top=top), other)
