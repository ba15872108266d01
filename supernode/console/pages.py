"""The console's files, read once: all that a browser gets comes from this package, and each has its ETag."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# Nothing but this package's own scripts, styles and pictures, no frame, no form that leads elsewhere; and no script may
# put text into the page as markup.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Asked for again each time, and not sent again while its ETag is the same.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class Page:
    """One file. `etag` is without quotes."""

    content: bytes
    content_type: str
    etag: str


def load() -> dict[str, Page]:
    """By name; `index.html` is "", too."""
    pages = {}
    for file in resources.files("supernode.console").joinpath("files").iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            content = file.read_bytes()
            pages[file.name] = Page(content, kind, hashlib.sha256(content).hexdigest()[:32])
    return {"": pages["index.html"], **pages}
