"""nginx as the CDN of a registry: it gives files to whoever has a URL that is signed and not yet too old.

How it misbehaves is the first part of the path, one of WAYS. In front of it stands a counting proxy, which knows more
ways; and a registry that redirects each blob there, `RedirectingRegistry`, by a fresh URL each time.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import re
import time
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.closing import Closing
from benchmarks.cluster.ports import ReservedPort
from benchmarks.cluster.processes import ManagedProcess, wait_until
from benchmarks.cluster.programs import clean_environment, program
from benchmarks.cluster.proxy_process import CountingProxyProcess
from benchmarks.cluster.services import LOOPBACK
from benchmarks.serving.client import is_listening
from tests.support.http_server import HttpServer, QuietHandler
from tests.support.passwords import basic_authorization

if TYPE_CHECKING:
    from pathlib import Path

# As it should be; the whole for a range; gzip-encoded unasked; 416 for a range; a login of its own; a page for people.
PLAIN, WHOLE, ENCODED, UNSATISFIED, LOGIN, PAGE = "plain", "whole", "encoded", "unsatisfied", "login", "page"
WAYS: Final = (PLAIN, WHOLE, ENCODED, UNSATISFIED, LOGIN, PAGE)
_SECRET: Final = "known to the registry and its CDN"
# Of a private blob's repository, see RedirectingRegistry.
PRIVATE: Final = "private/"
LIFE_S: Final = 600
_BLOB: Final = re.compile(r"/v2/(?P<repository>.+)/blobs/(?P<digest>sha256:[0-9a-f]{64})")
# Like object stores it takes no credential beside the signature.
_SIGNED: Final = f"""
    secure_link $arg_md5,$arg_expires;
    secure_link_md5 "$secure_link_expires$uri {_SECRET}";
    if ($secure_link = "") {{ return 403; }}
    if ($secure_link = "0") {{ return 403; }}
    if ($http_authorization) {{ return 400; }}
"""
_NGINX: Final = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
events {{}}
http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
server {{ listen 127.0.0.1:{port}; root {root};
location /plain/ {{ {signed} }}
location /whole/ {{ {signed} max_ranges 0; }}
location /encoded/ {{ {signed} gzip_static always; }}
location /unsatisfied/ {{ {signed} if ($http_range) {{ return 416; }} }}
location /login/ {{ {signed} auth_basic cdn; auth_basic_user_file {folder}/nobody; }}
location /page/ {{ {signed} return 302 /sign-in.html; }}
location /sign-in.html {{ default_type text/html; return 200 "who are you?"; }}
}} }}
"""


class SignedCdn(Closing):
    """Serves from construction until `close`; a context manager. `proxy` is in front of it and has its books."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "files"
        self.life_s = LIFE_S
        for way in WAYS:
            (self._root / way / "blobs").mkdir(parents=True)
        self._running = contextlib.ExitStack()
        with contextlib.ExitStack() as starting:
            port = int(starting.enter_context(contextlib.closing(ReservedPort(LOOPBACK))).address.rpartition(":")[2])
            config = folder / "nginx.conf"
            (folder / "nobody").touch()
            config.write_text(_NGINX.format(folder=folder, port=port, root=self._root, signed=_SIGNED))
            argv: list[str | Path] = [program("nginx"), "-c", config, "-e", folder / "log"]
            starting.enter_context(ManagedProcess(argv, env=clean_environment(), name="nginx"))
            wait_until(lambda: is_listening(port), "nginx listens")
            self.proxy = starting.enter_context(CountingProxyProcess((LOOPBACK, port)))
            self._running = starting.pop_all()

    def close(self) -> None:
        """Stop it."""
        self._running.close()

    def put(self, way: str, content: bytes) -> str:
        """Have a blob there; its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        path = self._root / way / "blobs" / digest
        path.write_bytes(content)
        if way == ENCODED:
            path.with_name(f"{digest}.gz").write_bytes(gzip.compress(content, 1))
        return digest

    def signed_url(self, way: str, digest: str) -> str:
        """Good for `life_s` from now on."""
        uri, expires = f"/{way}/blobs/{digest}", int(time.time()) + self.life_s
        signed = hashlib.md5(f"{expires}{uri} {_SECRET}".encode(), usedforsecurity=False).digest()
        signature = base64.urlsafe_b64encode(signed).rstrip(b"=").decode()
        return f"{self.proxy.url}{uri}?md5={signature}&expires={expires}"


class RedirectingRegistry(HttpServer):
    """Of blobs alone, all at its CDN. A repository is named by the way there, below PRIVATE if it wants a login."""

    def __init__(self, cdn: SignedCdn) -> None:
        self.cdn = cdn
        super().__init__(_Handler)

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://{LOOPBACK}:{self.port}"


class _Handler(QuietHandler):
    server: RedirectingRegistry

    def do_GET(self) -> None:
        """Redirects each blob."""
        match = _BLOB.fullmatch(self.path.partition("?")[0])
        if match is None:
            self._send(200 if self.path == "/v2/" else 404)
            return
        repository = match["repository"]
        if repository.startswith(PRIVATE) and self.headers.get("Authorization") not in basic_authorization().values():
            self._send(401, ("WWW-Authenticate", 'Basic realm="test"'))
            return
        url = self.server.cdn.signed_url(repository.removeprefix(PRIVATE), match["digest"])
        self._send(307, ("Location", url))

    do_HEAD = do_GET

    def _send(self, status: int, *lines: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*lines, ("Content-Length", "0"), ("Connection", "close")):
            self.send_header(name, value)
        self.end_headers()
