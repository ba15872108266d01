"""The book of nodes: whose word against others counts."""

from __future__ import annotations

import pytest

from proto.wire.tickets import Identity
from supernode.control.node_registry import ACCUSED_MAX, NodeRegistry

pytestmark = pytest.mark.asyncio


async def test_a_peer_that_finds_everybody_corrupt_is_believed_about_the_first_few() -> None:
    book = NodeRegistry()
    accuser, *sources = (Identity.generate().peer for _ in range(6))
    assert [book.may_accuse(accuser, source) for source in sources] == [True] * ACCUSED_MAX + [False] * 3
    assert book.may_accuse(accuser, sources[0])


async def test_one_peers_accusations_cost_another_nothing() -> None:
    book = NodeRegistry()
    liar, honest, *sources = (Identity.generate().peer for _ in range(6))
    for source in sources:
        book.may_accuse(liar, source)
    assert book.may_accuse(honest, sources[3])
