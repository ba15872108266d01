"""A registry in a thread in which every tag names one and the same small image, and which counts who asks for a tag."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from benchmarks.cluster.closing import Closing
from proto.ids import Digest

_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = b"{}"
_LAYER: Final = b"a layer" * 1000


class TagOrigin(Closing):
    """A context manager. `asked` counts the GETs of each tag's manifest."""

    def __init__(self) -> None:
        blobs = {str(Digest.of(content)): content for content in (_CONFIG, _LAYER)}
        config, layer = ({"mediaType": "x/y", "digest": name, "size": len(blobs[name])} for name in blobs)
        self.manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": [layer]}
        ).encode()
        self.digest = str(Digest.of(self.manifest))
        self.content = {**blobs, self.digest: self.manifest}
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"origin": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="tag-origin", daemon=True)
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that ended because its client was killed is nothing to tell."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as it was given


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    origin: TagOrigin
    # Of an idle connection: its thread ends.
    timeout = 30.0

    def do_GET(self) -> None:
        _, _, name = self.path.partition("?")[0].rpartition("/")
        if self.path.endswith("/tags/list"):
            self._send(404, b"{}", "application/json")
            return
        content = self.origin.content.get(name)
        if content is None and "/manifests/" in self.path and ":" not in name:
            content = self.origin.manifest
            with self.origin.lock:
                self.origin.asked[name] += self.command == "GET"
        if content is None:
            self._send(404 if self.path != "/v2/" else 200, b"{}", "application/json")
        else:
            self._send(200, content, _MANIFEST if content == self.origin.manifest else "application/octet-stream")

    do_HEAD = do_GET

    def _send(self, status: int, content: bytes, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content)))
        if status == 200:
            self.send_header("Docker-Content-Digest", str(Digest.of(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""
