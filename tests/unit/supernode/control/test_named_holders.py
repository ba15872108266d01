"""Whom members are told of: the blob's owners and others, up to twenty, spread evenly."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from proto.ids import Digest, PeerName
from proto.owners import owners
from proto.wire.messages import HOLDERS_MAX
from supernode.control.named_holders import NamedHolders

DIGEST = Digest.of(b"blob")


def name_of(node: int) -> PeerName:
    return PeerName(node.to_bytes(12, "big"))


def holders_of(nodes: set[int]) -> NamedHolders:
    holders = NamedHolders(DIGEST)
    for node in nodes:
        holders.add(node, name_of(node))
    return holders


@given(st.sets(st.integers(1, 1000), max_size=100), st.integers(1, 1000))
def test_everybody_else_or_twenty(nodes: set[int], asker: int) -> None:
    named = holders_of(nodes).named_to(asker)
    assert len(named) == min(HOLDERS_MAX, len(nodes - {asker}))
    assert set(named) <= nodes - {asker}
    assert len(set(named)) == len(named)


def test_owners_are_named_to_all_and_the_others_evenly() -> None:
    nodes = set(range(1, 101))
    holders = holders_of(nodes)
    named = Counter(other for node in nodes for other in holders.named_to(node))
    owned_by = owners(DIGEST, [name_of(node) for node in nodes])
    assert {name_of(node) for node, count in named.items() if count == 99} == set(owned_by)
    assert max(count for count in named.values() if count < 99) <= HOLDERS_MAX


def test_an_owner_that_is_removed_is_replaced() -> None:
    holders = holders_of(set(range(1, 31)))
    first = holders.named_to(1)[0]
    holders.remove(first)
    assert first not in holders.named_to(1)
    assert len(holders.named_to(1)) == HOLDERS_MAX


def test_an_owner_that_is_added_again_is_named_to_all_again() -> None:
    holders = holders_of(set(range(1, 101)))
    owner = holders.named_to(1)[0]
    holders.remove(owner)
    assert owner not in holders.named_to(50)
    holders.add(owner, name_of(owner))
    assert all(owner in holders.named_to(node) for node in range(1, 101) if node != owner)
