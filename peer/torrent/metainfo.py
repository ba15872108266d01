"""Metainfo of a blob: a v2 torrent of one file, cut as the blob's layout is. Hashing and encoding alone, no network.

A v2 torrent hashes blocks of 16 KiB with SHA-256 and joins them in a binary tree (BEP 52); a piece's hash is a node of
that tree. Its pieces are ours where the piece size is a power of two of at least 16 KiB, which every layout made here
has. The `layercast` key makes the info-hash a secret that only the supernode can compute and tells to its sessions.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import libtorrent

from peer.store.files import read_into
from proto.errors import LocalError

if TYPE_CHECKING:
    from proto.ids import Digest
    from proto.pieces import PieceLayout
    from proto.wire.tickets import Identity

BLOCK_BYTES: Final = 16 * 1024
_HASH_BYTES: Final = 32
_NO_BLOCK: Final = bytes(_HASH_BYTES)
_SECRET: Final = b"layercast torrent 1\0"


def fits_torrent(layout: PieceLayout) -> bool:
    """Whether a v2 torrent can have this cut. An empty blob has none."""
    cut = layout.piece_size_bytes
    return layout.count > 0 and cut >= BLOCK_BYTES and cut & (cut - 1) == 0


def secret_of(supernode: Identity, digest: Digest) -> bytes:
    """32 bytes that only this supernode can compute, the same after a restart."""
    return hashlib.sha256(supernode.sign(_SECRET + str(digest).encode())).digest()


def piece_root(descriptor: int, layout: PieceLayout, piece: int, buffer: memoryview) -> bytes:
    """The tree's node above one piece of the file. `buffer` has at least BLOCK_BYTES. Raises LocalError, OSError."""
    offset, left = layout.offset(piece), layout.length(piece)
    leaves = []
    while left:
        block = buffer[: min(left, BLOCK_BYTES)]
        if not read_into(descriptor, block, offset):
            raise LocalError(f"the file ends before piece {piece}: its blob is not whole")
        leaves.append(hashlib.sha256(block).digest())
        offset += len(block)
        left -= len(block)
    # A file of one piece has no more leaves than it needs, a larger one's pieces all have the same height.
    width = _power_of_two(len(leaves)) if layout.count == 1 else layout.piece_size_bytes // BLOCK_BYTES
    return _root(leaves, width, _NO_BLOCK)


def make_metainfo(digest: Digest, layout: PieceLayout, roots: list[bytes], secret: bytes) -> bytes:
    """The torrent file of a blob whose pieces have these roots, in order. The layout fits_torrent."""
    assert len(roots) == layout.count
    absent = _root([_NO_BLOCK], layout.piece_size_bytes // BLOCK_BYTES, _NO_BLOCK)
    root = _root(roots, _power_of_two(len(roots)), absent)
    name = digest.hex.encode()
    layers = {root: b"".join(roots)} if layout.count > 1 else {}
    info = {
        b"file tree": {name: {b"": {b"length": layout.size_bytes, b"pieces root": root}}},
        b"layercast": secret,
        b"meta version": 2,
        b"name": name,
        b"piece length": layout.piece_size_bytes,
        # No peer exchange, no table of peers: only whom the supernode names (BEP 27).
        b"private": 1,
    }
    metainfo: dict[bytes, Any] = {b"info": info, b"piece layers": layers}
    return libtorrent.bencode(metainfo)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _root(nodes: list[bytes], width: int, padding: bytes) -> bytes:
    """The root over `width` (a power of two) nodes, those missing being `padding`."""
    while width > 1:
        if len(nodes) % 2:
            nodes = [*nodes, padding]
        pairs = range(0, len(nodes), 2)
        nodes = [hashlib.sha256(nodes[index] + nodes[index + 1]).digest() for index in pairs]
        padding = hashlib.sha256(padding + padding).digest()
        width //= 2
    return nodes[0]
