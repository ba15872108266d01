"""What one member found out about a private blob, for those that a manifest lists it to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.registry.queues import UpstreamQueues, ignore
from proto.ids import Digest, PeerId
from proto.wire.messages import LISTED, PROVEN, Source
from supernode.origin.private_access import PROVEN_S, UNPROVEN, PrivateAccess

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Source("registry.example", "team/app")
BLOB = Digest.of(b"blob")
SIZE = 1000
ONE, OTHER = PeerId(b"1" * 32), PeerId(b"2" * 32)


class Setting:
    """An access without any login, at a time of its own."""

    def __init__(self, proof_s: float) -> None:
        self.now_s = 0.0
        self.queues = UpstreamQueues(ignore)
        self.access = PrivateAccess(
            lambda source, digest: None, lambda upstream: False, self.queues, 54.0, lambda: self.now_s, proof_s
        )

    async def ask(
        self, allowed: int, source: Source = SOURCE, size_bytes: int = SIZE, asker: PeerId | None = None
    ) -> str:
        """The reason of the refusal, empty where there is none."""
        return (await self.access.check(source, BLOB, allowed, size_bytes, asker)).reason


@pytest.fixture
def patient() -> Iterator[Setting]:
    setting = Setting(WAIT_S)
    yield setting
    setting.queues.close()


@pytest.fixture
def hasty() -> Iterator[Setting]:
    setting = Setting(0.01)
    yield setting
    setting.queues.close()


def test_the_first_is_sent_to_ask_and_the_others_wait_for_its_word(patient: Setting) -> None:
    async def go() -> None:
        assert await patient.ask(LISTED) == UNPROVEN
        others = [asyncio.create_task(patient.ask(LISTED)) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(other.done() for other in others)
        assert await patient.ask(PROVEN) == ""
        assert await asyncio.gather(*others) == ["", "", ""]
        assert await patient.ask(LISTED) == ""

    asyncio.run(go())


def test_where_that_one_finds_nothing_the_others_ask_by_themselves(hasty: Setting) -> None:
    async def go() -> None:
        assert await asyncio.gather(*(hasty.ask(LISTED) for _ in range(3))) == [UNPROVEN] * 3

    asyncio.run(go())


@pytest.mark.parametrize(
    ("source", "size_bytes"),
    [
        (Source(SOURCE.upstream, "team/other"), SIZE),
        (Source("other.example", SOURCE.repository), SIZE),
        (Source(SOURCE.upstream, SOURCE.repository, manifest=True), SIZE),
        (SOURCE, SIZE + 1),
    ],
)
def test_its_word_is_for_that_blob_in_that_repository(patient: Setting, source: Source, size_bytes: int) -> None:
    async def go() -> None:
        assert await patient.ask(LISTED) == UNPROVEN
        assert await patient.ask(PROVEN) == ""
        assert await patient.ask(LISTED, source, size_bytes) == UNPROVEN

    asyncio.run(go())


def test_its_word_is_soon_forgotten(patient: Setting) -> None:
    async def go() -> None:
        assert await patient.ask(LISTED) == UNPROVEN
        assert await patient.ask(PROVEN) == ""
        assert await patient.ask(LISTED) == ""
        patient.now_s += PROVEN_S
        assert await patient.ask(LISTED) == UNPROVEN

    asyncio.run(go())


def test_what_one_that_was_not_sent_knows_may_be_old_and_proves_nothing(hasty: Setting) -> None:
    async def go() -> None:
        assert await hasty.ask(PROVEN) == ""
        assert await hasty.ask(LISTED, asker=ONE) == UNPROVEN
        waiting = asyncio.create_task(hasty.ask(LISTED))
        await asyncio.sleep(0)
        assert await hasty.ask(PROVEN, asker=OTHER) == ""
        assert await waiting == UNPROVEN

    asyncio.run(go())
