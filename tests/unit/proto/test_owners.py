"""Owners of a blob at the origin: the same for all that know the same names, and stable when nodes come and go."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from proto.ids import Digest, PeerName
from proto.owners import OWNERS_MAX, SPANS_MAX, owners, place, span_pieces

DIGEST = Digest.of(b"layer")
PEERS = [PeerName(bytes([number]) * 12) for number in range(200)]
names = st.lists(st.sampled_from(PEERS), min_size=1, unique=True)


@given(names)
def test_the_order_in_which_names_were_learned_does_not_matter(peers: list[PeerName]) -> None:
    assert owners(DIGEST, reversed(peers)) == owners(DIGEST, peers)


@given(names)
def test_who_knows_the_owners_and_any_others_comes_to_the_same_owners(peers: list[PeerName]) -> None:
    owned_by = owners(DIGEST, PEERS)
    assert owners(DIGEST, {*owned_by, *peers}) == owned_by


@given(names)
def test_a_node_that_leaves_changes_nothing_but_its_own_place(peers: list[PeerName]) -> None:
    before = owners(DIGEST, peers)
    after = owners(DIGEST, peers[1:])
    assert [peer for peer in before if peer != peers[0]] == after[: len(before) - (peers[0] in before)]


def test_spans_are_spread_over_the_owners() -> None:
    owned_by = owners(DIGEST, PEERS)
    first = Counter(min(owned_by, key=lambda peer: place(DIGEST, peer, span)) for span in range(400))
    assert len(first) == OWNERS_MAX
    assert max(first.values()) < 2.5 * 400 / OWNERS_MAX


@given(st.integers(1, 100_000))
def test_a_blob_has_few_spans(count: int) -> None:
    assert -(-count // span_pieces(count)) <= SPANS_MAX
