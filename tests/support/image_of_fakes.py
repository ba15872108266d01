"""A small image at a FakeOrigin: a manifest, or an index of two platforms, with a tag."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proto.oci.images import INDEX_TYPES, MANIFEST_TYPES

if TYPE_CHECKING:
    from proto.ids import Digest
    from tests.support.fake_origin import FakeOrigin

REPOSITORY = "org/app"
TAG = "v1"


@dataclass(frozen=True)
class FakeImage:
    """`content` by digest: manifests and blobs, the one that the tag names first."""

    name: str
    content: dict[Digest, bytes]
    manifests: tuple[Digest, ...]


def image_at(origin: FakeOrigin, *sizes: int, architectures: tuple[str, ...] = ()) -> FakeImage:
    """Layers of these sizes; with architectures an index of manifests, each with layers of its own."""
    content: dict[Digest, bytes] = {}
    manifests, entries = [], []
    for number, architecture in enumerate(architectures or ("",)):
        rng = random.Random(number)
        blobs = [json.dumps({"architecture": architecture}).encode(), *(rng.randbytes(size) for size in sizes)]
        parts = [{"mediaType": "x/y", "digest": str(origin.add(blob)), "size": len(blob)} for blob in blobs]
        manifest = json.dumps({"mediaType": MANIFEST_TYPES[0], "config": parts[0], "layers": parts[1:]}).encode()
        manifests.append(origin.add(manifest))
        platform = {"os": "linux", "architecture": architecture}
        entries.append({"digest": str(manifests[-1]), "size": len(manifest), "platform": platform})
        content |= {manifests[-1]: manifest} | {origin.add(blob): blob for blob in blobs}
    top = content[manifests[0]]
    if architectures:
        top = json.dumps({"mediaType": INDEX_TYPES[0], "manifests": entries}).encode()
        content = {origin.add(top): top, **content}
        manifests.insert(0, next(iter(content)))
    origin.blobs[TAG] = top
    return FakeImage(f"{origin.authority}/{REPOSITORY}:{TAG}", content, tuple(manifests))
