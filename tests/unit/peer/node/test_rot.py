"""A node whose disk rots: what it finds is told to its supernode, and fetched again for the client that reads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from peer.store.scrub import Scrub
from proto.pieces import mask_to_bytes
from proto.wire.messages import Announce, BlobChecked, Doubted, SwarmOpened
from tests.support.rot import flip
from tests.unit.peer.node.nodes import PIECE, RunningNode, known, opened, read_all
from tests.unit.peer.node.one_blob import CONTENT, DIGEST, SOURCE, grants, two_nodes

if TYPE_CHECKING:
    from pathlib import Path


def rot(node: RunningNode, offset: int) -> None:
    flip(node.store.root / "blobs" / DIGEST.algorithm / DIGEST.hex[:2] / DIGEST.hex, offset)


def says_the_gap(announce: Announce, piece: int) -> bool:
    """That this piece is missing, and wanted."""
    return announce.wanted and announce.held == mask_to_bytes(0b1111 & ~(1 << piece), 4)


@pytest.mark.asyncio
async def test_a_client_gets_the_whole_blob_and_one_piece_is_fetched_again(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        to = node.identity.peer
        node.holds(DIGEST, CONTENT, [SOURCE])
        rot(node, 2 * PIECE)
        opening = asyncio.create_task(node.shell.readers.open(DIGEST, SOURCE))
        await supernode.hears(Announce)
        await supernode.say(opened(supernode, node, DIGEST, CONTENT), known(1, holder), to=to)
        blob = await opening
        reading = asyncio.create_task(read_all(blob))
        assert says_the_gap(await supernode.hears(Announce, 2), piece=2)
        await supernode.say(opened(supernode, node, DIGEST, CONTENT), *grants(2), to=to)
        assert await reading == CONTENT
        assert (await supernode.hears(BlobChecked)).matches
        assert node.metrics.received_total_bytes == PIECE
        blob.close()


@pytest.mark.asyncio
async def test_a_piece_that_another_node_complains_of_is_read_again(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, _, node):
        node.holds(DIGEST, CONTENT, [SOURCE])
        scrub = Scrub(node.store, interval_s=0.0, rate_bytes_s=1)
        swarm: SwarmOpened = opened(supernode, node, DIGEST, CONTENT)
        await supernode.say(swarm, to=node.identity.peer)
        rot(node, PIECE)
        await supernode.say(Doubted(swarm.swarm, 1), to=node.identity.peer)
        assert says_the_gap(await supernode.hears(Announce), piece=1)
        assert node.store.counters.rotten == {"complaint": 1}
        scrub.close()
