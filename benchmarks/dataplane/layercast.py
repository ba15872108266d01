"""Our own transport as it runs: store, tickets, upload server, keep-alive client, digest check, fsync, rename."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from benchmarks.dataplane.contract import Marks
from peer.store.base import ALL_PIECES, SignedHashes
from peer.store.disk import DiskStore
from peer.transport.base import FetchOutcome, PieceFetch, PieceSource
from peer.transport.client import HttpTransport
from peer.transport.server import UploadServer
from peer.transport.wire import decode_hashes
from proto.config.values import HostPort
from proto.errors import LocalError
from proto.ids import Digest, peer_name
from proto.pieces import PieceLayout
from proto.wire.tickets import Identity, check_hashes, issue_ticket, sign_hashes

if TYPE_CHECKING:
    from benchmarks.dataplane.contract import Job, Sending
    from peer.store.base import BlobHandle
    from peer.transport.member_tls import MemberTls

_HOUR_S = 3600.0


def _supernode(job: Job) -> Identity:
    return Identity(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(job.supernode_seed)))


def _downloader(job: Job) -> Identity:
    """Whom the receiver's certificate names."""
    key = load_pem_private_key((Path(job.certificates) / "receiver.key").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return Identity(key)


def send(job: Job, sending: Sending) -> None:
    """Without TLS: what is public."""
    serve(job, sending)


def receive(job: Job, address: str) -> Marks:
    """The same."""
    return fetch(job, address)


def serve(job: Job, sending: Sending, tls: MemberTls | None = None) -> None:
    """A store that holds the blob, and its upload server."""
    supernode, digest = _supernode(job), Digest.parse(job.digest)
    store = DiskStore(Path(job.source_store), size_limit_bytes=1 << 50, free_floor_bytes=0)
    handle = store.get(digest)
    if handle is None:
        raise LocalError("the source store lost its blob")
    hashes = b"".join(handle.hash_of(piece) or b"" for piece in range(handle.layout.count))
    signature = sign_hashes(supernode, digest, handle.layout, 0, hashes)
    handle.learn_hashes(SignedHashes(0, hashes, signature))
    # As in a swarm, where a sender has just received what it sends: a store reads again what was not read since the
    # start.
    handle.check_pieces(ALL_PIECES, "start")
    handle.close()
    server = UploadServer(HostPort("127.0.0.1", 0), store, lambda: supernode.peer, peer_name(supernode.peer), tls=tls)
    sending.started(server.address)
    sending.wait_for_end()
    server.close()
    store.close()


def fetch(job: Job, address: str, tls: MemberTls | None = None) -> Marks:
    """Ask for the signed hashes, fetch every piece, check the digest."""
    supernode, downloader = _supernode(job), _downloader(job)
    digest, layout = Digest.parse(job.digest), PieceLayout(job.size_bytes, job.piece_size_bytes)
    ticket = issue_ticket(supernode, digest, downloader.peer, time.time() + _HOUR_S)
    source = PieceSource(peer_name(supernode.peer), address)
    marks = Marks()
    store = DiskStore(Path(job.target), size_limit_bytes=1 << 50, free_floor_bytes=0)
    transport = HttpTransport(downloader, tls=tls, encrypt_all=tls is not None)
    # A node has both since its start, as the sender.
    marks.begin()
    handle = store.open(digest, layout)
    _, runs = decode_hashes(transport.hashes(source, digest, ticket, 10.0))
    for run in runs:
        check_hashes(supernode.peer, digest, layout, run.first, run.hashes, run.signature)
        handle.learn_hashes(run)
    _Fetches(transport, handle, source, ticket).run(job.parallel)
    marks.reached("pieces")
    if not handle.check_digest():
        raise LocalError("our transport received another blob")
    marks.reached("all")
    handle.close()
    transport.close()
    store.close()
    return marks


class _Fetches:
    """Keeps a number of fetches going, in order, until every piece is held."""

    def __init__(self, transport: HttpTransport, handle: BlobHandle, source: PieceSource, ticket: bytes) -> None:
        self._transport = transport
        self._handle = handle
        self._source = source
        self._ticket = ticket
        self._lock = threading.Lock()
        self._next = 0
        self._open = 0
        self._failure = ""
        self._ended = threading.Event()

    def run(self, parallel: int) -> None:
        """Raises LocalError when a fetch fails."""
        for _ in range(parallel):
            self._start_next()
        self._ended.wait()
        if self._failure:
            raise LocalError(f"a fetch of our transport failed: {self._failure}")

    def _start_next(self) -> None:
        with self._lock:
            piece = self._next
            if piece >= self._handle.layout.count or self._failure:
                if not self._open:
                    self._ended.set()
                return
            self._next += 1
            self._open += 1
        self._transport.start(
            PieceFetch(piece, self._handle, piece, self._source, self._ticket, _HOUR_S), self._fetched
        )

    def _fetched(self, outcome: FetchOutcome) -> None:
        with self._lock:
            self._open -= 1
            self._failure = self._failure or outcome.reason
        self._start_next()
