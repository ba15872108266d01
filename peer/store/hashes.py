"""The piece hashes of one blob: in memory to look them up, appended to a file so that they outlive the process.

A record: "LCH1", first piece (u32), count (u32), signature length (u8, 0 or 64), hashes, signature, crc32 (u32),
big-endian. Reading stops at the first record that is torn or does not match its crc: what follows is cut off.
Signatures are kept and passed on, checked elsewhere.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING, Final

from peer.store.base import HASH_BYTES, SignedHashes
from peer.store.files import open_to_use, write_all
from proto.errors import PieceCorrupt
from proto.wire.tickets import SIGNATURE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from proto.ids import Digest

_MAGIC: Final = b"LCH1"
_HEAD: Final = struct.Struct(">4sIIB")
_CRC: Final = struct.Struct(">I")


def _encode(run: SignedHashes) -> bytes:
    body = _HEAD.pack(_MAGIC, run.first, run.count, len(run.signature)) + run.hashes + run.signature
    return body + _CRC.pack(zlib.crc32(body))


class StoredHashes:
    """Begins empty, as its file is. Not safe for concurrent use: the blob's lock guards it."""

    def __init__(self, digest: Digest, count: int, descriptor: int) -> None:
        self._digest = digest
        self._count = count
        self._descriptor = descriptor
        self._end_bytes = 0
        self._hashes = bytearray(count * HASH_BYTES)
        self.known = 0
        # By first piece and number of pieces, and all pieces of them.
        self._signed: dict[tuple[int, int], SignedHashes] = {}
        self._signed_mask = 0

    @classmethod
    def load(cls, digest: Digest, count: int, path: Path) -> StoredHashes:
        """From what is there; a torn end is cut off. Raises OSError."""
        hashes = cls(digest, count, open_to_use(path, os.O_CREAT))
        try:
            raw = path.read_bytes()
            while hashes._take_record(raw):
                pass
            if hashes._end_bytes < len(raw):
                os.ftruncate(hashes._descriptor, hashes._end_bytes)
        except BaseException:
            hashes.close()
            raise
        return hashes

    @property
    def signed(self) -> tuple[SignedHashes, ...]:
        """The runs with a signature, by first piece, without runs that lie inside another."""
        runs: list[SignedHashes] = []
        end = 0
        for first, count in sorted(self._signed, key=lambda run: (run[0], -run[1])):
            if first + count > end:
                end = first + count
                runs.append(self._signed[first, count])
        return tuple(runs)

    def signed_run(self, piece: int, pieces_max: int) -> SignedHashes | None:
        """The longest of at most so many pieces that has this one, or None: one signature to check for all of them."""
        for count in range(pieces_max, 0, -1):
            for first in range(piece, piece - count, -1):
                run = self._signed.get((first, count))
                if run is not None:
                    return run
        return None

    def of(self, piece: int) -> bytes | None:
        """The hash expected of a piece, or None."""
        if not self.known >> piece & 1:
            return None
        return bytes(self._hashes[piece * HASH_BYTES : (piece + 1) * HASH_BYTES])

    def learn(self, run: SignedHashes, held: int) -> None:
        """Keep a run, whose signature may be empty.

        Raises PieceCorrupt when it contradicts a piece that is held, OSError; then nothing is kept.
        """
        size_bytes = len(run.hashes)
        if size_bytes % HASH_BYTES or run.first < 0 or run.first + run.count > self._count:
            raise PieceCorrupt(f"blob {self._digest.short}: {size_bytes} bytes of hashes from {run.first} do not fit")
        if len(run.signature) not in (0, SIGNATURE_BYTES):
            raise PieceCorrupt(f"blob {self._digest.short}: a signature of {len(run.signature)} bytes on piece hashes")
        if self._covered(run):
            return
        self._refuse_contradiction(run, held)
        record = _encode(run)
        write_all(self._descriptor, record, self._end_bytes)
        self._end_bytes += len(record)
        self._keep(run)

    def clear(self) -> None:
        """Forget all. Raises OSError."""
        os.ftruncate(self._descriptor, 0)
        self._end_bytes = 0
        self.known = self._signed_mask = 0
        self._signed.clear()

    def sync(self) -> None:
        """Make durable. Raises OSError."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def _take_record(self, raw: bytes) -> bool:
        start = self._end_bytes
        if len(raw) < start + _HEAD.size:
            return False
        magic, first, count, signature_bytes = _HEAD.unpack_from(raw, start)
        middle = start + _HEAD.size + count * HASH_BYTES
        end = middle + signature_bytes
        if magic != _MAGIC or first + count > self._count or len(raw) < end + _CRC.size:
            return False
        if _CRC.unpack_from(raw, end)[0] != zlib.crc32(raw[start:end]):
            return False
        self._keep(SignedHashes(first, raw[start + _HEAD.size : middle], raw[middle:end]))
        self._end_bytes = end + _CRC.size
        return True

    def _keep(self, run: SignedHashes) -> None:
        start = run.first * HASH_BYTES
        self._hashes[start : start + len(run.hashes)] = run.hashes
        self.known |= run.pieces
        if run.signature:
            self._signed[run.first, run.count] = run
            self._signed_mask |= run.pieces

    def _covered(self, run: SignedHashes) -> bool:
        """Nothing in it is new: each hash is known, and signed in this run or others if this one is."""
        start = run.first * HASH_BYTES
        there = self._signed_mask if run.signature else self.known
        return there & run.pieces == run.pieces and self._hashes[start : start + len(run.hashes)] == run.hashes

    def _refuse_contradiction(self, run: SignedHashes, held: int) -> None:
        for index in range(run.count):
            piece = run.first + index
            if held >> piece & 1 and self.of(piece) != run.hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]:
                raise PieceCorrupt(
                    f"blob {self._digest.short}: piece {piece} is held with another hash than this one: void the blob"
                )
