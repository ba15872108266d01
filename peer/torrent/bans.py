"""Peers that libtorrent shut out of one blob for wrong blocks, and when they are to be tried again. Pure.

libtorrent blames everybody who had a part in a piece that failed. An honest peer whose blocks were mixed with a liar's
in four such pieces is shut out like the liar, for as long as the torrent is there, and with few neighbours nobody may
be left. So when nothing more comes, the torrent begins anew, and those that were shut out are met one at a time, the
least blamed first: the liar had a part in every piece that failed. Nothing wrong is ever held, whoever sent it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

# Without payload, from anybody. A slow link brings a block more often; after 30 s a client goes to the origin.
STUCK_S: Final = 4.0


@dataclass(slots=True)
class Suspects:
    """See the module. `moved_s` is when payload came last, or something was tried."""

    moved_s: float
    # How often each (HOST:PORT) was blamed since the torrent began.
    blamed: dict[str, int] = field(default_factory=dict)
    # To be met one after the other.
    waiting: list[str] = field(default_factory=list)

    def shut_out(self, address: str) -> None:
        """libtorrent says so once a piece."""
        self.blamed[address] = self.blamed.get(address, 0) + 1

    def is_stuck(self, now: float) -> bool:
        """Nothing comes, and that may be because of whom we do without."""
        return bool(self.blamed or self.waiting) and now - self.moved_s >= STUCK_S

    def leave_out(self, addresses: list[str]) -> list[str]:
        """All but those that wait."""
        return [address for address in addresses if address not in self.waiting]

    def next(self, now: float) -> str | None:
        """Whom to meet now; None if the torrent has to begin anew for that."""
        self.moved_s = now
        return self.waiting.pop(0) if self.waiting else None

    def anew(self, now: float, known: Collection[str]) -> Suspects:
        """For a new beginning: of those that we can connect to all but the least blamed wait. The others come to us."""
        blamed = sorted(self.blamed.keys() & set(known), key=lambda address: (self.blamed[address], address))
        return Suspects(now, waiting=[*blamed[1:], *self.waiting])
