"""Reads the manifests that pass through to clients: which layers a client is about to ask for.

It takes a copy of what passes and never holds it up; a body that it cannot read means nothing to it. Whether a layer
is begun ahead is the downloader's to decide.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from proto.errors import DigestInvalid
from proto.ids import Digest
from proto.oci.routes import ManifestRoute
from proto.wire.messages import Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.proxy.authorization import Asked
    from peer.registry.base import OriginAnswer

# An image's manifest has some hundred bytes a layer; what is longer is not read.
_READ_MAX_BYTES: Final = 128 * 1024
_LAYERS_MAX: Final = 256


class ManifestReader:
    """Of one answer. `take` each part of its body; `finish` tells what layers it named, if it was an image's."""

    def __init__(self, source: Source, named: Callable[[Source, tuple[Digest, ...]], None]) -> None:
        self._source = source
        self._named = named
        self._body = bytearray()

    def take(self, part: bytes) -> None:
        """The next part of the body."""
        if len(self._body) <= _READ_MAX_BYTES:
            self._body += part

    def finish(self) -> None:
        """The body is whole."""
        layers = layers_of(self._body) if len(self._body) <= _READ_MAX_BYTES else ()
        if layers:
            self._named(self._source, layers)


def reader_of(
    asked: Asked, answer: OriginAnswer, named: Callable[[Source, tuple[Digest, ...]], None]
) -> ManifestReader | None:
    """For an answer that carries a manifest which can be read as it is; None for all others."""
    route = asked.request.route
    if not isinstance(route, ManifestRoute) or answer.status != 200 or "Content-Encoding" in answer.headers:
        return None
    return ManifestReader(Source(asked.upstream.host, route.repository), named)


def layers_of(body: bytes | bytearray) -> tuple[Digest, ...]:
    """The layers of an image's manifest (OCI image manifest, Docker image manifest 2.2), each once, in its order.

    Without those that lie elsewhere (`urls`); none where the body is something else.
    """
    try:
        document = json.loads(body)
        entries = document["layers"][:_LAYERS_MAX]
        named = [Digest.parse(entry["digest"]) for entry in entries if not entry.get("urls")]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, DigestInvalid):
        return ()
    return tuple(dict.fromkeys(named))
