"""What the simulated supernode keeps of each session and each swarm, as the production's shell does. Plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.simulator.names import peer_id

if TYPE_CHECKING:
    from benchmarks.simulator.peer import Peer
    from peer.downloader.contract import HashesLearned
    from proto.pieces import PieceLayout
    from proto.wire.messages import Announce, Message


class Session:
    """One connection of a peer. Its number is the scheduler's, and never used again; `node` is where it runs."""

    __slots__ = ("frame", "frame_s", "known", "leases", "node", "number", "peer", "peer_id")

    def __init__(self, number: int, peer: Peer) -> None:
        self.number = number
        self.node = peer.node
        self.peer = peer
        self.peer_id = peer_id(peer.node)
        # Nodes it was introduced to, and its open leases with their swarms and sources (session numbers).
        self.known: dict[int, None] = {}
        self.leases: dict[int, tuple[int, int]] = {}
        # What it is told next, and when the first of it was said.
        self.frame: list[Message | HashesLearned] = []
        self.frame_s = -1.0


class Member:
    """One session's part in a swarm. Masks; `unproven` is held by its own word, with hashes nobody here knows."""

    __slots__ = ("hashes_sent", "held", "unproven", "wanted")

    def __init__(self) -> None:
        self.wanted = False
        self.held = 0
        self.unproven = 0
        self.hashes_sent = 0


class Swarm:
    """One blob at the supernode."""

    __slots__ = (
        "blob",
        "elected",
        "hashes",
        "inline",
        "layout",
        "members",
        "moved_s",
        "opened",
        "origin_state",
        "seed_held",
        "waiting",
    )

    def __init__(self, blob: int, layout: PieceLayout) -> None:
        self.blob = blob
        self.layout = layout
        # Whether the origin was asked if the blob is public: not asked, asked, answered.
        self.opened: bool | None = None
        self.waiting: list[tuple[Session, Announce]] = []
        self.members: dict[int, Member] = {}
        self.hashes = 0
        self.seed_held = 0
        self.inline = False
        # As in supernode.control.swarm_registry: the state of a fetch that is not done, and who was elected to try.
        self.origin_state = ""
        self.moved_s = float("-inf")
        self.elected: int | None = None

    def join(self, session: int) -> Member:
        """The member, made on its first announcement."""
        member = self.members.get(session)
        if member is None:
            member = self.members[session] = Member()
        return member
