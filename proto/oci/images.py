"""Image names as people write them, and what manifests say. Pure; nothing is fetched here."""

from __future__ import annotations

import json
import platform as machine
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from proto.errors import ImageInvalid, RemoteError
from proto.ids import Digest
from proto.oci.routes import check_repository, looks_like_host, parse_reference
from proto.oci.upstreams import DOCKER_HUB, normalise_upstream

INDEX_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(frozen=True, slots=True)
class ImageName:
    """Where an image is asked for. `registry` None: whatever the mirror's default upstream is."""

    registry: str | None
    repository: str
    reference: str | Digest

    def path(self, kind: str, reference: str | Digest) -> str:
        """Path and query for the mirror; `kind` is manifests or blobs."""
        query = f"?ns={quote(self.registry, safe='')}" if self.registry is not None else ""
        return f"/v2/{self.repository}/{kind}/{reference}{query}"

    def __str__(self) -> str:
        name = self.repository if self.registry is None else f"{self.registry}/{self.repository}"
        return f"{name}{'@' if isinstance(self.reference, Digest) else ':'}{self.reference}"


def parse_image(text: str) -> ImageName:
    """`alpine`, `alpine:3.20`, `quay.io/org/name@sha256:...`, read as docker reads them. Raises ImageInvalid."""
    name, at, digest = text.partition("@")
    first, slash, rest = name.partition("/")
    try:
        registry = None
        if slash and looks_like_host(first):
            registry, name = normalise_upstream(first), rest
        repository, colon, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "latest")
        if at and colon:
            tag = ""  # the digest decides, and the tag is for people
        if "/" not in repository and registry in (None, DOCKER_HUB):
            repository = f"library/{repository}"
        return ImageName(registry, check_repository(repository), Digest.parse(digest) if at else parse_reference(tag))
    except RemoteError as error:
        raise ImageInvalid(f"image {text!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image is built for; an empty variant takes any."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def parse_platform(text: str) -> Platform:
    """`linux/amd64` or `linux/arm/v7`. Raises ValueError."""
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise ValueError("expected OS/ARCHITECTURE, for example linux/amd64 or linux/arm/v7")
    return Platform(*parts)


def this_platform() -> Platform:
    """Linux on this machine's processor."""
    return Platform("linux", _ARCHITECTURES.get(machine.machine(), machine.machine()))


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One blob or manifest of an image."""

    media_type: str
    digest: Digest
    size_bytes: int
    # Foreign layers are fetched from their own URLs, if at all; a registry does not have them.
    foreign: bool = False


def blobs_of(manifest: bytes) -> list[Descriptor]:
    """Config and layers, each digest once, in order. Raises ImageInvalid."""
    document = _document(manifest)
    if "layers" in document and "manifests" in document:
        raise ImageInvalid("manifest has both layers and manifests, and can be read two ways: refused")
    entries = [document.get("config"), *_entries(document, "layers")]
    found = {descriptor.digest: descriptor for descriptor in map(_descriptor, entries)}
    return list(found.values())


def platforms_of(index: bytes) -> list[tuple[Platform, Descriptor]]:
    """The index's manifests that are for a platform, in its order. Raises ImageInvalid."""
    found = []
    for entry in _entries(_document(index), "manifests"):
        platform = entry.get("platform") if isinstance(entry, dict) else None
        if isinstance(platform, dict):
            has = Platform(*(str(platform.get(key, "")) for key in ("os", "architecture", "variant")))
            found.append((has, _descriptor(entry)))
    return found


def choose(index: bytes, wanted: Platform) -> Descriptor:
    """The index's manifest for a platform. Raises ImageInvalid that names those it has."""
    offered = platforms_of(index)
    for has, descriptor in offered:
        if (has.os, has.architecture) == (wanted.os, wanted.architecture) and wanted.variant in ("", has.variant):
            return descriptor
    names = ", ".join(str(has) for has, _ in offered)
    raise ImageInvalid(f"image is not built for {wanted}; it has {names or 'no platform'}")


def media_type_of(manifest: bytes, content_type: str) -> str:
    """What kind of manifest it is: its own field first, then the response's header."""
    own = _document(manifest).get("mediaType")
    return own if isinstance(own, str) else content_type.partition(";")[0].strip()


def _document(content: bytes) -> dict[str, object]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ImageInvalid("manifest is not JSON") from error
    if not isinstance(document, dict):
        raise ImageInvalid("manifest is not a JSON object")
    return document


def _entries(document: dict[str, object], key: str) -> list[object]:
    entries = document.get(key)
    if not isinstance(entries, list):
        raise ImageInvalid(f"manifest has no list of {key}")
    return entries


def _descriptor(entry: object) -> Descriptor:
    if not isinstance(entry, dict):
        raise ImageInvalid("manifest names a blob without a descriptor")
    size, digest = entry.get("size"), entry.get("digest")
    if not isinstance(size, int) or size < 0 or not isinstance(digest, str):
        raise ImageInvalid("manifest names a blob without size or digest")
    media_type = str(entry.get("mediaType", "application/octet-stream"))
    return Descriptor(media_type, Digest.parse(digest), size, foreign=bool(entry.get("urls")))
