"""A read-only registry in threads that serves OCI layouts from disk.

GET and HEAD of `/v2/`, manifests (by tag and digest), blobs (with a single Range) and tags, errors as the distribution
spec writes them. It takes no pushes and asks for no credentials.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.image import REF_NAME_ANNOTATION
from tests.support.http_server import HttpServer, QuietHandler

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PATH: Final = re.compile(r"/v2/(?P<name>.+)/(?P<kind>blobs|manifests|tags)/(?P<reference>[^/]+)")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")


class LayoutRegistry(HttpServer):
    """Serves `layouts` (repository name to layout directory) from construction until `close`."""

    request_queue_size = 1024

    def __init__(self, layouts: Mapping[str, Path]) -> None:
        self.layouts = dict(layouts)
        super().__init__(_Handler)

    @property
    def address(self) -> str:
        """HOST:PORT where it listens."""
        return f"127.0.0.1:{self.port}"


class _Handler(QuietHandler):
    disable_nagle_algorithm = True
    server: LayoutRegistry

    def do_GET(self) -> None:
        self._route()

    def do_HEAD(self) -> None:
        self._route()

    def _route(self) -> None:
        path = self.path.partition("?")[0]
        if path in ("/v2", "/v2/"):
            self._send_bytes(200, b"{}", "application/json")
            return
        match = _PATH.fullmatch(path)
        layout = match and self.server.layouts.get(match["name"])
        if match is None or layout is None:
            self._send_error(404, "NAME_UNKNOWN", "this registry has no such repository")
        elif match["kind"] == "blobs":
            self._send_blob(layout, match["reference"])
        elif match["kind"] == "manifests":
            self._send_manifest(layout, match["reference"])
        else:
            tags = json.dumps({"name": match["name"], "tags": sorted(_tags(layout))}).encode()
            self._send_bytes(200, tags, "application/json")

    def _send_manifest(self, layout: Path, reference: str) -> None:
        digest = reference if _DIGEST.fullmatch(reference) else _tags(layout).get(reference)
        path = digest and _blob_path(layout, digest)
        if not path or not path.is_file():
            self._send_error(404, "MANIFEST_UNKNOWN", "no manifest of that name here")
            return
        data = path.read_bytes()
        try:
            media_type = json.loads(data)["mediaType"]
        except (ValueError, KeyError, TypeError):
            self._send_error(404, "MANIFEST_UNKNOWN", "that digest is no manifest")
            return
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._send_bytes(200, data, media_type, {"Docker-Content-Digest": digest})

    def _send_blob(self, layout: Path, digest: str) -> None:
        if not _DIGEST.fullmatch(digest):
            self._send_error(400, "DIGEST_INVALID", "a digest is sha256: and 64 hexadecimal digits")
            return
        path = _blob_path(layout, digest)
        if not path.is_file():
            self._send_error(404, "BLOB_UNKNOWN", "no blob of that digest here")
            return
        size_bytes = path.stat().st_size
        span = _span(self.headers.get("Range"), size_bytes)
        if span is None:
            self._send_error(416, "RANGE_INVALID", "no byte there", {"Content-Range": f"bytes */{size_bytes}"})
            return
        first, end, partial = span
        headers = {"Docker-Content-Digest": digest, "Accept-Ranges": "bytes", "ETag": f'"{digest}"'}
        if partial:
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{size_bytes}"
        self._send_head(206 if partial else 200, end - first, "application/octet-stream", headers)
        if self.command == "GET" and end > first:
            with path.open("rb") as file:
                self.connection.sendfile(file, first, end - first)

    def _send_error(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()
        self._send_bytes(status, body, "application/json", headers)

    def _send_bytes(self, status: int, body: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> None:
        self._send_head(status, len(body), media_type, headers or {})
        if self.command == "GET":
            self.wfile.write(body)

    def _send_head(self, status: int, length: int, media_type: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Docker-Distribution-API-Version", "registry/2.0")
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()


def _blob_path(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _tags(layout: Path) -> dict[str, str]:
    """Tag to digest, as index.json has them."""
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    names = ((entry.get("annotations", {}).get(REF_NAME_ANNOTATION), entry["digest"]) for entry in entries)
    return {name: digest for name, digest in names if name}


def _span(header: str | None, size_bytes: int) -> tuple[int, int, bool] | None:
    """[first, end) and whether it is a part; None for a range that meets no byte. Other forms: the whole."""
    match = _RANGE.fullmatch(header or "")
    if match is None or not (match[1] or match[2]):
        return 0, size_bytes, False
    if not match[1]:
        first, end = max(0, size_bytes - int(match[2])), size_bytes
    else:
        first = int(match[1])
        end = min(size_bytes, int(match[2]) + 1) if match[2] else size_bytes
    return (first, end, True) if first < end else None
