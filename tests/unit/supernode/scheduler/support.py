"""Shorthand for the scheduler's transcripts: a machine with peers and a swarm, masks as strings, commands as tuples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler import contract, invariants
from supernode.scheduler.machine import Scheduler
from supernode.scheduler.settings import SchedulerSettings

if TYPE_CHECKING:
    from supernode.scheduler.contract import Command, Event

PIECE_BYTES = 1000
SWARM = 1


class Playbook:
    """Feeds events to a scheduler at a time that only moves forward, and checks the invariants after each."""

    def __init__(self, scheduler: Scheduler | None = None, *, seed_slots: int = 8) -> None:
        self.scheduler = scheduler or Scheduler(
            seed=1, epoch=1, settings=SchedulerSettings(), seed_upload_slots=seed_slots
        )
        self.now = 0.0

    def tell(self, *events: Event, after_s: float = 0.0) -> list[Command]:
        """All commands that the events gave rise to."""
        self.now += after_s
        commands: list[Command] = []
        for event in events:
            commands += self.scheduler.handle(event, self.now)
            invariants.check(self.scheduler)
        return commands

    def wake(self) -> list[Command]:
        """Pass the time until the machine wants to be woken."""
        due = self.scheduler.next_wakeup()
        assert due is not None, "nothing is pending"
        self.now = max(self.now, due)
        return self.tell(contract.Wakeup())

    def wake_until(self, kind: type[Command], tries: int = 50) -> Command:
        """Wake until a command of this kind comes."""
        for _ in range(tries):
            for command in self.wake():
                if isinstance(command, kind):
                    return command
        raise AssertionError(f"no {kind.__name__} in {tries} wakeups")

    def join(self, *peers: int, zone: str = "", rate: float | None = None) -> None:
        """Sessions of peers that state this rate for both directions, or none."""
        for peer in peers:
            self.tell(contract.PeerJoined(peer, zone, 8, 8, rate, rate))

    def open(self, held: str, *, swarm: int = SWARM, inline: bool = False) -> list[Command]:
        """A swarm of len(held) pieces; `held` is the seed's, '*' for held."""
        return self.tell(
            contract.SwarmOpened(swarm, len(held) * PIECE_BYTES, PIECE_BYTES, seed_held=mask(held), inline=inline)
        )

    def open_at_peers(self, pieces: int) -> None:
        """A swarm that the seed has let go: what peers announce is all there is, and it wants none of it back."""
        self.open("*" * pieces)
        self.tell(contract.PieceEvicted(SWARM, contract.SEED, mask("*" * pieces)))

    def want(self, peer: int, held: str = "", *, swarm: int = SWARM) -> list[Command]:
        """The peer announces what it holds and wants the rest."""
        return self.tell(contract.PeerAnnounced(swarm, peer, mask(held), True))

    def read(self, peer: int, asked: str, *, held: str = "", swarm: int = SWARM) -> list[Command]:
        """The peer announces what it holds, and that its clients read ranges, which are in these pieces."""
        announced = contract.PeerAnnounced(swarm, peer, mask(held), True, ranges=True)
        return self.tell(announced, contract.PiecesWanted(swarm, peer, mask(asked)))

    def hold(self, peer: int, held: str, *, swarm: int = SWARM) -> list[Command]:
        """The peer announces what it holds and wants nothing."""
        return self.tell(contract.PeerAnnounced(swarm, peer, mask(held), False))

    def has_served(self, peer: int) -> None:
        """Somebody got a piece from the peer before."""
        self.scheduler.inspect().nodes[peer].served = True

    def seed_gets(self, *pieces: int, swarm: int = SWARM, after_s: float = 0.0) -> list[Command]:
        """Pieces arrive from the origin."""
        self.now += after_s
        return self.tell(*(contract.PieceStored(swarm, contract.SEED, piece) for piece in pieces))

    def stored(self, lease: contract.GrantLease, *, elapsed_s: float = 1.0) -> list[Command]:
        """The lease ends well after `elapsed_s`."""
        event = contract.PieceStored(lease.swarm, lease.receiver, lease.piece, lease.lease_id, elapsed_s)
        return self.tell(event, after_s=elapsed_s)


def mask(held: str) -> int:
    """'* *' is pieces 0 and 2."""
    return sum(1 << piece for piece, sign in enumerate(held) if sign == "*")


def grants(commands: list[Command]) -> list[contract.GrantLease]:
    """The leases among the commands."""
    return [command for command in commands if isinstance(command, contract.GrantLease)]


def only_grant(commands: list[Command]) -> contract.GrantLease:
    """The one lease among the commands."""
    found = grants(commands)
    assert len(found) == 1, found
    return found[0]


def routes(commands: list[Command]) -> list[tuple[int, int, int]]:
    """(piece, source, receiver) of the leases among the commands."""
    return [(lease.piece, lease.source, lease.receiver) for lease in grants(commands)]


def fetched(commands: list[Command]) -> int:
    """Mask of pieces asked of the origin by the commands, which must not ask twice."""
    asked = 0
    for command in commands:
        if isinstance(command, contract.FetchFromOrigin):
            assert not asked & command.pieces
            asked |= command.pieces
    return asked
