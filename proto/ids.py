"""Digest and PeerId: the names things have on both sides. Parsing and printing only."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType

from proto.errors import DigestInvalid

if TYPE_CHECKING:
    from hashlib import _Hash

# The two algorithms registered in the OCI image specification, with their length in hex characters.
HEX_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")
_ANY = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([A-Za-z0-9=_-]{1,255})")

PEER_ID_BYTES = 32
PEER_NAME_BYTES = 12

# An Ed25519 public key, 32 bytes.
PeerId = NewType("PeerId", bytes)
# What peers know each other by, where no signature is checked: the first 12 bytes of it. Nobody makes a key that begins
# like another's: 2^96 attempts.
PeerName = NewType("PeerName", bytes)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A content digest, for example `sha256:` and 64 lower-case hex characters."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `algorithm:hex`. Raises DigestInvalid."""
        algorithm, separator, hex_part = text.partition(":")
        length = HEX_LENGTHS.get(algorithm)
        if not separator or length is None:
            raise DigestInvalid(f"digest {text[:80]!r}: expected sha256:HEX or sha512:HEX")
        if len(hex_part) != length or not _HEX.fullmatch(hex_part):
            raise DigestInvalid(f"digest {text[:80]!r}: {algorithm} takes {length} lower-case hex characters")
        return cls(algorithm, hex_part)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of these very bytes."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    @classmethod
    def parse_any(cls, text: str) -> Digest:
        """The same, also of an algorithm that is not checked here: any may be used. Raises DigestInvalid."""
        match = _ANY.fullmatch(text)
        return cls.parse(text) if match is None or match[1] in HEX_LENGTHS else cls(match[1], match[2])

    @property
    def checked(self) -> bool:
        """Whether content can be compared with it. What cannot be compared is not shared."""
        return self.algorithm in HEX_LENGTHS

    def hasher(self) -> _Hash:
        """A fresh hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    @property
    def short(self) -> str:
        """Twelve characters, for logs."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def peer_id_from_bytes(raw: bytes) -> PeerId:
    """Check the length of an Ed25519 public key. Raises DigestInvalid."""
    if len(raw) != PEER_ID_BYTES:
        raise DigestInvalid(f"peer id of {len(raw)} bytes: expected {PEER_ID_BYTES}")
    return PeerId(raw)


def peer_name(peer: PeerId) -> PeerName:
    """The name that other peers know it by."""
    return PeerName(peer[:PEER_NAME_BYTES])


def peer_name_from_bytes(raw: bytes) -> PeerName:
    """Check its length. Raises DigestInvalid."""
    if len(raw) != PEER_NAME_BYTES:
        raise DigestInvalid(f"peer name of {len(raw)} bytes: expected {PEER_NAME_BYTES}")
    return PeerName(raw)


def short_peer(peer: PeerId | PeerName) -> str:
    """Eight hex characters of a peer id, for logs."""
    return peer.hex()[:8]
