"""When tags are looked at because events may have been lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from supernode.registry_events.senders import Senders
from supernode.registry_events.service import LOST_AGAIN_S, RegistryEvents
from supernode.registry_events.tag_scan import ScanResult

pytestmark = pytest.mark.asyncio


@dataclass
class Scan:
    """Counts how often it is wanted."""

    last: ScanResult | None = None
    wanted: asyncio.Queue[None] = field(default_factory=asyncio.Queue)

    def want(self) -> None:
        self.wanted.put_nowait(None)

    async def close(self) -> None: ...


def events(scan: Scan, every_s: float = 3600.0, now: float = 1000.0) -> RegistryEvents:
    made = RegistryEvents(
        cast("Any", None), cast("Any", None), cast("Any", None),
        rules=lambda: (), senders=Senders, is_allowed=lambda host: True, has_login=lambda host: False,
        count=lambda result, number: None, on_fatal=lambda error: None, clock=lambda: now,
        scan_every_s=every_s, first_scan_s=0.0,
    )  # fmt: skip
    made.scan = cast("Any", scan)
    return made


async def test_a_registry_that_started_again_may_have_lost_events_and_the_first_that_is_heard_has_not() -> None:
    scan = Scan()
    made = events(scan)
    made.seen({"one"})
    made.seen({"one"})
    assert made._scan_later is None
    made.seen({"two"})
    await asyncio.wait_for(scan.wanted.get(), 60)


async def test_after_a_scan_the_next_waits_however_often_events_may_be_lost() -> None:
    made, began_s = events(Scan(last=ScanResult(900.0, 1, 0, {}))), asyncio.get_running_loop().time()
    for _ in range(3):
        made.may_be_lost()
    assert made._scan_later is not None
    assert made._scan_later.when() >= began_s + LOST_AGAIN_S - 100.0
    await made.close()
    assert made._scan_later.cancelled()


async def test_where_tags_are_never_looked_at_they_are_not_then() -> None:
    made = events(Scan(), every_s=0.0)
    made.may_be_lost()
    assert made._scan_later is None
