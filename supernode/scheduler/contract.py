"""Every event the scheduler takes and every command it gives. Plain data; see machine.py for what they do.

Swarms and peers are small integers chosen by the shell, never reused within an epoch; SEED (0) is the supernode's
own store, which is a peer like any other except that the origin fills it. Piece sets are integer masks (bit i is
piece i). Every GrantLease ends in exactly one of PieceStored(lease_id), FetchFailed(lease_id) or the machine's own
CancelLease (an expiry is one too);
every FetchFromOrigin in one OriginEnded; every TryOrigin in one OriginTried or the loss of that peer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

SEED: Final = 0
# Ids of leases and fetches: the epoch, and so many bits that count.
ID_BITS: Final = 40


class FailReason(Enum):
    """Why a lease ended without its piece; the wire's FetchReason, as far as the policy tells them apart."""

    BUSY = "busy"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    CORRUPT = "corrupt"
    NOT_HELD = "not_held"
    TICKET = "ticket"
    PROTOCOL = "protocol"
    LOCAL = "local"
    CANCELLED = "cancelled"
    # One receiver says so, and nobody agrees: between these two alone.
    DISPUTED = "disputed"


@dataclass(frozen=True, slots=True)
class Pace:
    """What transfers came to lately: the rate of one, bytes/s, and what a lease takes beside its transfer, seconds."""

    rate_bytes_s: float
    lease_s: float


# --- events --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeerJoined:
    """A session opened. Rates in bytes/s, None while unknown; zone is `region/zone/rack`, parts may be empty."""

    peer: int
    zone: str
    upload_slots: int
    download_slots: int
    upload_rate_bytes_s: float | None = None
    download_rate_bytes_s: float | None = None


@dataclass(frozen=True, slots=True)
class PeerLost:
    """The session ended; its pieces cannot be had and its leases are over."""

    peer: int
    reason: str


@dataclass(frozen=True, slots=True)
class PeerQuarantined:
    """It served corrupt bytes, which was proved: grant nothing from it any more and count its copies no longer."""

    peer: int
    reason: str


@dataclass(frozen=True, slots=True)
class QuarantineEnded:
    """What it holds counts again."""

    peer: int


@dataclass(frozen=True, slots=True)
class SwarmOpened:
    """A blob whose size is known and which may be fetched from the origin.

    `seed_held`: pieces in the supernode's own store, verified. `recover_peers` held pieces before a restart: until
    they have announced, or `recover_until` (a `now` value) has passed, the origin is asked for nothing: they may hold
    it, or be asking by themselves. `once_ready`: what others than the seed had then. `inline`: the blob travels in
    control messages.
    """

    swarm: int
    size_bytes: int
    piece_size_bytes: int
    seed_held: int = 0
    once_ready: int = 0
    recover_until: float = 0.0
    recover_peers: tuple[int, ...] = ()
    inline: bool = False


@dataclass(frozen=True, slots=True)
class RecoveryPeerReturned:
    """A peer that held pieces before the restart (one entry of `recover_peers`) has announced this swarm again."""

    swarm: int
    peer: int


@dataclass(frozen=True, slots=True)
class PeerAnnounced:
    """What a peer holds of a swarm, replacing what was known, and whether it wants the rest.

    `ranges`: of the rest it wants what PiecesWanted names, and no more. `background`: no client there waits for it.
    """

    swarm: int
    peer: int
    held: int
    wanted: bool
    ranges: bool = False
    background: bool = False


@dataclass(frozen=True, slots=True)
class PeerOffers:
    """Pieces (mask) that a peer holds though nobody vouches for them, and those that it fetches upstream by itself.

    Nobody can be sent to it for these yet. The origin is not asked for the latter, for `for_s` seconds if nothing new
    is heard; nor meanwhile for the former, which the seed can use once it has all others.
    """

    swarm: int
    peer: int
    held: int
    fetching: int
    for_s: float


@dataclass(frozen=True, slots=True)
class PeerWithdrew:
    """The peer neither holds nor wants any of it."""

    swarm: int
    peer: int


@dataclass(frozen=True, slots=True)
class PieceStored:
    """A piece passed its hash at this peer. `lease_id` 0: it came otherwise (origin for SEED, upstream).

    A leased one waited so long to be asked for, and that so long for its first byte; `elapsed_s` counts from there.
    Nothing is decided by these two: they are for who reads the event log.
    `unvouched`: that hash is the word of the peer that fetched it for all. Others may have it, but not the seed, which
    brings all such pieces at once when nothing else is missing.
    """

    swarm: int
    peer: int
    piece: int
    lease_id: int = 0
    elapsed_s: float = 0.0
    waited_s: float = 0.0
    answered_s: float = 0.0
    unvouched: bool = False


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """A lease ended without its piece."""

    lease_id: int
    reason: FailReason


