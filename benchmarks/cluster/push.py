"""Pushes an image of benchmarks.cluster.image, or single blobs, into a registry over the distribution API.

Files are streamed from disk; nothing is held whole in memory. It knows no token authentication: a caller that
needs it passes the headers.
"""

from __future__ import annotations

import hashlib
import http.client
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import urlencode, urljoin, urlsplit

from benchmarks.cluster.closing import Closing
from benchmarks.cluster.processes import WAIT_S

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.cluster.image import Image

_SEND_BYTES: Final = 1 << 18


class PushError(Exception):
    """The registry refused a step of a push; the message holds its status and the start of its answer."""


class RegistryWriter(Closing):
    """One keep-alive connection to the registry at `base_url` (`http://HOST:PORT`), used to push into it.

    `headers` go with every request (an Authorization, say). A context manager: it closes the connection.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._base_url = base_url
        self._headers = dict(headers or {})
        self._connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=WAIT_S, blocksize=_SEND_BYTES)

    def close(self) -> None:
        self._connection.close()

    def push_image(self, image: Image, repository: str, tag: str) -> str:
        """Push all blobs and manifests of `image` and name it `tag`; return the digest the tag names."""
        for blob in image.blobs:
            self.push_blob_file(repository, blob.path, blob.digest)
        if image.top != image.manifest:
            self._put_manifest(repository, image.manifest.digest, image.manifest.path, image.manifest.media_type)
        self._put_manifest(repository, tag, image.top.path, image.top.media_type)
        return image.top.digest

    def push_blob_file(self, repository: str, path: Path, digest: str) -> None:
        """Push one file as the blob `digest`, unless the repository has it."""
        if self._request("HEAD", f"/v2/{repository}/blobs/{digest}", allowed=(200, 404)) == 200:
            return
        with path.open("rb") as file:
            self._upload(repository, digest, file, path.stat().st_size)

    def push_blob_bytes(self, repository: str, data: bytes) -> str:
        """Push `data` as a blob and return its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._upload(repository, digest, data, len(data))
        return digest

    def _upload(self, repository: str, digest: str, body: IO[bytes] | bytes, size_bytes: int) -> None:
        self._request("POST", f"/v2/{repository}/blobs/uploads/", allowed=(202,))
        location = urljoin(self._base_url, self._location)
        separator = "&" if urlsplit(location).query else "?"
        parts = urlsplit(location + separator + urlencode({"digest": digest}))
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
        self._request("PUT", f"{parts.path}?{parts.query}", allowed=(201,), body=body, headers=headers)

    def _put_manifest(self, repository: str, reference: str, path: Path, media_type: str) -> None:
        headers = {"Content-Type": media_type}
        target = f"/v2/{repository}/manifests/{reference}"
        self._request("PUT", target, allowed=(201,), body=path.read_bytes(), headers=headers)

    def _request(
        self,
        method: str,
        target: str,
        *,
        allowed: tuple[int, ...],
        body: IO[bytes] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        self._connection.request(method, target, body=body, headers={**self._headers, **(headers or {})})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status not in allowed:
            path = target.partition("?")[0]
            raise PushError(f"{method} {path} at {self._base_url}: {response.status} {answer[:200]!r}")
        self._location = response.getheader("Location", "")
        return response.status
