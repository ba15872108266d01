"""Checks a body that passes through to a client. Blocking, no sockets.

The last 64 KiB of a whole body are withheld until its digest has passed, so a client never gets a complete wrong blob.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from peer.node.blobs import DigestMismatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import _Hash

    from peer.store.base import Chunk
    from proto.ids import Digest

WITHHELD_BYTES: Final = 64 * 1024
_PREFIX_READ_BYTES: Final = 1024 * 1024


class CheckedBody:
    """Sends bytes on. With a `hasher` (which has taken all bytes before these) the last ones wait for the digest."""

    def __init__(self, digest: Digest, send: Callable[[memoryview | bytes], None], hasher: _Hash | None) -> None:
        self._digest = digest
        self._send = send
        self._hasher = hasher
        self._withheld = b""

    def write(self, _: int, chunk: Chunk) -> None:
        """The next bytes. Raises what `send` raises."""
        assert isinstance(chunk, memoryview), "a client is sent bytes"
        if self._hasher is None:
            self._send(chunk)
            return
        self._hasher.update(chunk)
        release = len(self._withheld) + len(chunk) - WITHHELD_BYTES
        if release <= 0:
            self._withheld += chunk
            return
        held, from_chunk = self._withheld, max(0, release - len(self._withheld))
        self._withheld = held[release:] + bytes(chunk[from_chunk:])
        if held[:release]:
            self._send(held[:release])
        if from_chunk:
            self._send(chunk[:from_chunk])

    def finish(self) -> None:
        """The body is complete. Raises DigestMismatch, and does not send the last bytes then."""
        if self._hasher is None:
            return
        if self._hasher.hexdigest() != self._digest.hex:
            raise DigestMismatch(
                f"origin sent other bytes than blob {self._digest.short}: its registry must be checked"
            )
        if self._withheld:
            self._send(self._withheld)


def hash_prefix(digest: Digest, file_fd: int, length: int) -> _Hash:
    """The running hash of the first `length` bytes of a file. Raises OSError, and EOFError for a shorter file."""
    hasher = digest.hasher()
    offset = 0
    while offset < length:
        content = os.pread(file_fd, min(_PREFIX_READ_BYTES, length - offset), offset)
        if not content:
            raise EOFError(f"file of blob {digest.short} ends at byte {offset}")
        hasher.update(content)
        offset += len(content)
    return hasher
