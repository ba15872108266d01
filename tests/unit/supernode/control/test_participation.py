"""What follows when members come and go, and when it becomes known what they hold."""

from __future__ import annotations

from proto.ids import Digest, peer_name
from proto.wire.messages import Announce, Holders, Voided
from supernode.scheduler.contract import (
    PeerAnnounced,
    PeerLost,
    PeerQuarantined,
    PeerWithdrew,
    PieceStored,
    QuarantineEnded,
    SwarmClosed,
    SwarmVoided,
)
from tests.unit.supernode.control.bench import SOURCE, Bench

HASH = b"h" * 32
BLOB = Digest.of(b"blob")


def test_hashes_that_become_known_together_are_saved_as_one_run() -> None:
    bench = Bench()
    swarm = bench.open(b"blob", pieces=5)
    bench.control.participation.learn_hashes(swarm, 2, HASH)
    bench.control.participation.learn_hashes(swarm, 0, HASH * 5)
    assert bench.saved.hashes == [(2, HASH), (0, HASH * 2), (3, HASH * 2)]


def test_the_blob_is_kept_while_it_is_wanted_and_the_swarm_while_anybody_is_in_it() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob")
    bench.enter(session, swarm)
    bench.control.participation.settle(swarm)
    assert bench.seed.calls == [("pin", BLOB)]
    bench.enter(session, swarm, wanted=False)
    bench.control.participation.settle(swarm)
    assert bench.seed.calls[1:] == [("unpin", BLOB)]
    bench.events.clear()
    bench.control.participation.leave(session, BLOB)
    assert bench.events == [PeerWithdrew(swarm.number, session.node), SwarmClosed(swarm.number)]
    assert bench.control.swarms.of(BLOB) is None


def test_a_lost_session_ends_once() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob")
    bench.enter(session, swarm)
    bench.events.clear()
    for _ in range(2):
        bench.handler.lost(session, "silent")
    assert bench.events == [PeerLost(session.node, "silent"), SwarmClosed(swarm.number)]
    assert bench.saved.operations.count("remove_holder") == 0


def test_a_quarantined_member_is_named_to_nobody() -> None:
    bench = Bench()
    one, bad = bench.join(), bench.join()
    swarm = bench.open(b"blob", pieces=2)
    bench.enter(bad, swarm)
    bench.control.participation.quarantine(bad.info.peer, "served corrupt bytes")
    bench.enter(one, swarm)
    assert [holders.nodes for holders in bench.heard(one).of(Holders)] in ([], [()])


def test_a_member_whose_quarantine_was_ended_is_named_again() -> None:
    bench = Bench()
    one, bad = bench.join(), bench.join()
    swarm = bench.open(b"blob", pieces=2)
    bench.enter(bad, swarm)
    bench.control.participation.quarantine(bad.info.peer, "served corrupt bytes")
    bench.control.participation.end_quarantine(bad.info.peer)
    bench.control.participation.end_quarantine(bad.info.peer)
    bench.enter(one, swarm)
    assert [holders.nodes for holders in bench.heard(one).of(Holders)] == [(bad.node,)]


def test_what_a_quarantined_member_announces_counts_once_its_quarantine_ends() -> None:
    bench = Bench()
    bad, swarm = bench.join(), bench.open(b"blob", pieces=2)
    bench.control.participation.learn_hashes(swarm, 0, HASH * 2)
    bench.control.participation.quarantine(bad.info.peer, "served corrupt bytes")
    announced = Announce(str(swarm.digest), (SOURCE,), False, 2000, 1000, b"\x03")
    bench.announce(bad, swarm.digest, announced)
    assert swarm.holders.named_to(0) == ()
    bench.control.participation.end_quarantine(bad.info.peer)
    # The scheduler knows what it holds, and heeds it from now on.
    assert bench.events[-2:] == [PeerAnnounced(swarm.number, bad.node, 0b11, False), QuarantineEnded(bad.node)]
    assert swarm.holders.named_to(0) == (bad.node,)


def test_a_quarantined_peer_that_comes_back_is_put_aside_at_the_scheduler_too() -> None:
    bench = Bench()
    bad = bench.join()
    bench.control.participation.quarantine(bad.info.peer, "served corrupt bytes")
    bench.handler.lost(bad, "gone")
    bench.events.clear()
    again = bench.handler.admit(bench.heard(bad), bad.info)
    assert bench.events[1:] == [PeerQuarantined(again.node, "served corrupt bytes")]


def test_a_voided_blob_is_forgotten_by_all_and_its_fetches_end() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob", pieces=2)
    bench.enter(session, swarm)
    swarm.fetch_began(9)
    bench.events.clear()
    bench.control.participation.drop_all(swarm, "wrong")
    assert bench.heard(session).of(Voided) == [Voided(swarm.number, "wrong")]
    assert bench.seed.calls[-1] == ("cancel_origin", 9)
    assert bench.events == [SwarmVoided(swarm.number), SwarmClosed(swarm.number)]
    assert session.announced == {}


def test_what_a_member_said_to_hold_counts_once_the_hash_is_known() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob", pieces=2)
    swarm.join(session.node, peer_name(session.info.peer), held=0b10, wanted=True)
    bench.events.clear()
    bench.control.participation.learn_hashes(swarm, 0, HASH * 2)
    assert bench.events == [PieceStored(swarm.number, session.node, 1)]
