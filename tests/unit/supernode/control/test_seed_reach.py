"""Whether nodes reach the seed: what is remembered of its address, for how long, and what follows for a swarm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proto.wire.messages import Failed, FetchReason, Stored
from supernode.control.seed_reach import SEED_FAILURES_MAX, SEED_TRY_S
from supernode.scheduler.contract import SEED, FetchFromOrigin, OriginEnded, PieceEvicted, PieceStored
from tests.unit.supernode.control.bench import Bench

if TYPE_CHECKING:
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.peer_session import PeerSession

HASH = b"h" * 32


def out_of_reach(
    bench: Bench, session: PeerSession, swarm: OpenSwarm, reason: str = FetchReason.CONNECTION, times: int = 0
) -> None:
    """The peer fails to fetch from the seed, as often as it takes."""
    for number in range(1, (times or SEED_FAILURES_MAX) + 1):
        bench.lease(session, number, swarm, 0, SEED)
        bench.handler.received(session, Failed(number, reason))


def wanting(bench: Bench, *, address: str = "10.0.0.1:1", content: bytes = b"blob") -> tuple[PeerSession, OpenSwarm]:
    """A peer that wants a blob of two pieces of its own."""
    session, swarm = bench.join(address), bench.open(content, pieces=2)
    bench.enter(session, swarm)
    return session, swarm


def test_where_nobody_reaches_the_seed_its_pieces_count_for_nothing_and_its_fetch_ends() -> None:
    bench = Bench()
    one, swarm = wanting(bench)
    swarm.seed_stored(1, 0.0)
    swarm.fetch_began(9)
    bench.events.clear()
    out_of_reach(bench, one, swarm)
    assert PieceEvicted(swarm.number, SEED, 0b10) in bench.events
    assert bench.seed.calls[-1] == ("cancel_origin", 9)
    bench.control.commands.carry_out(FetchFromOrigin(10, swarm.number, 0b11))
    assert bench.events[-1] == OriginEnded(10, swarm.number, False)


def test_one_that_reaches_the_seed_is_enough() -> None:
    bench = Bench()
    one, swarm = wanting(bench)
    other = bench.join("10.0.0.2:1")
    bench.enter(other, swarm)
    bench.lease(other, 1, swarm, 1, SEED)
    bench.handler.received(other, Stored(1, swarm.number, 1, 10))
    out_of_reach(bench, one, swarm)
    assert not swarm.seed_out_of_reach


def test_what_one_node_found_out_holds_for_later_blobs_and_for_whoever_comes_next() -> None:
    bench = Bench()
    out_of_reach(bench, *wanting(bench))
    _, later = wanting(bench, address="10.0.0.2:1", content=b"later")
    assert later.seed_out_of_reach
    assert list(bench.control.seed_reach.since_s()) == ["10.0.0.9:65003"]
    assert bench.control.seed_reach.nodes_out() == 2


def test_one_nodes_word_is_nothing_for_others_while_one_of_them_is_connected_to_the_seed() -> None:
    bench = Bench()
    other, second = wanting(bench, address="10.0.0.2:1", content=b"second")
    bench.connected.add(other.info.peer)
    one, swarm = wanting(bench)
    out_of_reach(bench, one, swarm)
    assert (swarm.seed_out_of_reach, second.seed_out_of_reach) == (True, False)
    assert bench.control.seed_reach.since_s() == {}
    assert not bench.control.seed_reach.is_out(other)


def test_an_address_is_forgotten_to_be_unreachable_once_a_node_reaches_it() -> None:
    bench = Bench()
    one, swarm = wanting(bench)
    swarm.seed_stored(1, 0.0)
    out_of_reach(bench, one, swarm)
    bench.events.clear()
    other = bench.join("10.0.0.2:1")
    bench.handler.refresh(other)
    assert swarm.seed_out_of_reach
    bench.connected.add(other.info.peer)
    bench.handler.refresh(other)
    assert (swarm.seed_out_of_reach, bench.control.seed_reach.since_s()) == (False, {})
    assert PieceStored(swarm.number, SEED, 1) in bench.events


def test_content_that_came_inside_a_message_says_nothing_of_the_port() -> None:
    bench = Bench()
    one, swarm = wanting(bench)
    out_of_reach(bench, one, swarm)
    tiny = bench.open(b"tiny")
    tiny.inline = True
    bench.enter(one, tiny)
    bench.lease(one, 7, tiny, 0, SEED)
    bench.handler.received(one, Stored(7, tiny.number, 0, 1))
    assert swarm.seed_out_of_reach


@pytest.mark.parametrize("reason", [FetchReason.TIMEOUT, FetchReason.PROTOCOL, FetchReason.TICKET])
def test_another_server_at_the_address_is_not_the_seed_either(reason: str) -> None:
    bench = Bench()
    one, swarm = wanting(bench)
    out_of_reach(bench, one, swarm, reason)
    assert swarm.seed_out_of_reach


def test_a_node_that_is_connected_to_the_seed_reaches_it_however_its_transfers_fail() -> None:
    bench = Bench()
    one, swarm = wanting(bench)
    bench.connected.add(one.info.peer)
    out_of_reach(bench, one, swarm, FetchReason.TIMEOUT)
    assert not swarm.seed_out_of_reach


def test_an_address_that_nobody_reaches_is_tried_again_by_one_node_after_a_while() -> None:
    bench = Bench()
    one, swarm = wanting(bench)
    other, second = wanting(bench, address="10.0.0.2:1", content=b"second")
    out_of_reach(bench, one, swarm)
    bench.now_s += SEED_TRY_S
    for session in (one, other):
        bench.handler.refresh(session)
    assert [swarm.seed_out_of_reach, second.seed_out_of_reach] == [False, True]
    out_of_reach(bench, one, swarm, times=1)
    assert swarm.seed_out_of_reach


def test_when_the_last_node_that_reaches_the_seed_has_what_it_wants_the_others_do_without_it() -> None:
    bench = Bench()
    one, swarm = wanting(bench)
    other = bench.join("10.0.0.2:1")
    bench.enter(other, swarm)
    bench.control.participation.learn_hashes(swarm, 0, HASH * 2)
    for piece in (0, 1):
        bench.lease(other, piece + 1, swarm, piece, SEED)
        bench.handler.received(other, Stored(piece + 1, swarm.number, piece, 10))
        out_of_reach(bench, one, swarm)
    assert swarm.seed_out_of_reach