@dataclass(frozen=True, slots=True)
class PieceEvicted:
    """These pieces (mask) are no longer held by the peer."""

    swarm: int
    peer: int
    pieces: int


@dataclass(frozen=True, slots=True)
class ReaderMoved:
    """The first piece a client on that node waits for; None when nobody reads."""

    swarm: int
    peer: int
    piece: int | None


@dataclass(frozen=True, slots=True)
class PiecesWanted:
    """The pieces (mask) that clients on that node wait for who read ranges, in place of those before."""

    swarm: int
    peer: int
    pieces: int


@dataclass(frozen=True, slots=True)
class OriginEnded:
    """A FetchFromOrigin ended: `ok`, or the origin could not give the rest (pieces that came were reported).

    `retry_after_s`: it wants nobody to ask for so long.
    """

    fetch_id: int
    swarm: int
    ok: bool
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class OriginTried:
    """An elected peer's own attempt ended. `retry_after_s`: the origin wants nobody to ask for so long."""

    swarm: int
    peer: int
    ok: bool
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class OriginHeadway:
    """An elected peer stored a piece whose hash only it knows: nobody can fetch it yet, but the attempt gets on."""

    swarm: int
    peer: int


@dataclass(frozen=True, slots=True)
class SwarmVoided:
    """The blob did not match its digest: nobody holds anything of it any more and nobody wants it."""

    swarm: int


@dataclass(frozen=True, slots=True)
class PreheatRateSet:
    """The operator's limit of what each node is sent of preheats from now on, bytes/s; 0.0: none."""

    rate_bytes_s: float


@dataclass(frozen=True, slots=True)
class SwarmClosed:
    """Nobody wants or holds it, or the shell evicted it: forget the swarm."""

    swarm: int


@dataclass(frozen=True, slots=True)
class Wakeup:
    """The time `next_wakeup()` named has come."""


Event = (
    PeerJoined
    | PeerLost
    | PeerQuarantined
    | QuarantineEnded
    | SwarmOpened
    | RecoveryPeerReturned
    | PeerAnnounced
    | PeerOffers
    | PeerWithdrew
    | PieceStored
    | FetchFailed
    | PieceEvicted
    | ReaderMoved
    | PiecesWanted
    | OriginEnded
    | OriginTried
    | OriginHeadway
    | SwarmVoided
    | SwarmClosed
    | PreheatRateSet
    | Wakeup
)


# --- commands ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class GrantLease:
    """Tell `receiver` (SEED included) to fetch the piece from `source`. `inline`: send the content itself.

    The receiver's deadline is `expires_in_s` from the start of the transfer. `ahead`: it waits its turn at the source.
    `behind`: the lease that it follows at the receiver, which asks for it when that one is nearly over; 0 for none.
    Not to be changed, like the others; not frozen, for one is made a lease and a frozen one takes four times as long.
    """

    lease_id: int
    swarm: int
    piece: int
    receiver: int
    source: int
    expires_in_s: float
    ahead: bool
    behind: int
    inline: bool


@dataclass(frozen=True, slots=True)
class CancelLease:
    """Tell the receiver to stop; the lease is over as far as the machine is concerned."""

    lease_id: int
    receiver: int
    reason: str


@dataclass(frozen=True, slots=True)
class FetchFromOrigin:
    """Ask the origin for exactly these pieces (mask); PieceStored(peer=SEED) follows for each."""

    fetch_id: int
    swarm: int
    pieces: int


@dataclass(frozen=True, slots=True)
class EndFetch:
    """Somebody waits for other pieces of the blob: end this fetch, which is then asked for again. It still ends."""

    fetch_id: int
    swarm: int


@dataclass(frozen=True, slots=True)
class TryOrigin:
    """The supernode cannot reach the origin: this one peer may try for all, and ask for these pieces (mask), which no
    node has.
    """

    swarm: int
    peer: int
    pieces: int


@dataclass(frozen=True, slots=True)
class OpenOrigin:
    """Nobody elected succeeded: every peer may ask the origin for what it still misses."""

    swarm: int


Command = GrantLease | CancelLease | FetchFromOrigin | EndFetch | TryOrigin | OpenOrigin
