"""A small registry client for `layercast pull`: manifests and blobs through a mirror, anonymously, from threads.

It checks every digest and goes on where a body broke off. It writes no file and shows nothing.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import urllib3

from peer.cli.contract import MISMATCH, CommandError
from proto.ids import Digest
from proto.oci.images import INDEX_TYPES, MANIFEST_TYPES
from proto.oci.ranges import format_range, parse_content_range
from proto.oci.www_authenticate import bearer_challenge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proto.oci.images import Descriptor, ImageName
    from proto.oci.www_authenticate import Challenge

MANIFEST_BYTES_MAX: Final = 8 * 1024 * 1024
_TOKEN_BYTES_MAX: Final = 256 * 1024
_CHUNK_BYTES: Final = 256 * 1024
# Waits between attempts at a body that broke off without a byte in between.
_RESUME_WAITS_S: Final = (0.2, 1.0, 2.0, 4.0, 8.0)
# Containerd waits as long for headers.
_TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=60.0)


class MirrorClient:
    """One image's client; close() it. blob() may be called from several threads."""

    def __init__(self, mirror: str, image: ImageName, connections: int) -> None:
        self._mirror = mirror
        self._image = image
        self._pool = urllib3.PoolManager(maxsize=connections, timeout=_TIMEOUT, retries=False)
        self._authorization: dict[str, str] = {}

    def close(self) -> None:
        self._pool.clear()

    def manifest(self, reference: str | Digest) -> tuple[bytes, str]:
        """Bytes and Content-Type of a manifest, checked against its digest. Raises CommandError."""
        accept = urllib3.HTTPHeaderDict()
        for media_type in (*MANIFEST_TYPES, *INDEX_TYPES):
            accept.add("Accept", media_type)
        response = self._get(self._image.path("manifests", reference), accept)
        try:
            content = response.read(MANIFEST_BYTES_MAX + 1)
        except urllib3.exceptions.HTTPError as error:
            raise CommandError(f"manifest {reference}: {_reason(error)}") from error
        finally:
            response.release_conn()
        if len(content) > MANIFEST_BYTES_MAX:
            raise CommandError(f"manifest {reference} is longer than {MANIFEST_BYTES_MAX} bytes")
        named = response.headers.get("Docker-Content-Digest")
        expected = reference if isinstance(reference, Digest) else Digest.parse(named) if named else None
        if expected is not None and Digest.of(content, expected.algorithm) != expected:
            raise CommandError(f"manifest {reference}: content does not match {expected}", MISMATCH)
        return content, response.headers.get("Content-Type", "")

    def blob(self, blob: Descriptor, write: Callable[[bytes], object]) -> None:
        """Give a blob's bytes to `write` in order, and check size and digest. Raises CommandError."""
        hasher, position, failures = blob.digest.hasher(), 0, 0
        while True:
            try:
                for chunk in self._blob_from(blob, position):
                    hasher.update(chunk)
                    position, failures = position + len(chunk), 0
                    if position > blob.size_bytes:
                        raise CommandError(f"blob {blob.digest.short} is longer than its manifest says", MISMATCH)
                    write(chunk)
                break
            except urllib3.exceptions.HTTPError as error:
                if failures >= len(_RESUME_WAITS_S):
                    raise CommandError(f"blob {blob.digest.short} at byte {position}: {_reason(error)}") from error
                time.sleep(_RESUME_WAITS_S[failures])
                failures += 1
        if position != blob.size_bytes or hasher.hexdigest() != blob.digest.hex:
            raise CommandError(f"blob {blob.digest.short}: content does not match its digest", MISMATCH)

    def _blob_from(self, blob: Descriptor, position: int) -> Iterator[bytes]:
        if position and position == blob.size_bytes:
            return
        headers = urllib3.HTTPHeaderDict({"Range": format_range(position, None)} if position else {})
        response = self._get(self._image.path("blobs", blob.digest), headers)
        try:
            got = parse_content_range(response.headers.get("Content-Range"))
            if position and (got is None or got.start != position):
                raise CommandError(f"blob {blob.digest.short}: mirror answered another range")
            yield from response.stream(_CHUNK_BYTES, decode_content=False)
        finally:
            # A body not read to its end leaves the connection unusable; close() of one that was is harmless.
            response.close() if response.length_remaining else response.release_conn()

    def _get(self, target: str, headers: urllib3.HTTPHeaderDict) -> urllib3.BaseHTTPResponse:
        """One request; an anonymous token is fetched when one is asked for. Raises CommandError, or HTTPError."""
        response = self._send(target, headers)
        if response.status == 401:
            challenge = bearer_challenge(response.headers.getlist("WWW-Authenticate"))
            response.drain_conn()
            if challenge is not None and challenge.get("realm") is not None:
                self._authorization = {"Authorization": f"Bearer {self._token(challenge)}"}
                response = self._send(target, headers)
        if response.status in (200, 206):
            return response
        try:
            said = _errors(response.read(_TOKEN_BYTES_MAX))
        finally:
            response.release_conn()
        hint = ": it wants a login, and this command shows none; pull it with a container client"
        raise CommandError(
            f"{self._image}: mirror answered {response.status}{said}{hint if response.status == 401 else ''}"
        )

    def _send(self, target: str, headers: urllib3.HTTPHeaderDict) -> urllib3.BaseHTTPResponse:
        lines = headers.copy()
        lines.update(self._authorization)
        try:
            return self._pool.request(
                "GET", self._mirror + target, headers=lines, preload_content=False, redirect=False
            )
        except urllib3.exceptions.NewConnectionError as error:
            raise CommandError(
                f"no mirror answers at {self._mirror}: {_reason(error)}; is layercast-peer running?"
            ) from error

    def _token(self, challenge: Challenge) -> str:
        scope = challenge.get("scope") or f"repository:{self._image.repository}:pull"
        fields = {"service": challenge.get("service"), "scope": scope}
        query = urlencode({key: text for key, text in fields.items() if text})
        try:
            response = self._pool.request("GET", f"{challenge.get('realm')}?{query}", preload_content=False)
            answer = json.loads(response.read(_TOKEN_BYTES_MAX))
            response.release_conn()
        except (urllib3.exceptions.HTTPError, ValueError, RecursionError) as error:
            raise CommandError(
                f"{self._image} wants a token, and its token service gave none: {_reason(error)}"
            ) from error
        token = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str):
            raise CommandError(f"{self._image} is not for everyone: its token service answered {response.status}")
        return token


def _reason(error: Exception) -> str:
    return type(error).__name__


def _errors(body: bytes) -> str:
    """The registry's own words, for the one line that the operator reads."""
    try:
        entries = json.loads(body)["errors"]
        words = "; ".join(f"{entry.get('code')}: {entry.get('message')}" for entry in entries)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return ""
    return f" ({words})"
