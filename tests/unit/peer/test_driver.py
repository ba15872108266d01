"""The driver with a real store, real transfers and a scripted supernode: what a node does, end to end but the proxy."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from typing import TYPE_CHECKING

import pytest

from peer.blobs import BlobFailed, DigestMismatch, NotShared
from peer.downloader.contract import BlobFound
from peer.downloader.limits import Limits
from proto.ids import Digest
from proto.messages import (
    SEED_NODE,
    Announce,
    BlobChecked,
    BlobRefused,
    Failed,
    Grant,
    Holders,
    InlineBlob,
    OriginStatus,
    OriginTried,
    PieceHashes,
    Source,
    Stored,
    Voided,
    Withdraw,
)
from tests.support.fake_origin import FakeOrigin, fake_origin
from tests.support.processes import wait_until
from tests.unit.peer.nodes import (
    LIMITS,
    PIECE,
    SWARM,
    Node,
    hashes_of,
    known,
    layout_of,
    opened,
    read_all,
    running_node,
    signed_hash,
)
from tests.unit.peer.scripted_supernode import ScriptedSupernode, scripted_supernode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from peer.opened import BlobReader

CONTENT = random.Random(3).randbytes(4 * PIECE - 77)
DIGEST = Digest.of(CONTENT)
SOURCE = Source("docker.io", "library/debian")


@pytest.fixture
def origin() -> Iterator[FakeOrigin]:
    with fake_origin() as running:
        running.add(CONTENT)
        yield running


@contextlib.asynccontextmanager
async def two_nodes(
    folder: Path, origin: FakeOrigin | None = None, limits: Limits = LIMITS
) -> AsyncIterator[tuple[ScriptedSupernode, Node, Node]]:
    """(supernode, a node that holds CONTENT, a node that does not)."""
    async with (
        scripted_supernode() as supernode,
        running_node(folder / "a", supernode, origin) as holder,
        running_node(folder / "b", supernode, origin, limits) as node,
    ):
        holder.holds(DIGEST, CONTENT)
        yield supernode, holder, node


async def begin(
    supernode: ScriptedSupernode, node: Node, holder: Node | None = None, source: Source = SOURCE
) -> BlobReader:
    """A client asks, the supernode opens the swarm and tells the hashes and the other node."""
    opening = asyncio.create_task(node.driver.open(DIGEST, source))
    await supernode.hears(Announce)
    to = node.identity.peer
    await supernode.say(opened(supernode, node, DIGEST, CONTENT), hashes_of(supernode, DIGEST, CONTENT), to=to)
    if holder is not None:
        await supernode.say(known(1, holder), Holders(SWARM, (1,)), to=to)
    async with asyncio.timeout(10):
        return await opening


def grants(*pieces: int) -> list[Grant]:
    return [Grant(100 + piece, SWARM, piece, 1, 10_000) for piece in pieces]


@pytest.mark.asyncio
async def test_a_blob_comes_from_another_node_piece_by_piece(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder)
        await supernode.say(*grants(2, 0, 3, 1), to=node.identity.peer)
        assert await read_all(blob) == CONTENT
        assert blob.complete
        await supernode.hears(Stored, 4)
        assert (await supernode.hears(BlobChecked)).matches
        blob.close()
        sample = node.metrics.registry.get_sample_value
        assert sample("layercast_bytes_total", {"source": "peer"}) == len(CONTENT)
        assert sample("layercast_leases_total", {"outcome": "stored"}) == 4


@pytest.mark.asyncio
async def test_the_last_piece_is_withheld_until_the_digest_passed(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder)
        await supernode.say(*grants(0, 1, 3), to=node.identity.peer)
        await supernode.hears(Stored, 3)
        assert await blob.wait_available(0) == 2 * PIECE
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await blob.wait_available(3 * PIECE)
        await supernode.say(*grants(2), to=node.identity.peer)
        async with asyncio.timeout(10):
            assert await blob.wait_available(3 * PIECE) == len(CONTENT)
        blob.close()


@pytest.mark.asyncio
async def test_several_clients_read_one_download(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder)
        others = [asyncio.create_task(node.read(DIGEST, SOURCE)) for _ in range(5)]
        await supernode.say(*grants(0, 1, 2, 3), to=node.identity.peer)
        assert await asyncio.gather(*others) == [CONTENT] * 5
        blob.close()
        assert node.driver.known_size(DIGEST, SOURCE) == len(CONTENT)
        assert node.driver.known_size(DIGEST, Source("quay.io", "x")) is None


@pytest.mark.asyncio
async def test_a_client_that_hangs_up_stops_nothing(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        (await begin(supernode, node, holder)).close()
        await supernode.say(*grants(0, 1, 2, 3), to=node.identity.peer)
        assert (await supernode.hears(BlobChecked)).matches


@pytest.mark.asyncio
async def test_with_the_link_lost_the_node_goes_on_from_the_holders_it_knows(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder)
        supernode.refuses = True
        await supernode.hang_up(node.identity.peer)
        assert await read_all(blob) == CONTENT
        blob.close()


@pytest.mark.asyncio
async def test_signed_hashes_are_learnt_from_holders_too(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        other = await begin(supernode, holder)  # the holder hears the signed hashes
        other.close()
        opening = asyncio.create_task(node.driver.open(DIGEST, SOURCE))
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
    origin.head_status = 401
    async with running_node(tmp_path / "a", origin=origin) as node:
        with pytest.raises(NotShared) as refused:
            await node.driver.open(DIGEST, Source(origin.authority, "name"))
        assert refused.value.reason == "private"


@pytest.mark.asyncio
async def test_wrong_content_ends_its_readers_and_is_dropped(tmp_path: Path, origin: FakeOrigin) -> None:
    origin.blobs[str(DIGEST)] = b"\0" + CONTENT[1:]
    async with running_node(tmp_path / "a", origin=origin) as node:
        blob = await node.driver.open(DIGEST, Source(origin.authority, "name"))
        with pytest.raises(DigestMismatch):
            await read_all(blob)
        assert blob.handle.held == 0
        blob.close()


@pytest.mark.asyncio
async def test_the_supernode_s_no_is_the_client_s(tmp_path: Path) -> None:
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode) as node:
        opening = asyncio.create_task(node.driver.open(DIGEST, SOURCE))
        await supernode.hears(Announce)
        await supernode.say(BlobRefused(str(DIGEST), "private", "wants a credential"))
        with pytest.raises(NotShared) as refused:
            await opening
        assert refused.value.reason == "private"


@pytest.mark.asyncio
async def test_hashes_that_the_supernode_did_not_sign_are_ignored(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        opening = asyncio.create_task(node.driver.open(DIGEST, SOURCE))
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
        opening = asyncio.create_task(node.driver.open(DIGEST, SOURCE))
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
        opening = asyncio.create_task(node.driver.open(DIGEST, SOURCE))
        await supernode.hears(Announce)
        await supernode.say(
            opened(supernode, node, DIGEST, CONTENT), known(1, holder), *grants(0), to=node.identity.peer
        )
        blob = await opening
        assert (await supernode.hears(Failed)).reason == "protocol"
        assert (blob.handle.held, blob.handle.hash_of(0)) == (0, None)
        blob.close()


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
        assert not node.driver.inline


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
async def test_an_elected_node_asks_the_origin_for_all(tmp_path: Path, origin: FakeOrigin) -> None:
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode, origin) as node:
        opening = asyncio.create_task(node.driver.open(DIGEST, Source(origin.authority, "name")))
        await supernode.hears(Announce)
        await supernode.say(opened(supernode, node, DIGEST, CONTENT))
        blob = await opening
        await supernode.say(OriginStatus(SWARM, "unreachable", True))
        assert await read_all(blob) == CONTENT
        assert (await supernode.hears(OriginTried)).reason == ""
        announced = await supernode.hears(Announce, 2)
        assert announced.hashes == hashes_of(supernode, DIGEST, CONTENT).hashes
        blob.close()


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
async def test_a_client_that_gives_up_waiting_leaves_nothing_behind(tmp_path: Path) -> None:
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode) as node:
        opening = asyncio.create_task(node.driver.open(DIGEST, SOURCE))
        await supernode.hears(Announce)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await supernode.say(BlobRefused(str(DIGEST), "unknown", ""))
        await asyncio.to_thread(wait_until, lambda: not node.driver.story(DIGEST), "the blob is forgotten")


@pytest.mark.asyncio
async def test_sharing_switched_off_sends_clients_to_their_origin(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder)
        node.driver.switch_sharing(False)
        with pytest.raises(BlobFailed):
            await read_all(blob)
        with pytest.raises(NotShared) as refused:
            await node.driver.open(DIGEST, SOURCE)
        assert refused.value.reason == "off"
        blob.close()


@pytest.mark.asyncio
async def test_a_stopping_node_lets_nobody_wait(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, holder, node):
        blob = await begin(supernode, node, holder)
        waiting = asyncio.create_task(read_all(blob))
        await asyncio.sleep(0)
        node.driver.close()
        with pytest.raises(BlobFailed):
            await waiting
        with pytest.raises(NotShared):
            await node.driver.open(DIGEST, SOURCE)


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
        node.driver.post(BlobFound(DIGEST, len(CONTENT), PIECE, 0b0001, complete=False, sources=(SOURCE,)))
        opening = asyncio.create_task(node.driver.open(DIGEST, SOURCE))
        await supernode.hears(Announce)
        to = node.identity.peer
        await supernode.say(opened(supernode, node, DIGEST, CONTENT), hashes_of(supernode, DIGEST, CONTENT), to=to)
        with contextlib.suppress(NotShared, BlobFailed):
            async with asyncio.timeout(10):
                (await opening).close()
        await asyncio.to_thread(
            wait_until, lambda: not any(blob.held for blob in node.store.inventory() if blob.digest == DIGEST), "void"
        )


@pytest.mark.asyncio
async def test_what_came_with_a_lease_that_was_declined_is_not_kept(tmp_path: Path) -> None:
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode) as node:
        await supernode.say(InlineBlob(5, 99, b"of no swarm"))
        assert (await supernode.hears(Failed)).lease == 5
        assert not node.driver.inline


@pytest.mark.asyncio
async def test_a_node_connects_to_the_seed_before_it_is_granted_anything(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (supernode, seed, node):
        await supernode.say(known(SEED_NODE, seed), to=node.identity.peer)
        blob = await begin(supernode, node)
        # The seed counts an answer after it has sent it.
        served = seed.upload.counters.served
        await asyncio.to_thread(wait_until, lambda: served() == {"nonce": 1}, "a connection to the seed")
        blob.close()
