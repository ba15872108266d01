"""Which private blobs the supernode shares, and that no other origin's word opens them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from proto.ids import Digest
from proto.runtime.private_files import write_private
from proto.wire.messages import (
    LISTED,
    PROVEN,
    Announce,
    BlobRefused,
    Source,
    SwarmOpened,
    Voided,
    Vouched,
    Withdraw,
)
from supernode import config
from supernode.app import Supernode
from supernode.membership.authorities import AuthorityFolder
from supernode.membership.commands import create_token
from tests.support.fake_origin import Fault, fake_origin
from tests.unit.supernode.harness import REPOSITORY, At, BarePeer, running_supernode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.fake_origin import FakeOrigin

CONTENT = random.Random(5).randbytes(700_000)
DIGEST = Digest.of(CONTENT)


@pytest.fixture
def private() -> Iterator[FakeOrigin]:
    """It has the blob, and gives it to nobody without a credential."""
    with fake_origin() as origin:
        origin.add(CONTENT)
        origin.always = {"HEAD": Fault(status=401), "GET": Fault(status=401)}
        yield origin


@contextlib.asynccontextmanager
async def cluster(tmp_path: Path, *origins: FakeOrigin) -> AsyncIterator[At]:
    """Where members join one whose supernode knows these registries."""
    argv = ["--listen", "127.0.0.1:0", "--upload-listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "supernode")]
    for origin in origins:
        argv += ["--insecure-upstream", origin.authority]
    # Whatever an origin said is asked anew.
    supernode = Supernode(config.load([*argv, "--store-free-floor", "0", "--permission-ttl", "0s"], {}))
    try:
        supernode.open()
        await supernode.start()
        token = create_token(AuthorityFolder(tmp_path / "supernode"), 3600, None)
        write_private(tmp_path / "join.token", token.text.encode())
        yield At(supernode.api_address, tmp_path / "join.token")
    finally:
        await supernode.stop()


@contextlib.asynccontextmanager
async def member(tmp_path: Path, *origins: FakeOrigin) -> AsyncIterator[BarePeer]:
    """The only member of such a cluster."""
    async with cluster(tmp_path, *origins) as at, BarePeer.connected(at) as peer:
        yield peer


def announce(origin: FakeOrigin, allowed: int, repository: str = REPOSITORY) -> Announce:
    source = Source(origin.authority, repository)
    return Announce(str(DIGEST), (source,), True, len(CONTENT), 0, b"", allowed=allowed)


def test_it_is_shared_with_whom_the_origin_answered_for_the_blob(tmp_path: Path, private: FakeOrigin) -> None:
    async def go() -> None:
        async with member(tmp_path, private) as peer:
            for allowed, reason in ((0, "private"), (LISTED, "unproven")):
                await peer.send(announce(private, allowed))
                assert (await peer.expect(BlobRefused)).reason == reason
            await peer.send(announce(private, PROVEN))
            opened = await peer.expect(SwarmOpened)
            assert (opened.size_bytes, opened.private) == (len(CONTENT), True)

    asyncio.run(go())


def test_what_no_client_waits_for_is_shared_by_the_operators_login_alone(tmp_path: Path, private: FakeOrigin) -> None:
    async def go() -> None:
        async with member(tmp_path, private) as peer:
            await peer.send(replace(announce(private, PROVEN), background=True))
            assert (await peer.expect(BlobRefused)).reason == "private"

    asyncio.run(go())


def test_the_origin_is_asked_once_for_all_blobs_of_a_private_repository(tmp_path: Path, private: FakeOrigin) -> None:
    async def go() -> None:
        async with member(tmp_path, private) as peer:
            await peer.send(announce(private, PROVEN))
            await peer.expect(SwarmOpened)
            asked = len(private.asked)
            source = (Source(private.authority, REPOSITORY),)
            await peer.send(Announce(str(Digest.of(b"next")), source, True, 4, 0, b"", allowed=PROVEN))
            await peer.expect(SwarmOpened)
            assert len([each for each in private.asked[asked:] if str(Digest.of(b"next")) in each.target]) == 0

    asyncio.run(go())


def test_another_origin_that_gives_the_same_blob_to_anyone_opens_nothing(
    tmp_path: Path, private: FakeOrigin, origin: FakeOrigin
) -> None:
    async def go() -> None:
        origin.add(CONTENT)
        async with member(tmp_path, private, origin) as peer:
            await peer.send(announce(private, PROVEN))
            await peer.expect(SwarmOpened)
            await peer.send(announce(origin, 0), announce(origin, PROVEN))
            assert [(await peer.expect(BlobRefused)).reason for _ in range(2)] == ["unavailable"] * 2

    asyncio.run(go())


def test_what_its_origin_made_private_is_unlocked_by_no_other_one(
    tmp_path: Path, private: FakeOrigin, origin: FakeOrigin
) -> None:
    async def go() -> None:
        origin.add(CONTENT)
        with fake_origin() as liar:
            liar.blobs[str(DIGEST)] = bytes(len(CONTENT))
            async with member(tmp_path, private, origin, liar) as peer:
                await peer.send(announce(origin, 0))
                await peer.expect(Vouched)
                await peer.send(announce(liar, 0), announce(private, PROVEN))
                assert not (await peer.expect(SwarmOpened)).private
                opened = await peer.expect(SwarmOpened)
                assert (opened.private, opened.public_at) == (True, (Source(origin.authority, REPOSITORY),))
                origin.always = {"HEAD": Fault(status=404), "GET": Fault(status=404)}
                await peer.send(announce(liar, 0), announce(private, PROVEN))
                assert [(await peer.expect(BlobRefused)).reason for _ in range(2)] == ["foreign"] * 2

    asyncio.run(go())


def test_what_is_public_is_public_whatever_a_member_says(tmp_path: Path, origin: FakeOrigin) -> None:
    async def go() -> None:
        origin.add(CONTENT)
        async with member(tmp_path, origin) as peer:
            await peer.send(announce(origin, PROVEN))
            assert not (await peer.expect(SwarmOpened)).private

    asyncio.run(go())


def test_without_certificates_nothing_private_is_shared(tmp_path: Path, private: FakeOrigin) -> None:
    async def go() -> None:
        async with running_supernode(tmp_path, private) as supernode, BarePeer.connected(supernode) as peer:
            await peer.send(announce(private, PROVEN))
            assert (await peer.expect(BlobRefused)).reason == "private"

    asyncio.run(go())


def test_an_origin_that_lies_about_the_size_makes_nobody_forget_whose_a_blob_is(
    tmp_path: Path, private: FakeOrigin, origin: FakeOrigin
) -> None:
    async def go() -> None:
        async with member(tmp_path, private, origin) as peer:
            await peer.send(announce(private, PROVEN))
            await peer.expect(SwarmOpened)
            await peer.send(Withdraw(str(DIGEST)))
            for content in (CONTENT + b"!", CONTENT):
                origin.blobs[str(DIGEST)] = content
                # Each source is asked once: its answer is remembered.
                await peer.send(announce(origin, 0, f"library/has{len(content)}"))
                assert (await peer.expect(BlobRefused)).reason == "unavailable"
            await peer.send(announce(private, PROVEN))
            opened = await peer.expect(SwarmOpened)
            assert (opened.size_bytes, opened.private) == (len(CONTENT), True)

    asyncio.run(go())


def test_one_member_s_wrong_size_keeps_no_two_others_from_sharing_and_puts_them_out_no_more(
    tmp_path: Path, private: FakeOrigin
) -> None:
    async def go() -> None:
        right = announce(private, PROVEN)
        wrong = replace(right, size_bytes=len(CONTENT) + 1)
        async with (
            cluster(tmp_path, private) as at,
            BarePeer.connected(at) as liar,
            BarePeer.connected(at) as first,
            BarePeer.connected(at) as second,
        ):
            await liar.send(wrong)
            assert (await liar.expect(SwarmOpened)).size_bytes == wrong.size_bytes
            # One word against one.
            await first.send(right)
            assert "others' word" in (await first.expect(BlobRefused)).message
            await second.send(right)
            await liar.expect(Voided)
            for peer in (second, first):
                if peer is first:
                    await peer.send(right)
                opened = await peer.expect(SwarmOpened)
                assert (opened.size_bytes, opened.private) == (len(CONTENT), True)
            await liar.send(wrong)
            assert (await liar.expect(BlobRefused)).reason == "unavailable"
            await first.heard()
            assert not first.of(Voided) + second.of(Voided)

    asyncio.run(go())


def test_a_member_that_says_two_sizes_again_and_again_counts_once(tmp_path: Path, private: FakeOrigin) -> None:
    async def go() -> None:
        right = announce(private, PROVEN)
        async with (
            cluster(tmp_path, private) as at,
            BarePeer.connected(at) as honest,
            BarePeer.connected(at) as liar,
        ):
            await honest.send(right)
            await honest.expect(SwarmOpened)
            for more in (1, 2, 1, 2):
                await liar.send(replace(right, size_bytes=len(CONTENT) + more))
                await liar.expect(BlobRefused)
            await honest.heard()
            assert not honest.of(Voided)

    asyncio.run(go())
