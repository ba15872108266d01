"""The numbers of nodes: who is connected, expected back after a restart, quarantined. Plain data on the event loop."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from proto.wire.messages import SEED_NODE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from proto.ids import PeerId
    from supernode.control.peer_session import PeerSession

QUARANTINED_MAX: Final = 10_000
# Sources that one peer may have quarantined without another witness: who finds everybody corrupt is corrupt itself.
ACCUSED_MAX: Final = 2
# Peers expected back after a restart keep a number each; beyond this further ones are not expected.
EXPECTED_MAX: Final = 50_000


class NodeRegistry:
    """Numbers count up from 1 and are never reused within an epoch."""

    def __init__(self) -> None:
        self._sessions: dict[int, PeerSession] = {}
        self._by_peer: dict[PeerId, int] = {}
        self._expected: dict[PeerId, int] = {}
        self._quarantined: OrderedDict[PeerId, None] = OrderedDict()
        # Whom each peer said served it corrupt bytes.
        self._accused: OrderedDict[PeerId, set[PeerId]] = OrderedDict()
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

    def quarantine(self, peer: PeerId) -> None:
        """Remember a peer that served corrupt bytes, for as long as this process runs."""
        self._quarantined[peer] = None
        if len(self._quarantined) > QUARANTINED_MAX:
            self._quarantined.popitem(last=False)

    def may_accuse(self, accuser: PeerId, source: PeerId) -> bool:
        """Whether the accuser's word that this source is corrupt counts; each has it for so many sources only."""
        accused = self._accused.setdefault(accuser, set())
        self._accused.move_to_end(accuser)
        if len(self._accused) > QUARANTINED_MAX:
            self._accused.popitem(last=False)
        if len(accused) < ACCUSED_MAX:
            accused.add(source)
        return source in accused

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
