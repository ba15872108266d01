"""Identities, tickets and signatures (Ed25519): who a peer is, what it may download, which hashes are the supernode's.

A PeerId is a public key. The supernode signs (digest, downloader, expiry); the downloader signs the nonce of the
connection it shows the ticket on together with the name of whom it shows it to, so that neither a ticket nor a proof
is of use to anybody else, a server that passes them on included. No key and no proof
is ever logged. Each signed text starts with a label of its own, so that no signature can pass for another kind.
"""

from __future__ import annotations

import base64
import functools
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from proto.errors import ConfigError, DigestInvalid, TicketInvalid
from proto.ids import Digest, PeerId, peer_id_from_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from proto.ids import PeerName
    from proto.pieces import PieceLayout

NONCE_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
KEY_BYTES: Final = 32
# Clocks of a cluster differ a little; an expiry is honoured this much longer.
TICKET_LEEWAY_S: Final = 30.0
# A revoked node may use what it has for so long. While the supernode is away, peers stop this clock (peer.node.clock).
TICKET_LIFE_S: Final = 600.0
TICKET_RENEW_S: Final = TICKET_LIFE_S / 2
TICKET_BYTES_MAX: Final = 512

# The supernode's key and those of nodes signed most of what is checked.
_KEYS_KEPT: Final = 1024
# What comes before the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410, section 7).
_PKCS8_HEAD: Final = bytes.fromhex("302e020100300506032b657004220420")
_TICKET = b"layercast ticket 1\0"
_CONNECTION = b"layercast connection 2\0"
_HELLO = b"layercast hello 1\0"
_HASHES = b"layercast hashes 1\0"


class Identity:
    """A private signing key. `str()` and `repr()` show the public part alone."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.peer: Final = PeerId(key.public_key().public_bytes_raw())

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """For a certificate of this identity, and nothing else."""
        return self._key

    def private_pem(self) -> bytes:
        """The key as TLS takes it: PKCS #8 (RFC 8410), not encrypted. For memory alone."""
        body = base64.b64encode(_PKCS8_HEAD + self._key.private_bytes_raw())
        return b"-----BEGIN PRIVATE KEY-----\n" + body + b"\n-----END PRIVATE KEY-----\n"

    @classmethod
    def generate(cls) -> Identity:
        """A new random identity, for tests and for the first start."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load_or_create(cls, path: Path) -> Identity:
        """The key in `path` (32 raw bytes, mode 0600), made on the first start. Raises ConfigError."""
        try:
            if not os.path.lexists(path):
                _make_key(path)
        except OSError as error:
            raise ConfigError(f"identity key {path}: {error.strerror}; make its folder writable") from None
        return cls(Ed25519PrivateKey.from_private_bytes(_read_key(path)))

    def sign(self, text: bytes) -> bytes:
        """64 bytes of signature."""
        return self._key.sign(text)

    def __repr__(self) -> str:
        return f"Identity({self.peer.hex()[:8]})"


def _make_key(path: Path) -> None:
    """A new one, whole or not at all: who is killed meanwhile makes another at the next start. Raises OSError."""
    part = path.with_name(f".{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(Ed25519PrivateKey.generate().private_bytes_raw())
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _read_key(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"identity key {path}: {error.strerror}; make it readable for this user alone") from None
    if len(raw) != KEY_BYTES:
        raise ConfigError(f"identity key {path} has {len(raw)} bytes: expected {KEY_BYTES}; remove it to get a new one")
    return raw


@functools.lru_cache(_KEYS_KEPT)
def _public_key(raw: bytes) -> Ed25519PublicKey:
    """Raises ValueError."""
    return Ed25519PublicKey.from_public_bytes(raw)


def _verify(public: bytes, signature: bytes, text: bytes, what: str) -> None:
    try:
        _public_key(public).verify(signature, text)
    except (InvalidSignature, ValueError):
        raise TicketInvalid(f"{what}: the signature does not match") from None


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a verified ticket says: this peer may download this blob until `expires_unix_s`."""

    digest: Digest
    peer: PeerId
    expires_unix_s: float

    def check(self, digest: Digest, now_unix_s: float) -> None:
        """Raise TicketInvalid unless it is for this blob and not expired."""
        if digest != self.digest:
            raise TicketInvalid(f"ticket is for blob {self.digest.short}, not {digest.short}")
        if now_unix_s > self.expires_unix_s + TICKET_LEEWAY_S:
            raise TicketInvalid(f"ticket for blob {self.digest.short} has expired: announce again")


def issue_ticket(supernode: Identity, digest: Digest, peer: PeerId, expires_unix_s: float) -> bytes:
    """expiry (8 bytes, big-endian seconds), peer (32), digest (text), signature (64)."""
    body = struct.pack(">Q", int(expires_unix_s)) + peer + str(digest).encode()
    return body + supernode.sign(_TICKET + body)


def read_ticket(raw: bytes, supernode_key: bytes) -> Ticket:
    """Check the signature and take it apart; expiry and digest are Ticket.check. Raises TicketInvalid."""
    if not 8 + 32 + SIGNATURE_BYTES < len(raw) <= TICKET_BYTES_MAX:
        raise TicketInvalid(f"ticket of {len(raw)} bytes is malformed")
    body, signature = raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:]
    _verify(supernode_key, signature, _TICKET + body, "ticket")
    (expires,) = struct.unpack(">Q", body[:8])
    try:
        digest = Digest.parse(body[40:].decode("ascii"))
        return Ticket(digest, peer_id_from_bytes(body[8:40]), float(expires))
    except (DigestInvalid, UnicodeDecodeError):
        raise TicketInvalid("ticket names no valid digest") from None


def prove_connection(identity: Identity, server: PeerName, nonce: bytes, ticket: bytes) -> bytes:
    """The downloader's proof to this server that the ticket is its own, on the connection that gave the nonce."""
    return identity.sign(_CONNECTION + server + nonce + ticket)


def check_connection(peer: PeerId, server: PeerName, nonce: bytes, ticket: bytes, proof: bytes) -> None:
    """Raises TicketInvalid unless `peer` signed this connection's nonce with this ticket for this server."""
    _verify(peer, proof, _CONNECTION + server + nonce + ticket, "ticket proof")


def sign_hello(identity: Identity, nonce: bytes, supernode_key: bytes) -> bytes:
    """A peer's proof of identity when a session opens."""
    return identity.sign(_HELLO + nonce + supernode_key)


def check_hello(peer: bytes, nonce: bytes, supernode_key: bytes, proof: bytes) -> None:
    """Raises TicketInvalid unless the peer holds the private key of the identity it claims."""
    _verify(peer, proof, _HELLO + nonce + supernode_key, "hello")


def _hashes_text(digest: Digest, layout: PieceLayout, first: int, hashes: bytes) -> bytes:
    head = struct.pack(">QQQ", layout.size_bytes, layout.piece_size_bytes, first)
    return _HASHES + str(digest).encode() + b"\0" + head + hashes


def sign_hashes(supernode: Identity, digest: Digest, layout: PieceLayout, first: int, hashes: bytes) -> bytes:
    """The supernode's word that pieces first.. of this blob have these BLAKE3 hashes (32 bytes each)."""
    return supernode.sign(_hashes_text(digest, layout, first, hashes))


def check_hashes(
    supernode_key: bytes, digest: Digest, layout: PieceLayout, first: int, hashes: bytes, signature: bytes
) -> None:
    """Raises TicketInvalid unless the supernode signed exactly these hashes."""
    _verify(supernode_key, signature, _hashes_text(digest, layout, first, hashes), "piece hashes")
