"""Bytes are counted by where they came from, each piece of a member once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proto.ids import Digest, PeerName
from proto.pieces import PieceLayout
from proto.wire.messages import Stored
from proto.wire.tickets import Identity
from supernode.control.peer_session import PeerLease
from supernode.control.swarm_registry import SwarmRegistry
from supernode.control.traffic import Traffic
from supernode.signer import IdentitySigner

if TYPE_CHECKING:
    from supernode.control.open_swarm import OpenSwarm


@pytest.fixture
def swarms() -> SwarmRegistry:
    return SwarmRegistry(IdentitySigner(Identity.generate()))


@pytest.fixture
def swarm(swarms: SwarmRegistry) -> OpenSwarm:
    """Of two pieces, of 1000 and 500 bytes."""
    opened = swarms.open(Digest.of(b"some"), PieceLayout(1500, 1000))
    opened.join(1, PeerName(b"one"), held=0, wanted=True)
    return opened


@pytest.mark.parametrize(
    ("lease", "source", "leased", "counted"),
    [
        (7, 0, True, Traffic(supernode=1000)),
        (7, 2, True, Traffic(nodes=1000)),
        (7, None, True, Traffic(nodes=1000)),
        (0, None, True, Traffic(own=1000)),
        (0, None, False, Traffic(nodes=1000)),
    ],
    ids=["from the seed", "from a node", "of a lease that has ended", "by no lease", "by torrent"],
)
def test_a_piece_counts_for_where_it_came_from(
    swarms: SwarmRegistry, swarm: OpenSwarm, lease: int, source: int | None, leased: bool, counted: Traffic
) -> None:
    known = None if source is None else PeerLease(lease, swarm.number, 0, source)
    swarms.count_stored(swarm, swarm.members[1], Stored(lease, swarm.number, 0, 1), known, leased=leased)
    assert swarm.traffic == swarms.traffic == counted


def test_what_a_member_holds_already_is_not_counted_again(swarms: SwarmRegistry, swarm: OpenSwarm) -> None:
    swarm.members[1].held = 0b01
    swarms.count_stored(swarm, swarm.members[1], Stored(7, swarm.number, 0, 1), None)
    assert swarm.traffic == Traffic()


def test_what_the_seed_brings_from_members_is_not_the_origin_s(swarms: SwarmRegistry, swarm: OpenSwarm) -> None:
    swarm.brought = 0b01
    for piece in (0, 1):
        swarms.count_fetched(swarm, piece)
    assert swarm.traffic == Traffic(origin=500)


def test_saved_is_what_nodes_got_less_what_the_supernode_asked_for() -> None:
    assert Traffic(origin=100, supernode=100, nodes=300, own=50).saved == 300
    assert Traffic(origin=100, supernode=20).saved == 0
