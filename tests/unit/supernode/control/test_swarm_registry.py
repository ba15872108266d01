"""Whom members are told of: up to twenty others, spread evenly, and never somebody mistrusted."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from proto.ids import Digest
from proto.pieces import PieceLayout
from proto.wire.messages import HOLDERS_MAX
from proto.wire.tickets import Identity
from supernode.control.swarm_registry import OpenSwarm, SwarmRegistry
from supernode.signer import IdentitySigner

SIGNER = IdentitySigner(Identity.generate())


def swarm_of(nodes: set[int]) -> OpenSwarm:
    swarm = SwarmRegistry(SIGNER).open(Digest.of(b"blob"), PieceLayout(1000, 1000))
    for node in nodes:
        swarm.join(node, held=0, wanted=True)
    return swarm


@given(st.sets(st.integers(1, 1000), max_size=100), st.integers(1, 1000))
def test_everybody_else_or_twenty(nodes: set[int], asker: int) -> None:
    named = swarm_of(nodes).holders_for(asker)
    assert len(named) == min(HOLDERS_MAX, len(nodes - {asker}))
    assert set(named) <= nodes - {asker}
    assert len(set(named)) == len(named)


def test_no_node_is_named_to_all() -> None:
    nodes = set(range(1, 101))
    swarm = swarm_of(nodes)
    named = Counter(other for node in nodes for other in swarm.holders_for(node))
    assert set(named.values()) == {HOLDERS_MAX}


def test_a_mistrusted_node_is_named_to_nobody() -> None:
    swarm = swarm_of({1, 2, 3})
    swarm.mistrust(2)
    assert swarm.holders_for(1) == (3,)
