"""Whom members are told of: up to twenty others, spread evenly, and never somebody mistrusted."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.ids import Digest, PeerName
from proto.owners import owners
from proto.pieces import PieceLayout
from proto.wire.messages import HOLDERS_MAX
from proto.wire.tickets import Identity
from supernode.control.swarm_registry import OpenSwarm, SwarmRegistry
from supernode.signer import IdentitySigner
from supernode.state.base import SavedSwarm

SIGNER = IdentitySigner(Identity.generate())


def name_of(node: int) -> PeerName:
    return PeerName(node.to_bytes(12, "big"))


def swarm_of(nodes: set[int]) -> OpenSwarm:
    swarm = SwarmRegistry(SIGNER).open(Digest.of(b"blob"), PieceLayout(1000, 1000))
    for node in nodes:
        swarm.join(node, name_of(node), held=0, wanted=True)
    return swarm


@given(st.sets(st.integers(1, 1000), max_size=100), st.integers(1, 1000))
def test_everybody_else_or_twenty(nodes: set[int], asker: int) -> None:
    named = swarm_of(nodes).holders_for(asker)
    assert len(named) == min(HOLDERS_MAX, len(nodes - {asker}))
    assert set(named) <= nodes - {asker}
    assert len(set(named)) == len(named)


def test_owners_are_named_to_all_and_the_others_evenly() -> None:
    nodes = set(range(1, 101))
    swarm = swarm_of(nodes)
    named = Counter(other for node in nodes for other in swarm.holders_for(node))
    owned_by = owners(swarm.digest, [name_of(node) for node in nodes])
    assert {name_of(node) for node, count in named.items() if count == 99} == set(owned_by)
    assert max(count for count in named.values() if count < 99) <= HOLDERS_MAX


def test_an_owner_that_leaves_is_replaced() -> None:
    swarm = swarm_of(set(range(1, 31)))
    first = swarm.holders_for(1)[0]
    swarm.leave(first)
    assert first not in swarm.holders_for(1)
    assert len(swarm.holders_for(1)) == HOLDERS_MAX


def test_when_a_swarm_is_whole_is_told_by_its_rate_since_it_was_wanted() -> None:
    swarm = SwarmRegistry(SIGNER).open(Digest.of(b"blob"), PieceLayout(4000, 1000))
    swarm.begin_at("registry.example.com", 10.0)
    assert swarm.whole_in_s(12.0) == float("inf")
    swarm.seed_stored(0, 12.0)
    assert swarm.whole_in_s(12.0) == 6.0


def test_a_mistrusted_node_is_named_to_nobody() -> None:
    swarm = swarm_of({1, 2, 3})
    swarm.mistrust(2)
    assert swarm.holders_for(1) == (3,)


def test_an_owner_that_is_trusted_again_is_named_to_all_again() -> None:
    swarm = swarm_of(set(range(1, 101)))
    owner = swarm.holders_for(1)[0]
    swarm.mistrust(owner)
    assert owner not in swarm.holders_for(50)
    swarm.trust(owner)
    assert all(owner in swarm.holders_for(node) for node in range(1, 101) if node != owner)


@pytest.mark.parametrize(
    "hashes", [((0, b"h" * 31),), ((5, b"h" * 32),), ((0, "h"),), ((0, b"h" * 32), (0, b"g" * 32))]
)
def test_what_was_saved_and_makes_no_sense_counts_for_nothing(hashes: tuple[tuple[int, bytes], ...]) -> None:
    swarm = SwarmRegistry(SIGNER).open(Digest.of(b"blob"), PieceLayout(1000, 1000))
    saved = SavedSwarm(1000, 1000, True, (), hashes, (bytes(32),))
    assert not swarm.restore(saved)
    assert (swarm.hashes.known, swarm.vouched, swarm.recorded) == (0, False, set())
