"""PieceLayout and masks: how a blob is cut, and which of its pieces somebody has. Pure arithmetic, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2, sqrt
from typing import TYPE_CHECKING, Final

from proto.errors import FrameInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KIB: Final = 1024
MIB: Final = 1024 * KIB

PIECE_SIZE_MIN_BYTES: Final = 256 * KIB
PIECE_SIZE_MAX_BYTES: Final = 16 * MIB
# About 256 pieces a blob: the last piece's way through the swarm then costs a few per cent (piece bound).
PIECES_AIMED_AT: Final = 256
# A blob that clients begin to read by ranges is cut finer, as each range brings whole pieces: by this factor, up to a
# limit, for a reader waits for all of a piece. Pulled in whole later, it costs as many more leases.
FINER_FOR_RANGES: Final = 4
RANGE_PIECE_MAX_BYTES: Final = MIB
# Of what a lease takes beside its transfer this part is seen, since the next is granted ahead (simulated: 10 nodes,
# 64 MiB, reaction 12 ms, 0.2 to 10 Gbit/s).
LEASE_SHOWN_PART: Final = 1 / 4
# What a piece costs the processors at its two ends, however short it is (layercast-bench image, piece).
PIECE_CPU_S: Final = 0.004
# The first byte for a client waits for a whole piece at each hop: beyond 1 MiB none takes longer.
LONG_PIECE_S: Final = 0.01
# One supernode leases about so many pieces a second (0.48 ms of its event loop each: 12 nodes, 64 and 256 pieces).
# Where a piece travels for less time than its leases to all nodes take, links stand idle. But few of many nodes may
# want the blob: for that alone it is not cut into fewer pieces than these.
LEASES_PER_S: Final = 2000
FEW_PIECES: Final = 16
# A blob cut finer than this is refused: bitfields and hash lists would outgrow their frames.
PIECE_COUNT_MAX: Final = 1 << 16


def piece_size_for(size_bytes: int) -> int:
    """Next power of two of size/256, kept within 256 KiB and 16 MiB."""
    aimed_at = -(-size_bytes // PIECES_AIMED_AT)
    power = 1 << max(0, aimed_at - 1).bit_length()
    return max(PIECE_SIZE_MIN_BYTES, min(PIECE_SIZE_MAX_BYTES, power))


def piece_size_at(size_bytes: int, rate_bytes_s: float, lease_s: float, nodes: int) -> int:
    """The same where it is known what links carry, and what a lease takes beside its transfer: never finer than else.

    With M pieces for N nodes the last piece has log2(N) + 1 hops to go behind M others, and each has its cost:
    (M + hops) * (size / (M * rate) + cost) is least at M = sqrt(hops * size / (rate * cost)). The power of two that is
    nearest to it, but for LONG_PIECE_S and for LEASES_PER_S.
    """
    hops = 1.0 + log2(max(1, nodes))
    cost_s = lease_s * LEASE_SHOWN_PART + PIECE_CPU_S
    count = max(1.0, sqrt(hops * size_bytes / (rate_bytes_s * cost_s)))
    longest = 1 << int(log2(max(MIB, rate_bytes_s * LONG_PIECE_S)))
    power = min(longest, 1 << round(log2(max(1.0, size_bytes / count))))
    leased = 1 << int(log2(max(1.0, rate_bytes_s * nodes / LEASES_PER_S)))
    few = 1 << int(log2(max(1.0, size_bytes / FEW_PIECES)))
    return max(piece_size_for(size_bytes), min(PIECE_SIZE_MAX_BYTES, max(power, min(leased, few))))


def range_piece_size_for(size_bytes: int) -> int:
    """The same of a blob that is read by ranges first: 64 KiB to 1 MiB, where that does not cut it too fine."""
    usual = piece_size_for(size_bytes)
    finer = min(usual // FINER_FOR_RANGES, RANGE_PIECE_MAX_BYTES)
    return finer if finer * PIECE_COUNT_MAX >= size_bytes else usual


@dataclass(frozen=True, slots=True)
class PieceLayout:
    """A blob of `size_bytes` cut into pieces of `piece_size_bytes`; the last one may be shorter.

    A zero-byte blob has no pieces and is complete from the start.
    """

    size_bytes: int
    piece_size_bytes: int

    def __post_init__(self) -> None:
        if self.size_bytes < 0 or self.piece_size_bytes <= 0:
            raise FrameInvalid(f"piece layout {self.size_bytes}/{self.piece_size_bytes}: sizes must be positive")
        if self.count > PIECE_COUNT_MAX:
            raise FrameInvalid(f"piece layout of {self.count} pieces: at most {PIECE_COUNT_MAX}")

    @classmethod
    def of(cls, size_bytes: int) -> PieceLayout:
        """The layout that a blob of this size gets unless its swarm says otherwise."""
        return cls(size_bytes, piece_size_for(size_bytes))

    @property
    def count(self) -> int:
        """Number of pieces."""
        return -(-self.size_bytes // self.piece_size_bytes)

    @property
    def full_mask(self) -> int:
        """The mask of a complete blob."""
        return (1 << self.count) - 1

    def offset(self, piece: int) -> int:
        """First byte of the piece. Raises IndexError for a piece the blob does not have."""
        self._check(piece)
        return piece * self.piece_size_bytes

    def length(self, piece: int) -> int:
        """Bytes in the piece."""
        self._check(piece)
        return min(self.piece_size_bytes, self.size_bytes - piece * self.piece_size_bytes)

    def piece_at(self, offset: int) -> int:
        """The piece that holds the byte at `offset` (0 <= offset < size)."""
        if not 0 <= offset < self.size_bytes:
            raise IndexError(f"offset {offset} outside a blob of {self.size_bytes} bytes")
        return offset // self.piece_size_bytes

    def pieces_in(self, start: int, end: int) -> int:
        """Mask of the pieces that hold bytes from `start` to `end` (exclusive)."""
        if start >= end:
            return 0
        first, last = start // self.piece_size_bytes, (end - 1) // self.piece_size_bytes
        return ((1 << last - first + 1) - 1) << first

    def bytes_in(self, mask: int) -> int:
        """Bytes in all pieces of the mask."""
        if not mask:
            return 0
        last = self.count - 1
        total = mask.bit_count() * self.piece_size_bytes
        if mask >> last & 1:
            total -= self.piece_size_bytes - self.length(last)
        return total

    def byte_ranges(self, mask: int) -> list[tuple[int, int]]:
        """Half-open byte ranges covering exactly the pieces of the mask, adjacent pieces joined."""
        return [
            (first * self.piece_size_bytes, min((last + 1) * self.piece_size_bytes, self.size_bytes))
            for first, last in runs(mask)
        ]

    def _check(self, piece: int) -> None:
        if not 0 <= piece < self.count:
            raise IndexError(f"piece {piece} of a blob with {self.count}")


def indices(mask: int) -> Iterator[int]:
    """The set bits of a mask, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def mask_of(pieces: Iterable[int]) -> int:
    """The mask with these bits set."""
    mask = 0
    for piece in pieces:
        mask |= 1 << piece
    return mask


