"""The numbers of nodes: who is connected, expected back after a restart, quarantined. Plain data on the event loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proto.bounded_dict import BoundedDict
from proto.wire.messages import SEED_NODE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from proto.ids import PeerId
    from supernode.control.peer_session import PeerSession

QUARANTINED_MAX: Final = 10_000
# A disk or a memory is mended meanwhile, or proved bad again by the next transfer.
QUARANTINE_S: Final = 3600.0
# Peers expected back after a restart keep a number each; beyond this further ones are not expected.
EXPECTED_MAX: Final = 50_000


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Why nothing is fetched from a peer, and until when, monotonic seconds."""

    reason: str
    until_s: float


class NodeRegistry:
    """Numbers count up from 1 and are never reused within an epoch."""

    def __init__(self) -> None:
        self._sessions: dict[int, PeerSession] = {}
        self._by_peer: dict[PeerId, int] = {}
        self._expected: dict[PeerId, int] = {}
        # The first to end first.
        self._quarantined: BoundedDict[PeerId, Quarantine] = BoundedDict(QUARANTINED_MAX)
        self._last = SEED_NODE

    def number_for(self, peer: PeerId) -> int:
        """The number for a session of this peer that opens now: the one under which it is expected, or a new one."""
        expected = self._expected.pop(peer, None)
        return expected if expected is not None else self._next()

    def expect(self, peer: PeerId) -> int | None:
        """The number of a peer recorded before the restart: its session's, or the one that its session will get."""
        number = self._by_peer.get(peer) or self._expected.get(peer)
        if number is None and len(self._expected) < EXPECTED_MAX:
            number = self._expected[peer] = self._next()
        return number

    def add(self, session: PeerSession) -> None:
        """A session opened."""
        self._sessions[session.node] = session
        self._by_peer[session.info.peer] = session.node

    def remove(self, session: PeerSession) -> None:
        """A session ended. Idempotent."""
        self._sessions.pop(session.node, None)
        if self._by_peer.get(session.info.peer) == session.node:
            del self._by_peer[session.info.peer]

    def session(self, node: int) -> PeerSession | None:
        """The open session of a node."""
        return self._sessions.get(node)

    def session_of(self, peer: PeerId) -> PeerSession | None:
        """The open session of a peer."""
        return self._sessions.get(self._by_peer.get(peer, SEED_NODE))

    def sessions_of(self, nodes: Iterable[int]) -> list[PeerSession]:
        """The open sessions of these nodes, in their order."""
        found = (self._sessions.get(node) for node in nodes)
        return [session for session in found if session is not None]

    def quarantine(self, peer: PeerId, reason: str, now_s: float) -> None:
        """Put aside a peer that was proved to serve corrupt bytes, for QUARANTINE_S."""
        self._quarantined[peer] = Quarantine(reason, now_s + QUARANTINE_S)

    def end_quarantine(self, peer: PeerId) -> bool:
        """It is asked again. False if it was in none."""
        return self._quarantined.pop(peer, None) is not None

    def quarantines_over(self, now_s: float) -> list[PeerId]:
        """Whose time is over."""
        over = []
        for peer, quarantine in self._quarantined.items():
            if quarantine.until_s > now_s:
                break
            over.append(peer)
        return over

    @property
    def quarantined(self) -> Mapping[PeerId, Quarantine]:
        """All that are put aside now, connected or not."""
        return self._quarantined

    def is_quarantined(self, peer: PeerId) -> bool:
        """Whether nothing may be fetched from it."""
        return peer in self._quarantined

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[PeerSession]:
        return iter(list(self._sessions.values()))

    def _next(self) -> int:
        self._last += 1
        return self._last
