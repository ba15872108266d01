"""The blob that is moved, made from a seed into a real store, and what hashing costs by itself."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final

import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.dataplane.contract import Job
from benchmarks.dataplane.torrent import make_torrent
from peer.store.disk import DiskStore
from proto.ids import Digest
from proto.pieces import MIB
from proto.wire.tickets import Identity
from supernode.membership.certificates import certify_node, new_authority, pem

if TYPE_CHECKING:
    from pathlib import Path

    from proto.pieces import PieceLayout

_HASHED_BYTES: Final = 128 * MIB
_CHUNK_BYTES: Final = 256 * 1024


def make_source(folder: Path, layout: PieceLayout, seed: int) -> Job:
    """Put random, incompressible bytes into a store below `folder`, complete, and describe the transfer."""
    digest = _digest(layout, seed)
    store = DiskStore(folder / "source", size_limit_bytes=1 << 50, free_floor_bytes=0)
    handle = store.open(digest, layout)
    for number in range(layout.count):
        writer = handle.writer(number, from_origin=True)
        writer.write(memoryview(_piece(layout, seed, number)))
        writer.finish()
    assert handle.check_digest()
    handle.close()
    store.close()
    job = Job(
        source_file=str(folder / "source" / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex),
        source_store=str(folder / "source"),
        target=str(folder / "target"),
        digest=str(digest),
        size_bytes=layout.size_bytes,
        piece_size_bytes=layout.piece_size_bytes,
        supernode_seed=random.Random(seed).randbytes(32).hex(),
        torrent_file=str(folder / "blob.torrent"),
        certificates=str(folder),
    )
    make_torrent(job)
    _make_certificates(folder, Identity(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(job.supernode_seed))))
    return job


def _make_certificates(folder: Path, sender: Identity) -> None:
    authority = new_authority(time.time())
    (folder / "ca.pem").write_text(pem([authority.certificate]))
    for role, identity in (("sender", sender), ("receiver", Identity.generate())):
        (folder / f"{role}.pem").write_text(pem([certify_node(authority, identity.peer, time.time())]))
        (folder / f"{role}.key").write_bytes(identity.private_pem())


def hash_costs() -> dict[str, float]:
    """CPU-seconds per GiB of each hash alone, in chunks as the transports use them."""
    chunk = memoryview(random.Random(0).randbytes(_CHUNK_BYTES))
    costs = {}
    for name, hasher in (("sha256", Digest("sha256", "").hasher()), ("blake3", blake3.blake3())):
        started_s = time.process_time()
        for _ in range(_HASHED_BYTES // _CHUNK_BYTES):
            hasher.update(chunk)
        costs[name] = (time.process_time() - started_s) * (1024 * MIB / _HASHED_BYTES)
    return costs


def _piece(layout: PieceLayout, seed: int, number: int) -> bytes:
    return random.Random(f"{seed} {number}").randbytes(layout.length(number))


def _digest(layout: PieceLayout, seed: int) -> Digest:
    hasher = Digest("sha256", "").hasher()
    for number in range(layout.count):
        hasher.update(_piece(layout, seed, number))
    return Digest("sha256", hasher.hexdigest())
