"""A registry's storage on disk as docker-registry lays it out, made without one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from proto.ids import Digest

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.cluster.image import Image


class RegistryStorage:
    """Below `root`, which is what a registry's configuration calls rootdirectory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.v2 = root / "docker" / "registry" / "v2"

    def add(self, image: Image, repository: str, tag: str) -> None:
        """As after a push."""
        for blob in image.blobs:
            self.add_blob(repository, Digest.parse(blob.digest), blob.path)
        for manifest in {image.manifest, image.top}:
            self.add_manifest(repository, Digest.parse(manifest.digest), manifest.path)
        self.tag(repository, tag, Digest.parse(image.top.digest))

    def add_blob(self, repository: str, digest: Digest, file: Path) -> None:
        """The bytes, and their link in the repository."""
        self._put(digest, file)
        self.link(f"{repository}/_layers/{digest.algorithm}/{digest.hex}", str(digest))

    def add_manifest(self, repository: str, digest: Digest, file: Path) -> None:
        """The same for a manifest."""
        self._put(digest, file)
        self.link(f"{repository}/_manifests/revisions/{digest.algorithm}/{digest.hex}", str(digest))

    def tag(self, repository: str, tag: str, digest: Digest) -> None:
        """Have a tag name a manifest."""
        self.link(f"{repository}/_manifests/tags/{tag}/current", str(digest))

    def link(self, path: str, content: str) -> None:
        """A link file with any content."""
        folder = self.v2 / "repositories" / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "link").write_text(content)

    def data(self, digest: Digest) -> Path:
        """Where a blob's bytes lie."""
        return self.v2 / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex / "data"

    def _put(self, digest: Digest, file: Path) -> None:
        self.data(digest).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, self.data(digest))
