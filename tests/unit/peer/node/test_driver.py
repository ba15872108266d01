"""The driver with a real store, real transfers and a scripted supernode: what a node does, end to end but the proxy."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from peer.downloader.contract import Send
from peer.downloader.limits import Limits
from peer.node.blobs import DigestMismatch
from proto.ids import Digest
from proto.wire.messages import SEED_NODE, Announce, BlobChecked, Failed, InlineBlob, Stored, Withdraw
from tests.unit.peer.node.nodes import SWARM, hashes_of, known, opened, read_all, running_node
from tests.unit.peer.node.one_blob import CONTENT, DIGEST, SOURCE, begin, grants, two_nodes
from tests.unit.peer.node.scripted_supernode import scripted_supernode

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.asyncio
async def test_a_blob_comes_from_another_node_piece_by_piece(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder)
        await supernode.say(*grants(2, 0, 3, 1), to=node.identity.peer)
        assert await read_all(blob) == CONTENT
        assert blob.stored
        await supernode.hears(Stored, 4)
        assert (await supernode.hears(BlobChecked)).matches
        blob.close()
        sample = node.metrics.registry.get_sample_value
        assert sample("layercast_bytes_total", {"source": "peer"}) == len(CONTENT)
        assert sample("layercast_leases_total", {"outcome": "stored"}) == 4


@pytest.mark.asyncio
async def test_that_a_blob_is_complete_needs_no_frame_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode) as node:
        assert node.session is not None
        at_once = []
        monkeypatch.setattr(node.session, "send", lambda message, *, soon: at_once.extend([message] if soon else []))
        mismatch, stored = BlobChecked(SWARM, False), Stored(1, SWARM, 0, 0)
        for message in (BlobChecked(SWARM, True), mismatch, stored):
            node.shell.send(Send(message))
        assert at_once == [mismatch, stored]


@pytest.mark.asyncio
async def test_a_tiny_blob_comes_inside_a_message(tmp_path: Path) -> None:
    content = b"a config"
    digest = Digest.of(content)
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode) as node:
        reading = asyncio.create_task(node.read(digest, SOURCE))
        await supernode.hears(Announce)
        await supernode.say(
            opened(supernode, node, digest, content),
            hashes_of(supernode, digest, content),
            InlineBlob(5, SWARM, content),
        )
        assert await reading == content
        assert (await supernode.hears(Stored)).lease == 5


@pytest.mark.asyncio
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_tiny_blob_comes_with_its_opening_or_after_it(tmp_path: Path, at_once: bool) -> None:
    content = b"a config"
    digest = Digest.of(content)
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode) as node:
        reading = asyncio.create_task(node.read(digest, SOURCE))
        await supernode.hears(Announce)
        said, inline = opened(supernode, node, digest, content), InlineBlob(5, SWARM, content)
        if at_once:
            await supernode.say(said, inline)
        else:
            await supernode.say(said)
            await asyncio.to_thread(wait_until, lambda: bool(node.store.inventory()), "the blob is open")
            await supernode.say(inline)
        assert await reading == content
        assert (await supernode.hears(Stored)).lease == 5
        assert (await supernode.hears(BlobChecked)).matches
        assert [blob.complete for blob in node.store.inventory()] == [True]
        sample = node.metrics.registry.get_sample_value
        assert sample("layercast_bytes_total", {"source": "seed"}) == len(content)


@pytest.mark.asyncio
async def test_a_hash_that_comes_after_a_tiny_blob_is_kept_for_others(tmp_path: Path) -> None:
    content = b"a config"
    digest = Digest.of(content)
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode) as node:
        reading = asyncio.create_task(node.read(digest, SOURCE))
        await supernode.hears(Announce)
        await supernode.say(opened(supernode, node, digest, content), InlineBlob(5, SWARM, content))
        assert await reading == content
        assert (await supernode.hears(BlobChecked)).matches
        # Its hash is the supernode's to tell, not ours.
        assert sum(isinstance(message, Announce) for message in supernode.heard) == 1
        signed = hashes_of(supernode, digest, content)
        await supernode.say(signed)

        def kept() -> bool:
            handle = node.store.get(digest)
            assert handle is not None
            run = handle.signed_run(0, 1)
            handle.close()
            return run is not None and run.signature == signed.signature

        await asyncio.to_thread(wait_until, kept, "the signed hash is in the store")


@pytest.mark.asyncio
async def test_content_in_a_message_that_does_not_match_its_digest_reaches_nobody(tmp_path: Path) -> None:
    digest = Digest.of(b"a config")
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode) as node:
        reading = asyncio.create_task(node.read(digest, SOURCE))
        await supernode.hears(Announce)
        await supernode.say(opened(supernode, node, digest, b"a config"), InlineBlob(5, SWARM, b"A CONFIG"))
        with pytest.raises(DigestMismatch):
            await reading
        assert not (await supernode.hears(BlobChecked)).matches
        assert not any(blob.held for blob in node.store.inventory())


@pytest.mark.asyncio
async def test_after_a_reconnect_the_bitfield_is_announced(tmp_path: Path) -> None:
    async with two_nodes(tmp_path, limits=Limits(queries_max=0)) as (supernode, holder, node):
        blob = await begin(supernode, node)
        await supernode.say(known(1, holder), *grants(1), to=node.identity.peer)
        await supernode.hears(Stored)
        await supernode.hang_up(node.identity.peer)
        again = await supernode.hears(Announce, 2)
        assert (again.held, again.wanted, again.size_bytes) == (b"\2", True, len(CONTENT))
        blob.close()


@pytest.mark.asyncio
async def test_an_evicted_blob_is_withdrawn(tmp_path: Path) -> None:
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode) as node:
        node.holds(DIGEST, CONTENT, [SOURCE])
        supernode.heard.clear()
        await supernode.hang_up()
        await supernode.hears(Announce)
        await supernode.say(opened(supernode, node, DIGEST, CONTENT))
        assert node.store.remove(DIGEST)
        assert (await supernode.hears(Withdraw)).digest == str(DIGEST)


@pytest.mark.asyncio
async def test_content_for_an_unknown_swarm_is_declined(tmp_path: Path) -> None:
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode):
        await supernode.say(InlineBlob(5, 99, b"of no swarm"))
        assert (await supernode.hears(Failed)).lease == 5


@pytest.mark.asyncio
async def test_a_node_connects_to_the_seed_and_says_who_it_is_before_it_is_granted_anything(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, seed, node):
        await supernode.say(known(SEED_NODE, seed), to=node.identity.peer)
        blob = await begin(supernode, node)
        connected = functools.partial(seed.upload.is_connected, node.identity.peer)
        await asyncio.to_thread(wait_until, connected, "a connection to the seed")
        assert set(seed.upload.counters.served) == {"nonce"}
        blob.close()
