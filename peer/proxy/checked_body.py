"""Bodies from an origin on their way to one client, which end whole only if their digest has passed. For threads.

Where a client has the first bytes of a blob from the store and the rest comes from the origin, those bytes are read in
the store again, for the digest. Where the disk does not give them any more, the origin sends all of the blob once more:
what the client has is compared with it piece by piece, by the hashes that those pieces had. It asks for nothing itself.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

import blake3

from peer.node.blobs import DigestMismatch
from proto.oci.ranges import Part

if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import _Hash

    from peer.store.base import BlobHandle, Chunk
    from proto.ids import Digest
    from proto.oci.multipart import Multipart

    Send = Callable[[memoryview | bytes], None]

_log = logging.getLogger(__name__)

# Of a whole body this much is kept back until its digest has passed: no client gets a complete wrong blob.
WITHHELD_BYTES: Final = 64 * 1024
_PREFIX_READ_BYTES: Final = 1024 * 1024


class CheckedBody:
    """Sends bytes on. With a `hasher` (which has taken all bytes before these) the last ones wait for the digest."""

    def __init__(self, digest: Digest, send: Send, hasher: _Hash | None) -> None:
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


class PartsBody:
    """Sends several ranges on, each behind its head. They come one after the other, as `multipart` has them."""

    def __init__(self, multipart: Multipart, send: Send, send_text: Send) -> None:
        """`send_text` sends what frames them."""
        self._multipart = multipart
        self._send = send
        self._send_text = send_text
        self._number = -1
        self._left = 0

    def write(self, _: int, chunk: Chunk) -> None:
        """The next bytes, of one range or of several that touch. Raises what the senders raise."""
        assert isinstance(chunk, memoryview), "a client is sent bytes"
        while chunk:
            if not self._left:
                self._number += 1
                part = self._multipart.parts[self._number]
                assert part.end is not None
                self._left = part.end - part.start
                self._send_text(self._multipart.head(self._number))
            now = chunk[: self._left]
            self._send(now)
            self._left -= len(now)
            chunk = chunk[len(now) :]

    def finish(self) -> None:
        """All ranges are complete."""
        self._send_text(self._multipart.end)


class RepeatedBody:
    """Takes a blob from its first byte, of which the client has `sent_bytes` from pieces with these hashes."""

    def __init__(self, handle: BlobHandle, sent_bytes: int, send: Send) -> None:
        """Raises EOFError where the hash of such a piece is not known any more, LocalError."""
        self._layout = layout = handle.layout
        self._digest = handle.digest
        pieces = range(layout.piece_at(sent_bytes - 1) + 1 if sent_bytes else 0)
        self._hashes = [handle.hash_of(piece) for piece in pieces]
        if None in self._hashes:
            raise EOFError(f"what was sent of blob {self._digest.short} can neither be read nor compared")
        self._piece = 0
        self._piece_left = layout.length(0)
        self._hasher = blake3.blake3()
        self._sent_left = sent_bytes
        self._send = send
        self._checked = CheckedBody(self._digest, self._send_rest, self._digest.hasher())

    def write(self, offset: int, chunk: Chunk) -> None:
        """The next bytes. Raises DigestMismatch where the client has others, and what `send` raises."""
        assert isinstance(chunk, memoryview), "a client is sent bytes"
        self._compare(chunk)
        self._checked.write(offset, chunk)

    def finish(self) -> None:
        """See CheckedBody."""
        self._checked.finish()

    def _compare(self, chunk: memoryview) -> None:
        while chunk and self._piece < len(self._hashes):
            part, chunk = chunk[: self._piece_left], chunk[self._piece_left :]
            self._hasher.update(part)
            self._piece_left -= len(part)
            if self._piece_left:
                return
            if self._hasher.digest() != self._hashes[self._piece]:
                raise DigestMismatch(f"piece {self._piece} of blob {self._digest.short} was sent with other bytes")
            self._piece += 1
            self._hasher = blake3.blake3()
            self._piece_left = self._layout.length(self._piece) if self._piece < self._layout.count else 0

    def _send_rest(self, content: memoryview | bytes) -> None:
        had = min(self._sent_left, len(content))
        self._sent_left -= had
        if had < len(content):
            self._send(content[had:])


def rest_of(
    digest: Digest, handle: BlobHandle, part: Part, send: Send, *, from_start: bool
) -> tuple[Part, CheckedBody | RepeatedBody]:
    """What to ask of the origin for a client that was sent all before `part`, and what takes it.

    A response that began at the blob's first byte (`from_start`) is never finished without the digest. Raises EOFError
    where there is no way to that, LocalError.
    """
    to_the_end = part.end == part.size_bytes
    if to_the_end and handle.available_from(0) >= part.start:
        try:
            return part, CheckedBody(digest, send, hash_prefix(digest, handle.fileno(), part.start))
        except OSError as error:
            _log.error("blob_not_readable digest=%s %s; look after the disk of the store", digest.short, error.strerror)
            if from_start:
                return Part(part.status, 0, part.end, part.size_bytes), RepeatedBody(handle, part.start, send)
    elif to_the_end and from_start:
        raise EOFError(f"what was sent of blob {digest.short} is no longer in the store")
    return part, CheckedBody(digest, send, None)


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
