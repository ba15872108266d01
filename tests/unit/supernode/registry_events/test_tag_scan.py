"""Tags that changed without an event."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from peer.registry.origins import Origins
from proto.ids import Digest
from proto.oci.upstreams import UpstreamTable
from supernode.registry_events.processing import QueueFull, Received
from supernode.registry_events.rules import Rule
from supernode.registry_events.tag_scan import ScanResult, TagScan
from supernode.state.base import NewEvent
from supernode.state.sqlite import SqliteState
from supernode.state.thread import StateThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from supernode.registry_events.notice import Notice
    from tests.support.fake_origin import FakeOrigin

pytestmark = pytest.mark.asyncio


@dataclass
class Scanned:
    """A scan of the repository `team/app` at the origin, and what it told of."""

    origin: FakeOrigin
    state: StateThread
    scan: TagScan
    told: list[Notice] = field(default_factory=list)

    def push(self, tag: str, content: bytes) -> str:
        """What the tag names from now on, in the origin's list of tags, too."""
        self.origin.blobs[tag] = content
        tags = json.loads(self.origin.blobs.get("list", b'{"tags": []}'))["tags"]
        self.origin.blobs["list"] = json.dumps({"tags": [*dict.fromkeys([*tags, tag])]}).encode()
        return str(Digest.of(content))

    async def once(self) -> ScanResult:
        """One more scan, to its end."""
        before = self.scan.last
        self.scan.want()
        await asyncio.to_thread(wait_until, lambda: self.scan.last is not before and not self.scan.running)
        assert self.scan.last is not None
        return self.scan.last


@asynccontextmanager
async def scanning(folder: Path, origin: FakeOrigin, rule: Rule, *, full: bool = False) -> AsyncIterator[Scanned]:
    """What it tells of is saved as events are."""

    async def tell(notices: Sequence[Notice]) -> Received:
        if full:
            raise QueueFull
        scanned.told += notices
        new = [NewEvent(each.key, "text", each.repository, each.tag, each.digest) for each in notices]
        return Received(queued=len(await state.add_events(new)))

    def fail(error: BaseException) -> None:
        raise error

    state = StateThread(SqliteState(folder / "state.sqlite"))
    origins = Origins(lambda: UpstreamTable.build(sections=[origin.upstream]))
    seconds = iter(range(100))
    scan = TagScan(
        state, origins, lambda host: False, lambda: [rule], tell, fail, lambda: float(next(seconds)),
        every_s=0.0, first_s=0.0, soon_s=0.0,
    )  # fmt: skip
    scanned = Scanned(origin, state, scan)
    scan.start()
    try:
        yield scanned
    finally:
        await scan.close()
        await asyncio.to_thread(origins.close)
        await asyncio.to_thread(state.close)


def rule_at(origin: FakeOrigin, repository: str = "team/app") -> Rule:
    return Rule("apps", (f"{origin.authority}/{repository}",), ("v*",))


async def test_what_was_there_before_the_first_scan_is_no_news(tmp_path: Path, origin: FakeOrigin) -> None:
    async with scanning(tmp_path, origin, rule_at(origin)) as scanned:
        old = scanned.push("v1", b"old")
        assert (await scanned.once()).found == 0
        assert await scanned.state.load_tags(f"{origin.authority}/team/app") == {"": "", "v1": old}


async def test_tags_that_are_new_or_moved_are_told_of_once(tmp_path: Path, origin: FakeOrigin) -> None:
    async with scanning(tmp_path, origin, rule_at(origin)) as scanned:
        scanned.push("v1", b"old")
        scanned.push("v2", b"stays")
        await scanned.once()
        moved, new = scanned.push("v1", b"moved"), scanned.push("v3", b"new")
        scanned.push("test", b"of no rule")
        for _ in range(2):
            await scanned.once()
        assert [(each.tag, each.digest) for each in scanned.told] == [("v1", moved), ("v3", new)]
        back = scanned.push("v1", b"old")
        await scanned.once()
        assert (scanned.told[-1].tag, scanned.told[-1].digest) == ("v1", back)


async def test_what_an_event_told_of_is_no_news_and_its_repository_is_one_of_a_pattern(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    async with scanning(tmp_path, origin, rule_at(origin, "team/*")) as scanned:
        assert (await scanned.once()).repositories == 0
        repository = f"{origin.authority}/team/app"
        told = scanned.push("v1", b"told")
        await scanned.state.add_events([NewEvent("key", "text", repository, "v1", told)])
        assert (await scanned.once()).repositories == 1
        scanned.push("v2", b"lost")
        await scanned.once()
        assert [each.tag for each in scanned.told] == ["v2"]


async def test_a_registry_that_fails_is_said_with_its_reason(tmp_path: Path, origin: FakeOrigin) -> None:
    async with scanning(tmp_path, origin, Rule("other", ("other.example/app",))) as scanned:
        result = await scanned.once()
        assert (result.repositories, list(result.problems)) == (0, ["other.example/app"])
        assert "not an allowed upstream" in result.problems["other.example/app"]


async def test_the_first_tag_of_a_repository_that_was_not_there_is_news(tmp_path: Path, origin: FakeOrigin) -> None:
    async with scanning(tmp_path, origin, rule_at(origin)) as scanned:
        assert (await scanned.once()).repositories == 1
        scanned.push("v1", b"first")
        await scanned.once()
        assert [each.tag for each in scanned.told] == ["v1"]


async def test_what_finds_no_room_is_told_of_in_a_later_scan(tmp_path: Path, origin: FakeOrigin) -> None:
    async with scanning(tmp_path, origin, rule_at(origin), full=True) as scanned:
        scanned.push("v1", b"old")
        await scanned.once()
        scanned.push("v2", b"new")
        assert "too many" in next(iter((await scanned.once()).problems.values()))
        assert "v2" not in await scanned.state.load_tags(f"{origin.authority}/team/app")
