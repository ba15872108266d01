"""What a node tells of its store when a session opens: the driver with a real store and a scripted supernode."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from proto.ids import Digest
from proto.wire.messages import Announce, Source
from tests.unit.peer.node.nodes import PIECE, layout_of, running_node
from tests.unit.peer.node.scripted_supernode import scripted_supernode

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = random.Random(3).randbytes(4 * PIECE - 77)
DIGEST = Digest.of(CONTENT)
SOURCE = Source("docker.io", "library/debian")


@pytest.mark.asyncio
async def test_announcing_is_no_use_of_a_blob(tmp_path: Path) -> None:
    async with scripted_supernode() as supernode, running_node(tmp_path / "a", supernode) as node:
        other = bytes(100)
        node.holds(DIGEST, CONTENT, [SOURCE])
        node.holds(Digest.of(other), other, [SOURCE])
        node.store.open(DIGEST, layout_of(CONTENT)).close()
        order = [blob.digest for blob in node.store.inventory()]
        supernode.heard.clear()
        await supernode.hang_up()
        await supernode.hears(Announce, 2)
        assert [blob.digest for blob in node.store.inventory()] == order == [Digest.of(other), DIGEST]
