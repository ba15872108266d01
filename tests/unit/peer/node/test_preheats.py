"""Blobs that the supernode wants here: each is answered once, when all of it is here or it does not come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from proto.wire.messages import Announce, BlobRefused, Keep, Preheat, PreheatEnded
from tests.unit.peer.node.nodes import running_node
from tests.unit.peer.node.one_blob import CONTENT, DIGEST, SOURCE, begin, grants, two_nodes
from tests.unit.peer.node.scripted_supernode import scripted_supernode

if TYPE_CHECKING:
    from pathlib import Path

PREHEAT = Preheat(str(DIGEST), SOURCE, len(CONTENT))


@pytest.mark.asyncio
async def test_a_blob_comes_without_a_client_and_its_end_is_told(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        # Opened as for a client that hangs up; what is asked for then is awaited.
        (await begin(supernode, node, holder)).close()
        await supernode.say(PREHEAT, to=node.identity.peer)
        await supernode.say(*grants(0, 1, 2, 3), to=node.identity.peer)
        assert await supernode.hears(PreheatEnded) == PreheatEnded(str(DIGEST))
        assert await node.read(DIGEST, SOURCE) == CONTENT


@pytest.mark.asyncio
async def test_a_blob_that_is_here_is_told_at_once(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        (await begin(supernode, node, holder)).close()
        await supernode.say(PREHEAT, to=node.identity.peer)
        await supernode.say(*grants(0, 1, 2, 3), to=node.identity.peer)
        await supernode.hears(PreheatEnded)
        await supernode.say(PREHEAT, to=node.identity.peer)
        assert (await supernode.hears(PreheatEnded, 2)).reason == ""


@pytest.mark.asyncio
async def test_it_is_announced_for_no_client_and_a_refusal_is_its_end(tmp_path: Path) -> None:
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode):
        await supernode.say(PREHEAT)
        announce = await supernode.hears(Announce)
        assert (announce.wanted, announce.background, announce.allowed) == (True, True, 0)
        await supernode.say(BlobRefused(str(DIGEST), "unknown", "not there"))
        assert (await supernode.hears(PreheatEnded)).reason == "unknown"


@pytest.mark.asyncio
async def test_of_a_private_blob_it_is_said_that_the_source_allows_it(tmp_path: Path) -> None:
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode):
        await supernode.say(Preheat(str(DIGEST), SOURCE, len(CONTENT), private=True))
        assert (await supernode.hears(Announce)).allowed


@pytest.mark.asyncio
async def test_what_the_supernode_has_kept_is_not_evicted(tmp_path: Path) -> None:
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode) as node:
        await supernode.say(Keep((str(DIGEST),)))
        await asyncio.to_thread(wait_until, lambda: node.store.kept == {DIGEST}, "kept")
        await supernode.say(Keep(("nonsense",)), Keep(()))
        await asyncio.to_thread(wait_until, lambda: not node.store.kept, "kept no more")
