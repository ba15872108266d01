"""Whose piece hashes a node believes, and where it gets them: with real stores, transfers and a scripted supernode."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.downloader.contract import BlobFound
from peer.node.blobs import BlobFailed, NotShared
from proto.wire.messages import Announce, Failed, Holders, PieceHashes
from tests.unit.peer.node.nodes import (
    NO_UPSTREAM,
    PIECE,
    SWARM,
    hashes_of,
    known,
    layout_of,
    opened,
    read_all,
    signed_hash,
)
from tests.unit.peer.node.one_blob import CONTENT, DIGEST, SOURCE, begin, grants, two_nodes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.asyncio
async def test_signed_hashes_are_learnt_from_holders_too(tmp_path: Path) -> None:
    async with two_nodes(tmp_path, limits=NO_UPSTREAM) as (supernode, holder, node):
        other = await begin(supernode, holder)  # the holder hears the signed hashes
        other.close()
        opening = asyncio.create_task(node.shell.readers.open(DIGEST, SOURCE))
        await supernode.hears(Announce, 2)
        await supernode.say(
            opened(supernode, node, DIGEST, CONTENT), known(1, holder), Holders(SWARM, (1,)), to=node.identity.peer
        )
        blob = await opening
        supernode.refuses = True
        await supernode.hang_up(node.identity.peer)
        assert await read_all(blob) == CONTENT
        blob.close()


@pytest.mark.asyncio
async def test_hashes_that_the_supernode_did_not_sign_are_ignored(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        opening = asyncio.create_task(node.shell.readers.open(DIGEST, SOURCE))
        await supernode.hears(Announce)
        hashes = hashes_of(supernode, DIGEST, CONTENT)
        forged = PieceHashes(SWARM, 0, bytes(len(hashes.hashes)), hashes.signature)
        await supernode.say(
            opened(supernode, node, DIGEST, CONTENT), forged, known(1, holder), *grants(0), to=node.identity.peer
        )
        blob = await opening
        # The holder completed it alone: it has no signed hashes to tell either.
        assert (await supernode.hears(Failed)).reason == "unhashed"
        assert blob.handle.held == 0
        blob.close()


@pytest.mark.asyncio
async def test_hashes_come_with_the_pieces_from_who_was_told_them(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        handle = holder.store.get(DIGEST)
        assert handle is not None
        for piece in range(handle.layout.count):
            handle.learn_hashes(signed_hash(supernode, handle, piece))
        handle.close()
        opening = asyncio.create_task(node.shell.readers.open(DIGEST, SOURCE))
        await supernode.hears(Announce)
        await supernode.say(
            opened(supernode, node, DIGEST, CONTENT), known(1, holder), *grants(*range(4)), to=node.identity.peer
        )
        blob = await opening
        assert await read_all(blob) == CONTENT
        # It can pass them on in turn.
        assert len(blob.handle.signed_hashes) == 4
        blob.close()


@pytest.mark.asyncio
async def test_a_hash_that_comes_with_a_piece_is_believed_for_the_supernodes_signature_alone(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        handle = holder.store.get(DIGEST)
        assert handle is not None
        signed = signed_hash(supernode, handle, 0)
        handle.learn_hashes(dataclasses.replace(signed, signature=holder.identity.sign(signed.hashes)))
        handle.close()
        opening = asyncio.create_task(node.shell.readers.open(DIGEST, SOURCE))
        await supernode.hears(Announce)
        await supernode.say(
            opened(supernode, node, DIGEST, CONTENT), known(1, holder), *grants(0), to=node.identity.peer
        )
        blob = await opening
        assert (await supernode.hears(Failed)).reason == "protocol"
        assert (blob.handle.held, blob.handle.hash_of(0)) == (0, None)
        blob.close()


@pytest.mark.asyncio
async def test_pieces_that_contradict_the_signed_hashes_are_dropped_however_early_the_hashes_come(
    tmp_path: Path,
) -> None:
    async with two_nodes(tmp_path) as (supernode, _, node):
        handle = node.store.open(DIGEST, layout_of(CONTENT))
        writer = handle.writer(0, from_origin=True)
        writer.write(memoryview(bytes(PIECE)))
        writer.finish()
        handle.close()
        node.shell.driver.post(BlobFound(DIGEST, len(CONTENT), PIECE, 0b0001, complete=False, sources=(SOURCE,)))
        opening = asyncio.create_task(node.shell.readers.open(DIGEST, SOURCE))
        await supernode.hears(Announce)
        to = node.identity.peer
        await supernode.say(opened(supernode, node, DIGEST, CONTENT), hashes_of(supernode, DIGEST, CONTENT), to=to)
        with contextlib.suppress(NotShared, BlobFailed):
            async with asyncio.timeout(WAIT_S):
                (await opening).close()
        await asyncio.to_thread(
            wait_until, lambda: not any(blob.held for blob in node.store.inventory() if blob.digest == DIGEST), "void"
        )
