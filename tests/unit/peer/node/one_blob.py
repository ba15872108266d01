"""One blob between two nodes and a scripted supernode: what most tests of a whole node begin with."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import blake3

from benchmarks.cluster.processes import WAIT_S
from proto.ids import Digest
from proto.wire.messages import Announce, Grant, Holders, Source
from tests.unit.peer.node.nodes import LIMITS, PIECE, SWARM, RunningNode, hashes_of, known, opened, running_node
from tests.unit.peer.node.scripted_supernode import ScriptedSupernode, scripted_supernode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from peer.downloader.limits import Limits
    from peer.node.readers import BlobReader
    from tests.support.fake_origin import FakeOrigin

CONTENT = random.Random(3).randbytes(4 * PIECE - 77)
DIGEST = Digest.of(CONTENT)
SOURCE = Source("docker.io", "library/debian")


@contextlib.asynccontextmanager
async def two_nodes(
    folder: Path, origin: FakeOrigin | None = None, limits: Limits = LIMITS
) -> AsyncIterator[tuple[ScriptedSupernode, RunningNode, RunningNode]]:
    """(supernode, a node that holds CONTENT, a node that does not)."""
    async with (
        scripted_supernode() as supernode,
        running_node(folder / "a", supernode, origin) as holder,
        running_node(folder / "b", supernode, origin, limits) as node,
    ):
        holder.holds(DIGEST, CONTENT)
        yield supernode, holder, node


async def begin(
    supernode: ScriptedSupernode,
    node: RunningNode,
    holder: RunningNode | None = None,
    source: Source = SOURCE,
    *,
    hashes: bool = True,
) -> BlobReader:
    """A client asks, the supernode opens the swarm and tells the hashes, if it knows them, and the other node."""
    opening = asyncio.create_task(node.shell.readers.open(DIGEST, source))
    await supernode.hears(Announce)
    to = node.identity.peer
    known_hashes = [hashes_of(supernode, DIGEST, CONTENT)] if hashes else []
    await supernode.say(opened(supernode, node, DIGEST, CONTENT), *known_hashes, to=to)
    if holder is not None:
        await supernode.say(known(1, holder), Holders(SWARM, (1,)), to=to)
    async with asyncio.timeout(WAIT_S):
        return await opening


def grants(*pieces: int) -> list[Grant]:
    return [Grant(100 + piece, SWARM, piece, 1, int(10 * WAIT_S * 1000)) for piece in pieces]


def grants_by_word(*pieces: int) -> list[Grant]:
    """The same of pieces that nobody vouches for."""
    return [
        replace(grant, claim=blake3.blake3(CONTENT[grant.piece * PIECE : (grant.piece + 1) * PIECE]).digest())
        for grant in grants(*pieces)
    ]
