"""What real runs lose between pieces: how long messages, threads and requests take, as a run's event log had them.

Plain data with one question, how long this time. `layercast-bench fit` makes one of an event log; it decides nothing.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from proto.errors import ConfigError

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Delay:
    """Seconds at equal parts of all cases, ascending: of five the least, the quartiles and the most."""

    quantiles_s: tuple[float, ...]

    @classmethod
    def of(cls, times_s: Sequence[float], parts: int) -> Delay:
        """Of what was seen, in so many parts, without the outermost hundredths. Raises ValueError for nothing."""
        ordered = sorted(times_s)
        if not ordered:
            raise ValueError("no such case")
        low, high = int(0.01 * len(ordered)), len(ordered) - 1 - int(0.01 * len(ordered))
        at = [low + part * (high - low) / parts for part in range(parts + 1)]
        return cls(tuple(round(max(0.0, ordered[round(place)]), 6) for place in at))

    @property
    def mean_s(self) -> float:
        """Over all cases."""
        if len(self.quantiles_s) == 1:
            return self.quantiles_s[0]
        return sum((low + high) / 2 for low, high in pairwise(self.quantiles_s)) / (len(self.quantiles_s) - 1)

    def draw(self, rng: random.Random) -> float:
        """One case."""
        quantiles = self.quantiles_s
        if len(quantiles) == 1:
            return quantiles[0]
        place = rng.random() * (len(quantiles) - 1)
        low = int(place)
        return quantiles[low] + (place - low) * (quantiles[low + 1] - quantiles[low])


NOTHING: Final = Delay((0.0,))


@dataclass(frozen=True, slots=True)
class Profile:
    """Each comes on top of the network's round trip."""

    # A message between the supernode and a node, one way, with the wake-ups at both its ends.
    control: Delay = NOTHING
    # From a grant heard to its request sent, over a connection that stands, where it waits for nothing.
    wake: Delay = NOTHING
    # The same where there was no connection yet.
    connect: Delay = NOTHING
    # From a request to the first byte of its answer, where the source sends nothing else.
    request: Delay = NOTHING
    # Of a link's goodput what a transfer alone on both its links gets.
    share: float = 1.0


NO_DELAYS: Final = Profile()


def profile_document(profile: Profile) -> dict[str, object]:
    """As JSON keeps it."""
    return {
        name: list(value.quantiles_s) if isinstance(value, Delay) else value
        for name, value in ((field.name, getattr(profile, field.name)) for field in dataclasses.fields(profile))
    }


def read_profile(path: Path) -> Profile:
    """What profile_document() gave. Raises ConfigError."""
    try:
        content = json.loads(path.read_text())
        delays = {
            name: Delay(tuple(float(value) for value in content[name]))
            for name in ("control", "wake", "connect", "request")
        }
        profile = Profile(**delays, share=float(content["share"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--profile {path}: not a profile that `layercast-bench fit` wrote ({error})") from None
    for name, delay in delays.items():
        if not delay.quantiles_s or list(delay.quantiles_s) != sorted(delay.quantiles_s) or delay.quantiles_s[0] < 0:
            raise ConfigError(f"--profile {path}: {name} has to be ascending seconds")
    if not 0.0 < profile.share <= 1.0:
        raise ConfigError(f"--profile {path}: share {profile.share} is not a part of a link")
    return profile
