"""A blob on its way from its origin through this node to one client: not stored, hashed in passing. Blocking.

Runs in a thread of its own. A body that the origin cuts goes on at the byte reached, with the same credential.
A whole body's last 64 KiB are withheld until its digest has passed: a client never gets a complete wrong blob.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peer.node.blobs import DigestMismatch
from proto.errors import UpstreamError, UpstreamKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from hashlib import _Hash

    from peer.registry.blob_response import BlobResponse
    from peer.registry.reader import RegistryReader
    from peer.transport.cancellation import Cancellation
    from proto.ids import Digest
    from proto.oci.upstreams import UpstreamConfig

WITHHELD_BYTES: Final = 64 * 1024
_BUFFER_BYTES: Final = 256 * 1024
_PREFIX_READ_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class OriginBlob:
    """One blob at its origin, asked for with one client's credential (None: as anyone)."""

    reader: RegistryReader
    upstream: UpstreamConfig
    repository: str
    digest: Digest
    authorization: str | None
    cancel: Cancellation
    resume_waits_s: tuple[float, ...]

    def open(self, start: int, end: int | None) -> BlobResponse:
        """One attempt at bytes [start, end). Raises UpstreamError and FetchCancelled."""
        return self.reader.open_blob(
            self.upstream,
            self.repository,
            self.digest,
            start=start,
            end=end,
            authorization=self.authorization,
            cancel=self.cancel,
        )

    def size(self) -> int | None:
        """The size that the origin tells this client. Raises UpstreamError and FetchCancelled."""
        access = self.reader.head_blob(
            self.upstream, self.repository, self.digest, authorization=self.authorization, cancel=self.cancel
        )
        return access.size_bytes if access.allowed else None

    def chunks(self, response: BlobResponse | None, start: int, end: int | None) -> Iterator[memoryview]:
        """Bytes [start, end) in order, from `response` (None: opened here) and what must be opened after it.

        Each view is good until the next. Closes what it opened and what it was given. Raises UpstreamError when
        the origin refuses or has failed too often without a byte in between, and FetchCancelled.
        """
        position, failures = start, 0
        with memoryview(bytearray(_BUFFER_BYTES)) as buffer:
            while True:
                try:
                    response = response or self.open(position, end)
                    for chunk in _from(response, position, end, buffer):
                        position, failures = position + len(chunk), 0
                        yield chunk
                    return
                except UpstreamError as error:
                    if error.kind is not UpstreamKind.UNAVAILABLE or failures >= len(self.resume_waits_s):
                        raise
                finally:
                    if response is not None:
                        response.close()
                response = None
                self.cancel.pause(self.resume_waits_s[failures])
                failures += 1


def _from(response: BlobResponse, position: int, end: int | None, buffer: memoryview) -> Iterator[memoryview]:
    """What a response holds of [position, end); what is before or after that is cut off here."""
    shorter = end is not None and response.size_bytes is not None and response.size_bytes < end
    if shorter or response.start > position:
        raise UpstreamError("the origin answered another part of the blob", UpstreamKind.CONTENT)
    while end is None or position < end:
        at = response.position
        count = response.readinto(buffer)
        if count == 0:
            if end is not None:
                raise UpstreamError(f"the origin's body ended at byte {position} of {end}", UpstreamKind.UNAVAILABLE)
            return
        first = max(0, position - at)
        last = count if end is None else min(count, end - at)
        if first < last:
            position = at + last
            yield buffer[first:last]


class _Withheld:
    """Keeps the last 64 KiB of what passes."""

    def __init__(self) -> None:
        self.tail = b""

    def pass_on(self, chunk: memoryview) -> Iterator[bytes | memoryview]:
        """What may go out now that this chunk has come."""
        release = len(self.tail) + len(chunk) - WITHHELD_BYTES
        if release <= 0:
            self.tail += chunk
            return
        held, self.tail = self.tail, b""
        from_chunk = max(0, release - len(held))
        self.tail = held[release:] + bytes(chunk[from_chunk:])
        if held[:release]:
            yield held[:release]
        if from_chunk:
            yield chunk[:from_chunk]


def pump(
    chunks: Iterator[memoryview],
    send: Callable[[memoryview | bytes], None],
    received: Callable[[int], None],
    digest: Digest,
    hasher: _Hash | None,
) -> None:
    """Send the chunks on. With a `hasher` (it knows all that precedes them) the digest decides about the last bytes.

    Raises DigestMismatch with those unsent, and whatever `chunks` and `send` raise.
    """
    withheld = _Withheld()
    for chunk in chunks:
        received(len(chunk))
        if hasher is None:
            send(chunk)
            continue
        hasher.update(chunk)
        for part in withheld.pass_on(chunk):
            send(part)
    if hasher is not None:
        if hasher.hexdigest() != digest.hex:
            raise DigestMismatch(f"origin sent other bytes than blob {digest.short}: its registry must be checked")
        if withheld.tail:
            send(withheld.tail)


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
