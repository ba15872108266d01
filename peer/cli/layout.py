"""Writes a pulled image as an OCI image layout: oci-layout, index.json and blobs/ALGORITHM/HEX. Files only."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from peer.cli.contract import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from proto.ids import Digest
    from proto.oci.images import Descriptor


class OciLayout:
    """One directory. A blob appears under its digest only when it was written whole."""

    def __init__(self, directory: Path) -> None:
        """Make the directory. Raises CommandError."""
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
        except OSError as error:
            raise CommandError(f"--output {directory}: {error.strerror}") from error

    @contextmanager
    def writing(self, digest: Digest) -> Iterator[IO[bytes]]:
        """A file to write the blob to; it gets its name when the block ends well. Raises CommandError."""
        path = self._directory / "blobs" / digest.algorithm / digest.hex
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = tempfile.NamedTemporaryFile(dir=path.parent, prefix=".incoming-", delete=False)  # noqa: SIM115
        except OSError as error:
            raise CommandError(f"{path.parent}: {error.strerror}") from error
        try:
            with file:
                yield file
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException as error:
            Path(file.name).unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise CommandError(f"{path}: {error.strerror}") from error
            raise

    def name(self, manifest: Descriptor, tag: str) -> None:
        """Have the layout's index lead to this manifest alone."""
        entry = {
            "mediaType": manifest.media_type,
            "digest": str(manifest.digest),
            "size": manifest.size_bytes,
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
        (self._directory / "index.json").write_text(json.dumps(index, indent=2))
