"""A node by itself: its link lost, no supernode at all, or elected to ask the origin; with a real store and origin."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from peer.node.blobs import DigestMismatch, NotShared
from proto.wire.messages import Announce, OriginStatus, OriginTried, Source
from tests.support.fake_origin import FakeOrigin, fake_origin
from tests.unit.peer.node.nodes import LIMITS, NO_UPSTREAM, SWARM, opened, read_all, running_node
from tests.unit.peer.node.one_blob import CONTENT, DIGEST, begin, two_nodes
from tests.unit.peer.node.scripted_supernode import scripted_supernode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def origin() -> Iterator[FakeOrigin]:
    with fake_origin() as running:
        running.add(CONTENT)
        yield running


@pytest.mark.asyncio
async def test_with_the_link_lost_the_node_goes_on_from_the_holders_it_knows(tmp_path: Path) -> None:
    async with two_nodes(tmp_path, limits=NO_UPSTREAM) as (supernode, holder, node):
        blob = await begin(supernode, node, holder)
        supernode.refuses = True
        await supernode.hang_up(node.identity.peer)
        assert await read_all(blob) == CONTENT
        blob.close()


@pytest.mark.asyncio
async def test_what_nobody_known_holds_is_asked_of_upstream_after_the_grace(tmp_path: Path, origin: FakeOrigin) -> None:
    source = Source(origin.authority, "name")
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode, origin) as node:
        blob = await begin(supernode, node, source=source)
        supernode.refuses = True
        lost_at = asyncio.get_running_loop().time()
        await supernode.hang_up()
        assert await read_all(blob) == CONTENT
        assert asyncio.get_running_loop().time() - lost_at >= LIMITS.grace_s
        assert len(origin.blob_requests()) == 1
        blob.close()


@pytest.mark.asyncio
async def test_without_a_supernode_a_node_is_a_cache_that_asks_once(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_node(tmp_path / "a", origin=origin) as node:
        source = Source(origin.authority, "name")
        bodies = await asyncio.gather(*(node.read(DIGEST, source) for _ in range(4)))
        assert bodies == [CONTENT] * 4
        assert await node.read(DIGEST, source) == CONTENT
        assert [len(origin.blob_requests(method)) for method in ("HEAD", "GET")] == [1, 1]


@pytest.mark.asyncio
async def test_a_private_blob_is_not_shared_without_a_supernode(tmp_path: Path, origin: FakeOrigin) -> None:
    origin.challenge, origin.token = 'Basic realm="members"', "a password"
    async with running_node(tmp_path / "a", origin=origin) as node:
        with pytest.raises(NotShared) as refused:
            await node.shell.readers.open(DIGEST, Source(origin.authority, "name"))
        assert refused.value.reason == "private"


@pytest.mark.asyncio
async def test_wrong_content_ends_its_readers_and_is_dropped(tmp_path: Path, origin: FakeOrigin) -> None:
    origin.blobs[str(DIGEST)] = b"\0" + CONTENT[1:]
    async with running_node(tmp_path / "a", origin=origin) as node:
        blob = await node.shell.readers.open(DIGEST, Source(origin.authority, "name"))
        with pytest.raises(DigestMismatch):
            await read_all(blob)
        assert blob.handle.held == 0
        blob.close()


@pytest.mark.asyncio
async def test_an_elected_node_asks_the_origin_for_all(tmp_path: Path, origin: FakeOrigin) -> None:
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode, origin) as node:
        opening = asyncio.create_task(node.shell.readers.open(DIGEST, Source(origin.authority, "name")))
        await supernode.hears(Announce)
        await supernode.say(opened(supernode, node, DIGEST, CONTENT))
        blob = await opening
        await supernode.say(OriginStatus(SWARM, "unreachable", True))
        assert await read_all(blob) == CONTENT
        assert (await supernode.hears(OriginTried)).reason == ""
        blob.close()
