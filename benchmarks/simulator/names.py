"""What simulated nodes and blobs are called on the wire. Node 0 is the seed."""

from __future__ import annotations

from functools import cache

from proto.ids import PEER_ID_BYTES, PEER_NAME_BYTES, Digest, PeerId, PeerName
from proto.wire.messages import Source

SOURCE = Source("registry.example.com", "simulated/image")
# What the hash of any piece is here: nobody looks at it.
ANY_HASH = bytes(32)


@cache
def digest_of(blob: int) -> Digest:
    """A stand-in for the digest of the scenario's blob with this index."""
    return Digest.of(f"the simulated blob {blob}".encode())


@cache
def peer_id(node: int) -> PeerId:
    """A stand-in for the node's public key, of which peers get the beginning as its name."""
    return PeerId(node.to_bytes(PEER_NAME_BYTES, "big").ljust(PEER_ID_BYTES, b"\0"))


@cache
def address_of(node: int) -> str:
    """Where its pieces are fetched from."""
    return f"10.{node >> 16 & 255}.{node >> 8 & 255}.{node & 255}:65002"


def node_of(peer: PeerName) -> int:
    """The node whose stand-in it is."""
    return int.from_bytes(peer, "big")
