"""What a swarm knows of itself: its members that others are told of, when it is whole, and what was saved of it."""

from __future__ import annotations

import pytest

from proto.ids import Digest, PeerName
from proto.pieces import PieceLayout
from proto.wire.tickets import Identity
from supernode.control.swarm_registry import SwarmRegistry
from supernode.signer import IdentitySigner
from supernode.state.base import SavedSwarm

SIGNER = IdentitySigner(Identity.generate())


def test_when_a_swarm_is_whole_is_told_by_its_rate_since_it_was_wanted() -> None:
    swarm = SwarmRegistry(SIGNER).open(Digest.of(b"blob"), PieceLayout(4000, 1000))
    swarm.begin_at("registry.example.com", 10.0)
    assert swarm.whole_in_s(12.0) == float("inf")
    swarm.seed_stored(0, 12.0)
    assert swarm.whole_in_s(12.0) == 6.0


def test_who_leaves_or_is_mistrusted_is_named_to_nobody() -> None:
    swarm = SwarmRegistry(SIGNER).open(Digest.of(b"blob"), PieceLayout(1000, 1000))
    for node in (1, 2, 3, 4):
        swarm.join(node, PeerName(node.to_bytes(12, "big")), held=0, wanted=True)
    swarm.mistrust(2)
    swarm.leave(4)
    assert swarm.holders.named_to(1) == (3,)
    swarm.trust(2)
    swarm.trust(4)
    assert set(swarm.holders.named_to(1)) == {2, 3}


@pytest.mark.parametrize(
    "hashes", [((0, b"h" * 31),), ((5, b"h" * 32),), ((0, "h"),), ((0, b"h" * 32), (0, b"g" * 32))]
)
def test_what_was_saved_and_makes_no_sense_counts_for_nothing(hashes: tuple[tuple[int, bytes], ...]) -> None:
    swarm = SwarmRegistry(SIGNER).open(Digest.of(b"blob"), PieceLayout(1000, 1000))
    saved = SavedSwarm(1000, 1000, True, (), hashes, (bytes(32),))
    assert not swarm.restore(saved)
    assert (swarm.hashes.known, swarm.vouched, swarm.recorded) == (0, False, set())
