"""Where peers fetch pieces from the seed: as the operator advertises it, else where each of them reached us.

Peers are given numeric addresses only, so a name is looked up here from time to time. Nobody waits for a name server.
"""

from __future__ import annotations

from typing import Final

from proto.config.values import HostPort, parse_host_port, parse_numeric
from proto.runtime.resources import numeric_address

# How often a name is looked up: it may move to another machine. Sessions that open later get the new address.
LOOK_UP_EVERY_S: Final = 60.0


class SeedAddress:
    """`bound` is the upload port's own HOST:PORT."""

    def __init__(self, advertised: HostPort | None, bound: str) -> None:
        self._advertised = advertised
        self._bound = parse_host_port(bound)
        self._found: HostPort | None = None

    @property
    def is_name(self) -> bool:
        """Whether look_up() has anything to do after the first time."""
        if self._advertised is None:
            return False
        try:
            parse_numeric(str(self._advertised))
        except ValueError:
            return True
        return False

    def look_up(self) -> None:
        """Blocking. What was found before stays where the name server does not answer."""
        if self._advertised is not None:
            self._found = numeric_address(self._advertised) or self._found

    def seen_at(self, local_host: str) -> str:
        """HOST:PORT for a peer that reached us at this address."""
        if self._found is not None:
            return str(self._found)
        if self._bound.host not in ("0.0.0.0", "::"):
            return str(self._bound)
        return str(HostPort(local_host.removeprefix("::ffff:"), self._bound.port))