def runs(mask: int) -> list[tuple[int, int]]:
    """Maximal runs of set bits as (first, last), both inclusive, lowest first."""
    found: list[tuple[int, int]] = []
    base = 0
    while mask:
        skip = (mask & -mask).bit_length() - 1
        mask >>= skip
        length = (~mask & (mask + 1)).bit_length() - 1
        found.append((base + skip, base + skip + length - 1))
        mask >>= length
        base += skip + length
    return found


def first_missing(mask: int, start: int = 0) -> int:
    """The lowest index at or above `start` whose bit is clear: the end of the contiguous prefix from there."""
    shifted = mask >> start
    return start + (~shifted & (shifted + 1)).bit_length() - 1


def mask_to_bytes(mask: int, count: int) -> bytes:
    """A bitfield's wire form, little-endian: piece i is bit i%8 of byte i//8; ceil(count/8) bytes."""
    return mask.to_bytes((count + 7) // 8, "little")


def mask_from_bytes(raw: bytes, count: int) -> int:
    """Inverse of mask_to_bytes. Raises FrameInvalid on a wrong length or bits beyond `count`."""
    mask = int.from_bytes(raw, "little")
    if count < 0 or len(raw) != (count + 7) // 8 or mask >> count:
        raise FrameInvalid(f"bitfield of {len(raw)} bytes does not fit {count} pieces")
    return mask
