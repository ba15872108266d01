"""Clients that read: when they are let in, how much they get, how they are turned away or ended; with a real store."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.node.blobs import BlobFailed, DigestMismatch, NotShared
from proto.wire.messages import Announce, BlobChecked, BlobRefused, Failed, FetchReason, Source, Stored, Voided
from tests.unit.peer.node.nodes import PIECE, SWARM, hashes_of, read_all, running_node
from tests.unit.peer.node.one_blob import CONTENT, DIGEST, SOURCE, begin, grants, grants_by_word, two_nodes
from tests.unit.peer.node.scripted_supernode import scripted_supernode

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.asyncio
async def test_the_last_piece_is_withheld_until_the_digest_passed(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder)
        await supernode.say(*grants(0, 1, 3), to=node.identity.peer)
        await supernode.hears(Stored, 3)
        assert await blob.wait_available(0) == 2 * PIECE
        # It is here, and nobody gets it.
        assert blob.handle.available_from(3 * PIECE) == len(CONTENT)
        waiting = asyncio.create_task(blob.wait_available(3 * PIECE))
        await asyncio.sleep(0)
        assert not waiting.done()
        await supernode.say(*grants(2), to=node.identity.peer)
        async with asyncio.timeout(WAIT_S):
            assert await waiting == len(CONTENT)
        blob.close()


@pytest.mark.asyncio
async def test_several_clients_read_one_download(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder)
        others = [asyncio.create_task(node.read(DIGEST, SOURCE)) for _ in range(5)]
        await supernode.say(*grants(0, 1, 2, 3), to=node.identity.peer)
        assert await asyncio.gather(*others) == [CONTENT] * 5
        blob.close()
        assert node.shell.readers.known_size(DIGEST, SOURCE) == len(CONTENT)
        assert node.shell.readers.known_size(DIGEST, Source("quay.io", "x")) is None


@pytest.mark.asyncio
async def test_a_client_that_hangs_up_stops_nothing(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        (await begin(supernode, node, holder)).close()
        await supernode.say(*grants(0, 1, 2, 3), to=node.identity.peer)
        assert (await supernode.hears(BlobChecked)).matches


@pytest.mark.asyncio
async def test_the_supernode_s_no_is_the_client_s(tmp_path: Path) -> None:
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode) as node:
        opening = asyncio.create_task(node.shell.readers.open(DIGEST, SOURCE))
        await supernode.hears(Announce)
        await supernode.say(BlobRefused(str(DIGEST), "private", "wants a credential"))
        with pytest.raises(NotShared) as refused:
            await opening
        assert refused.value.reason == "private"


@pytest.mark.asyncio
async def test_a_void_ends_readers_and_drops_everything(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder)
        await supernode.say(*grants(0), to=node.identity.peer)
        await supernode.hears(Stored)
        await supernode.say(Voided(SWARM, "no match"), to=node.identity.peer)
        with pytest.raises(DigestMismatch):
            await read_all(blob)
        assert blob.handle.held == 0
        blob.close()


@pytest.mark.asyncio
async def test_a_client_that_gives_up_waiting_leaves_nothing_behind(tmp_path: Path) -> None:
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode) as node:
        opening = asyncio.create_task(node.shell.readers.open(DIGEST, SOURCE))
        await supernode.hears(Announce)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await supernode.say(BlobRefused(str(DIGEST), "unknown", ""))
        await asyncio.to_thread(wait_until, lambda: not node.shell.machine.story(DIGEST), "the blob is forgotten")


@pytest.mark.asyncio
async def test_sharing_switched_off_sends_clients_to_their_origin(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder)
        node.shell.switch_sharing(False)
        with pytest.raises(BlobFailed):
            await read_all(blob)
        with pytest.raises(NotShared) as refused:
            await node.shell.readers.open(DIGEST, SOURCE)
        assert refused.value.reason == "off"
        blob.close()


@pytest.mark.asyncio
async def test_a_stopping_node_lets_nobody_wait(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder)
        waiting = asyncio.create_task(read_all(blob))
        await asyncio.sleep(0)
        node.shell.close()
        with pytest.raises(BlobFailed):
            await waiting
        with pytest.raises(NotShared):
            await node.shell.readers.open(DIGEST, SOURCE)


@pytest.mark.asyncio
async def test_what_came_by_a_member_s_word_is_given_to_nobody_before_the_digest_has_passed(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder, hashes=False)
        await supernode.say(*grants_by_word(0, 1, 3), to=node.identity.peer)
        await supernode.hears(Stored, 3)
        assert blob.handle.held == 0b1011
        assert blob.available(0) == 0
        waiting = asyncio.create_task(read_all(blob))
        await supernode.say(*grants_by_word(2), to=node.identity.peer)
        async with asyncio.timeout(WAIT_S):
            assert await waiting == CONTENT
        blob.close()


@pytest.mark.asyncio
async def test_it_is_given_once_the_supernode_signs_it(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder, hashes=False)
        await supernode.say(*grants_by_word(0), to=node.identity.peer)
        await supernode.hears(Stored)
        await supernode.say(hashes_of(supernode, DIGEST, CONTENT), to=node.identity.peer)
        async with asyncio.timeout(WAIT_S):
            assert await blob.wait_available(0) == PIECE
        blob.close()


@pytest.mark.asyncio
async def test_a_piece_that_is_not_what_the_word_was_is_not_taken(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder, hashes=False)
        [grant] = grants_by_word(0)
        await supernode.say(dataclasses.replace(grant, claim=b"x" * 32), to=node.identity.peer)
        assert (await supernode.hears(Failed)).reason == FetchReason.CORRUPT
        assert blob.handle.held == 0
        blob.close()


@pytest.mark.asyncio
async def test_a_lie_costs_a_client_that_was_given_nothing_no_pull(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder, hashes=False)
        await supernode.say(*grants_by_word(0), to=node.identity.peer)
        await supernode.hears(Stored)
        await supernode.say(Voided(SWARM, "no match"), to=node.identity.peer)
        with pytest.raises(BlobFailed) as failed:
            await blob.wait_available(0)
        assert not isinstance(failed.value, DigestMismatch)
        blob.close()
