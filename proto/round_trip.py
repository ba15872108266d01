"""How long an answer may take before it is missed, from how long answers took. Pure: no clock, no I/O.

RFC 6298: smoothed round trip and four deviations, doubled each time that it was too short, until one is measured again.
"""

from __future__ import annotations

from typing import Final

# Nothing measured yet: as a connection across the world needs.
FIRST_S: Final = 0.5
# Below, a busy process is taken for a loss.
DEVIATIONS_MIN_S: Final = 0.1
PATIENCE_MAX_S: Final = 4.0

_SMOOTHED_PART: Final = 1 / 8
_DEVIATION_PART: Final = 1 / 4
_DEVIATIONS: Final = 4


class RoundTrip:
    """That of one session, as one side measures it."""

    def __init__(self) -> None:
        self._smoothed_s = 0.0
        self._deviation_s = 0.0
        self._measured = False
        self._doubled = 1

    def measure(self, sample_s: float) -> None:
        """So long it took from what was sent once to the answer, without what the other side let it wait."""
        if self._measured:
            off_s = abs(self._smoothed_s - sample_s)
            self._deviation_s += _DEVIATION_PART * (off_s - self._deviation_s)
            self._smoothed_s += _SMOOTHED_PART * (sample_s - self._smoothed_s)
        else:
            self._smoothed_s, self._deviation_s, self._measured = sample_s, sample_s / 2, True
        self._doubled = 1

    def missed(self) -> None:
        """No answer came in time; it may be the time that was too short."""
        if self.patience_s < PATIENCE_MAX_S:
            self._doubled *= 2

    @property
    def patience_s(self) -> float:
        """What takes longer is lost."""
        if not self._measured:
            return min(self._doubled * FIRST_S, PATIENCE_MAX_S)
        usual_s = self._smoothed_s + max(_DEVIATIONS * self._deviation_s, DEVIATIONS_MIN_S)
        return min(self._doubled * usual_s, PATIENCE_MAX_S)
