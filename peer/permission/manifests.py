"""Which blobs a manifest permits to whoever was given it: those of its `config` and `layers`. Pure.

Never its `subject`, and never an index's children: registries take manifests that name there what is not theirs to
give. Nor what has `urls` or must not be distributed, for the same reason.
"""

from __future__ import annotations

import json
from typing import Final

from proto.errors import DigestInvalid
from proto.ids import Digest

# A manifest is read on the event loop, and 4 MiB of brackets, which registries take, would hold that up for a second.
# What is larger permits nothing by itself: the origin is asked for each blob. A thousand layers have less.
BODY_BYTES_MAX: Final = 512 * 1024
# No image has as many layers.
BLOBS_MAX: Final = 1024
_NOT_DISTRIBUTED: Final = ("nondistributable", ".foreign.")


def listed_blobs(body: bytes) -> list[tuple[Digest, int]]:
    """The blobs, each with its size in bytes as the manifest has it. None of what is no image manifest."""
    if len(body) > BODY_BYTES_MAX:
        return []
    try:
        manifest = json.loads(body)
    except (ValueError, RecursionError):
        return []
    # One with both is read in two ways by two clients (CVE-2021-41190).
    if not isinstance(manifest, dict) or "manifests" in manifest:
        return []
    layers = manifest.get("layers")
    if not isinstance(layers, list) or len(layers) > BLOBS_MAX:
        return []
    found = [_descriptor(each) for each in [manifest.get("config"), *layers]]
    return [each for each in found if each is not None]


def _descriptor(entry: object) -> tuple[Digest, int] | None:
    if not isinstance(entry, dict) or entry.get("urls"):
        return None
    kind, text, size_bytes = entry.get("mediaType", ""), entry.get("digest"), entry.get("size")
    if not isinstance(kind, str) or any(mark in kind for mark in _NOT_DISTRIBUTED):
        return None
    if not isinstance(text, str) or not isinstance(size_bytes, int) or isinstance(size_bytes, bool) or size_bytes < 0:
        return None
    try:
        return Digest.parse(text), size_bytes
    except DigestInvalid:
        return None
