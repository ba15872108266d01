"""Whole nodes without a proxy: store, upload server, transport, driver and session, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from typing import TYPE_CHECKING, Protocol

import blake3

from benchmarks.cluster.processes import WAIT_S
from peer.downloader.contract import BlobFound
from peer.downloader.limits import Limits
from peer.downloader.machine import Downloader
from peer.membership.dialer import OpenDialer
from peer.metrics import Metrics
from peer.node.node import Node
from peer.node.origin_fetch import UpstreamFetcher
from peer.node.session import Session
from peer.node.supernode_key import SupernodeKey
from peer.node.workers import Workers
from peer.registry.origins import Origins
from peer.store.base import SignedHashes
from peer.store.disk import DiskStore
from peer.transport.client import HttpTransport
from peer.transport.server import UploadServer
from proto.config.values import HostPort
from proto.ids import peer_name
from proto.oci.upstreams import UpstreamTable
from proto.pieces import KIB, MIB, PieceLayout
from proto.wire.handshake import PROTOCOL_VERSION, Hello
from proto.wire.messages import NodeKnown, PieceHashes, Source, SwarmOpened
from proto.wire.tickets import Identity, issue_ticket, sign_hashes, sign_hello

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from peer.node.blobs import OpenedBlob
    from peer.store.base import BlobHandle
    from proto.ids import Digest
    from proto.wire.handshake import Challenge
    from proto.wire.messages import Message
    from tests.support.fake_origin import FakeOrigin
    from tests.unit.peer.node.scripted_supernode import ScriptedSupernode

PIECE = 256 * KIB
LIMITS = Limits(grace_s=0.2, grace_jitter_s=0.1, refresh_s=0.2)
# Where other nodes are to have what is missing, however long a busy machine takes to ask them.
NO_UPSTREAM = Limits(grace_s=10 * WAIT_S, refresh_s=0.2)
SWARM = 1


class Reachable(Protocol):
    """A supernode, scripted or real."""

    @property
    def url(self) -> str: ...


class RunningNode:
    """One node. `origin` is the only upstream it may ask."""

    def __init__(self, folder: Path, origin: FakeOrigin | None, limits: Limits) -> None:
        folder.mkdir()
        self.identity = Identity.generate()
        self.metrics = Metrics()
        self.store = DiskStore(folder / "store", size_limit_bytes=64 * MIB, free_floor_bytes=0)
        key = SupernodeKey(folder / "supernode.key")
        self.upload = UploadServer(HostPort("127.0.0.1", 0), self.store, key.get, peer_name(self.identity.peer))
        upstreams = [origin.upstream] if origin is not None else []
        table = UpstreamTable.build(sections=upstreams)
        self.origins = Origins(lambda: table)
        fetcher = UpstreamFetcher(self.origins, self.metrics.origin_received)
        transport = HttpTransport(self.identity, workers=4, connect_timeout_s=WAIT_S, slot_wait_s=WAIT_S)
        self.workers = Workers(self.store, transport, fetcher, self.origins, self.metrics)
        self.fatal = False
        self.session: Session | None = None
        self.shell = Node(
            Downloader(random.Random(1), peer_name(self.identity.peer), limits),
            self.workers,
            self.metrics,
            send=self._send,
            hello=self._hello,
            on_fatal=self._broke,
            supernode_key=key,
        )
        self.store.on_evicted(self.shell.evicted)
        self.store.on_rotten(self.shell.rotten)

    def _hello(self, challenge: Challenge) -> Hello:
        proof = sign_hello(self.identity, challenge.nonce, challenge.supernode)
        return Hello(PROTOCOL_VERSION, self.identity.peer, "boot", proof, self.upload.address, "", 4, 4, 0, 0, "test")

    def _send(self, message: Message, *, soon: bool = True) -> None:
        if self.session is not None:
            self.session.send(message, soon=soon)

    def _broke(self) -> None:
        self.fatal = True

    def holds(self, digest: Digest, content: bytes, sources: Iterable[Source] = ()) -> None:
        """The blob is in the store from before, complete."""
        handle = self.store.open(digest, layout_of(content))
        for piece in range(handle.layout.count):
            writer = handle.writer(piece, from_origin=True)
            offset = handle.layout.offset(piece)
            writer.write(memoryview(content)[offset : offset + handle.layout.length(piece)])
            writer.finish()
        assert handle.check_digest()
        handle.close()
        layout = layout_of(content)
        self.shell.driver.post(
            BlobFound(digest, layout.size_bytes, PIECE, layout.full_mask, complete=True, sources=tuple(sources))
        )

    async def read(self, digest: Digest, source: Source) -> bytes:
        """What a client of the proxy would get."""
        blob = await self.shell.readers.open(digest, source)
        try:
            return await read_all(blob)
        finally:
            blob.close()

    def close(self) -> None:
        self.shell.close()
        self.workers.close()
        self.origins.close()
        self.upload.close()
        self.shell.release()
        self.store.close()


async def read_all(blob: OpenedBlob) -> bytes:
    """Everything in order, as it may be sent."""
    content = b""
    while len(content) < blob.size_bytes:
        async with asyncio.timeout(WAIT_S):
            end = await blob.wait_available(len(content))
        content += os.pread(blob.handle.fileno(), end - len(content), len(content))
    return content


def layout_of(content: bytes) -> PieceLayout:
    return PieceLayout(len(content), PIECE)


@contextlib.asynccontextmanager
async def running_node(
    folder: Path,
    supernode: Reachable | None = None,
    origin: FakeOrigin | None = None,
    limits: Limits = LIMITS,
) -> AsyncIterator[RunningNode]:
    """A node, linked when this returns if there is a supernode."""
    node = RunningNode(folder, origin, limits)
    task: asyncio.Task[None] | None = None
    try:
        if supernode is not None:
            node.session = Session(OpenDialer(supernode.url), node.shell, jitter=lambda: 0.02)
            task = asyncio.create_task(node.session.run())
            await node.session.tried.wait()
        yield node
        assert not node.fatal
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(node.close)


def opened(supernode: ScriptedSupernode, node: RunningNode, digest: Digest, content: bytes) -> SwarmOpened:
    """The answer to an announcement, with a ticket."""
    ticket = issue_ticket(supernode.identity, digest, node.identity.peer, 1 << 33)
    return SwarmOpened(SWARM, str(digest), len(content), PIECE, ticket)


def hashes_of(supernode: ScriptedSupernode, digest: Digest, content: bytes) -> PieceHashes:
    """All piece hashes, signed."""
    layout = layout_of(content)
    parts = [content[layout.offset(p) :][: layout.length(p)] for p in range(layout.count)]
    hashes = b"".join(blake3.blake3(part).digest() for part in parts)
    return PieceHashes(SWARM, 0, hashes, sign_hashes(supernode.identity, digest, layout, 0, hashes))


def signed_hash(supernode: ScriptedSupernode, handle: BlobHandle, piece: int) -> SignedHashes:
    """The supernode's word for one piece that is held."""
    piece_hash = handle.hash_of(piece)
    assert piece_hash is not None
    signature = sign_hashes(supernode.identity, handle.digest, handle.layout, piece, piece_hash)
    return SignedHashes(piece, piece_hash, signature)


def known(number: int, node: RunningNode) -> NodeKnown:
    """A node under a number."""
    return NodeKnown(number, peer_name(node.identity.peer), node.upload.address)
