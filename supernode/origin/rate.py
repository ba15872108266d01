"""How fast origins send lately: by it, too, blobs are cut. It measures what others time, and asks nobody."""

from __future__ import annotations

import threading
from collections import deque
from statistics import median
from typing import Final

from proto.pieces import MIB

# Less comes at once from the kernel's buffers, and tells nothing.
_TOLD_MIN_BYTES: Final = MIB
# The median of so many bodies counts.
_LATELY: Final = 8


class OriginRate:
    """Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lately: deque[float] = deque(maxlen=_LATELY)

    def came(self, size_bytes: int, elapsed_s: float) -> None:
        """A body of so many bytes ended, so long after its first ones."""
        if size_bytes >= _TOLD_MIN_BYTES:
            with self._lock:
                self._lately.append(size_bytes / max(elapsed_s, 1e-6))

    def bytes_s(self) -> float:
        """0.0 while nothing was measured."""
        with self._lock:
            return median(self._lately) if self._lately else 0.0
