"""A running supernode's view of its members: what commands changed reaches it, and what goes wrong ends nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.membership.requests import join_request
from proto.errors import ConfigError
from proto.wire.tickets import Identity
from supernode.membership import members as module
from supernode.membership.authorities import AuthorityFolder
from supernode.membership.commands import create_token
from supernode.membership.database import FILE, MemberDatabase
from supernode.membership.members import Members

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from proto.ids import PeerId

pytestmark = pytest.mark.asyncio


class Watched:
    """Members while they are watched, and what follows."""

    def __init__(self, data_dir: Path) -> None:
        self.members = Members(data_dir, Identity.generate())
        self.members.open()
        self.folder = data_dir / "ca"
        self.revoked: frozenset[PeerId] = frozenset()
        self.rotations = 0
        self.looked = asyncio.Event()

    async def watch(self) -> None:
        def saw(revoked: frozenset[PeerId]) -> None:
            self.revoked = revoked
            self.looked.set()

        def rotated() -> None:
            self.rotations += 1

        await self.members.watch(saw, rotated, lambda peer: None)

    async def look_twice(self) -> None:
        """What was done before has been seen by then."""
        for _ in range(2):
            self.looked.clear()
            async with asyncio.timeout(WAIT_S):
                await self.looked.wait()

    async def joined(self, token_of: Path) -> PeerId:
        identity = Identity.generate()
        token = create_token(self.members._folder, 3600.0, None)
        return (await self.members.join(join_request(identity, token), str(token_of))).peer


@pytest_asyncio.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    found = Watched(tmp_path)
    watching = asyncio.create_task(found.watch())
    yield found
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    await asyncio.to_thread(found.members.close)


async def test_a_folder_that_is_gone_leaves_the_authority_as_it_was(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    before = watched.members.fingerprint
    # At once: removed file by file, it would have a lock anew from who looks meanwhile, and be no empty folder.
    watched.folder.rename(watched.folder.with_name("gone"))
    await watched.look_twice()
    assert (watched.members.fingerprint, watched.rotations) == (before, 0)
    assert not watched.folder.exists()
    assert sum("membership_not_read" in message for message in caplog.messages) == 1


async def test_who_is_revoked_is_out_although_the_authority_cannot_be_read(watched: Watched, tmp_path: Path) -> None:
    peer = await watched.joined(tmp_path)
    (watched.folder / "authorities.json").write_text("[]")
    database = MemberDatabase(watched.folder)
    database.revoke_node(peer)
    database.close()
    await watched.look_twice()
    assert watched.revoked == {peer}


async def test_who_is_revoked_is_out_although_nothing_can_be_written(watched: Watched, tmp_path: Path) -> None:
    peer = await watched.joined(tmp_path)
    database = MemberDatabase(watched.folder)
    database.revoke_node(peer)
    database.close()
    with contextlib.closing(sqlite3.connect(watched.folder / FILE)) as other:
        # As on a full disk: whoever would write gets an error.
        other.execute("CREATE TRIGGER full BEFORE UPDATE ON nodes BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        other.commit()
        watched.members._seen[peer] = (peer, "10.0.0.1", 1.0)
        await watched.look_twice()
    assert watched.revoked == {peer}


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


@pytest.mark.parametrize("lose", [lambda file: file.write_bytes(b""), lambda file: file.unlink()])
async def test_without_the_list_of_who_was_revoked_a_supernode_does_not_start(
    tmp_path: Path, lose: Callable[[Path], object]
) -> None:
    first = Members(tmp_path, Identity.generate())
    first.open()
    first.close()
    lose(tmp_path / "ca" / FILE)
    for _ in range(2):
        # Nor does the next start find what the one before has made.
        with pytest.raises(ConfigError, match=r"revoked.*: restore it from a backup, or remove .*/ca and let"):
            Members(tmp_path, Identity.generate()).open()


async def test_a_first_start_that_was_killed_before_it_had_an_authority_begins_again(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / FILE).touch()
    members = Members(tmp_path, Identity.generate())
    members.open()
    members.close()
    assert AuthorityFolder(tmp_path).exists()
