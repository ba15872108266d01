"""A running supernode's view of its members: what the operator's commands changed reaches it, and nothing older."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from proto.wire.tickets import Identity
from supernode.membership.authorities import AuthorityFolder
from supernode.membership.database import MemberDatabase
from supernode.membership.members import Members

if TYPE_CHECKING:
    from pathlib import Path

    from proto.ids import PeerId

pytestmark = pytest.mark.asyncio


async def test_a_lift_from_before_the_start_ends_no_later_quarantine(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path)
    folder.load_or_create()
    database = MemberDatabase(folder.path)
    before, after = Identity.generate().peer, Identity.generate().peer
    database.lift(before)
    members = Members(tmp_path, Identity.generate())
    members.open()
    lifted: list[PeerId] = []
    watching = asyncio.create_task(members.watch(lambda _: None, lambda: None, lifted.append))
    database.lift(after)
    await asyncio.to_thread(wait_until, lambda: after in lifted)
    assert lifted == [after]
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    members.close()
    database.close()
