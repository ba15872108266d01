"""When to ask for the next piece: so long before a transfer ends that the answer begins as it ends.

Measures only; asks for nothing.
"""

from __future__ import annotations

from typing import Final

from proto.pieces import KIB

# At least this part of a piece: no less than what the kernel lets an upload keep unsent (see handler).
PART_MIN: Final = 1 / 16
_BYTES_MIN: Final = 8 * KIB
# More would be sharing the link, which is what the next one waits for.
_PART_MAX: Final = 1 / 2
_WEIGHT: Final = 1 / 8


class RequestLead:
    """Bytes that come in the time between a request and its answer, by what both lately were.

    Of all threads of a transport: a figure that another thread is about to replace is as good.
    """

    def __init__(self) -> None:
        self._answer_s = 0.0
        self._rate_bytes_s = 0.0

    def answered(self, elapsed_s: float) -> None:
        """The head of an answer came so long after its request, which did not wait its turn."""
        self._answer_s += _WEIGHT * (elapsed_s - self._answer_s) if self._answer_s else elapsed_s

    def received(self, size_bytes: int, elapsed_s: float) -> None:
        """A piece came whole."""
        rate = size_bytes / max(elapsed_s, 1e-6)
        self._rate_bytes_s += _WEIGHT * (rate - self._rate_bytes_s) if self._rate_bytes_s else rate

    def size_bytes(self, piece_bytes: int) -> int:
        """Of a piece of this size."""
        wanted = self._answer_s * self._rate_bytes_s
        return round(min(max(wanted, piece_bytes * PART_MIN, _BYTES_MIN), piece_bytes * _PART_MAX))
