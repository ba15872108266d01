"""How a session between a peer and its supernode is opened, and kept open. Plain data, no behaviour.

The session is a WebSocket at `/v1/session`. The supernode opens with Challenge, the peer answers Hello, the
supernode Welcome (or Refused, then it closes). What follows is in proto.wire.messages.

One more field of Hello (a bool) and three more of Welcome were used once: peers of that release still send the former.
They may be used again when the version rises.
"""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOL_VERSION = 4
# How pieces travel (Challenge.transport): one lease a piece, or BitTorrent swarms.
SCHEDULED = "scheduled"
TORRENT = "torrent"


@dataclass(frozen=True, slots=True)
class Challenge:
    """Supernode -> peer, first. `supernode` is its Ed25519 public key, `epoch` grows with each of its starts.

    `transport` is how pieces travel in this cluster: SCHEDULED or TORRENT.
    """

    version: int
    nonce: bytes
    supernode: bytes
    epoch: int
    transport: str = SCHEDULED


@dataclass(frozen=True, slots=True)
class Hello:
    """Peer -> supernode. `proof` signs the nonce and the supernode's key (proto.wire.tickets.sign_hello).

    Rates are bytes a second, 0 when not known. `boot_id` changes when the machine restarted: bitfields
    announced after that were verified again. `upload_address` is HOST:PORT; an empty host means "the address
    you see me at". `delivery_port` is where it takes part in the cluster's transport, on the same host; 0 for none, or
    where that has no port of its own.
    """

    version: int
    peer: bytes
    boot_id: str
    proof: bytes
    upload_address: str
    zone: str
    upload_slots: int
    download_slots: int
    upload_rate_bytes_s: int
    download_rate_bytes_s: int
    agent: str
    delivery_port: int = 0


@dataclass(frozen=True, slots=True)
class Welcome:
    """Supernode -> peer: the session is open. Silence of three such intervals ends it.

    Whoever heard or said nothing for more than one pings; other frames are as good as a ping and its answer.
    """

    version: int
    ping_interval_s: float
    agent: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Supernode -> peer: no session, or no longer. `code` is version, identity, limit, frame, revoked or shutdown."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Either way; answered by Pong with the same number."""

    number: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to Ping."""

    number: int


@dataclass(frozen=True, slots=True)
class Clock:
    """Supernode -> peer, with Welcome: its clock now, by which tickets end."""

    unix_ms: int


@dataclass(frozen=True, slots=True)
class CertificateDue:
    """Supernode -> peer: ask for a new certificate at some moment of the next `within_s` seconds."""

    within_s: float
