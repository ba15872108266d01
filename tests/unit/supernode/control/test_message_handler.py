"""What peers say, and what of it is believed."""

from __future__ import annotations

import pytest

from proto.errors import FrameInvalid
from proto.ids import Digest
from proto.wire.handshake import Welcome
from proto.wire.messages import (
    BlobChecked,
    Doubted,
    Failed,
    FetchReason,
    OriginTried,
    PieceHashes,
    PiecesWanted,
    Stored,
)
from supernode.control.node_registry import QUARANTINE_S
from supernode.control.verification import PROBES_MAX
from supernode.scheduler import contract
from supernode.scheduler.contract import (
    SEED,
    FailReason,
    FetchFailed,
    OriginHeadway,
    PeerAnnounced,
    PeerOffers,
    PeerQuarantined,
    PieceStored,
    QuarantineEnded,
)
from tests.unit.supernode.control.bench import Bench

HASH = b"h" * 32


def test_nobody_is_put_aside_for_what_others_say() -> None:
    bench = Bench()
    liars, source = [bench.join(), bench.join("10.0.0.2:1")], bench.join("10.0.0.3:1")
    swarm = bench.open(b"blob", pieces=4)
    bench.control.participation.learn_hashes(swarm, 0, HASH)
    for number, liar in enumerate(liars, start=1):
        bench.enter(liar, swarm)
        bench.lease(liar, number, swarm, 0, source.node)
    bench.events.clear()
    for number, liar in enumerate(liars, start=1):
        bench.handler.received(liar, Failed(number, FetchReason.CORRUPT))
    reasons = [event.reason for event in bench.events if isinstance(event, FetchFailed)]
    assert reasons == [FailReason.DISPUTED, FailReason.PROTOCOL]
    assert not bench.control.nodes.is_quarantined(source.info.peer)
    assert bench.seed.calls[-1] == ("probe", 0, source.info.peer, "10.0.0.3:1")


def test_whoever_sends_the_supernode_itself_corrupt_bytes_is_put_aside_for_a_while() -> None:
    bench = Bench()
    liar, source = bench.join(), bench.join("10.0.0.3:1")
    swarm = bench.open(b"blob", pieces=4)
    bench.control.participation.learn_hashes(swarm, 0, HASH)
    bench.enter(liar, swarm)
    bench.enter(source, swarm)
    bench.lease(liar, 1, swarm, 0, source.node)
    bench.handler.received(liar, Failed(1, FetchReason.CORRUPT))
    bench.events.clear()
    bench.control.verification.probed(swarm.digest, 0, source.info.peer, FetchReason.CORRUPT)
    assert [type(event) for event in bench.events] == [PeerQuarantined]
    assert "corrupt to the supernode" in bench.control.nodes.quarantined[source.info.peer].reason
    bench.now_s += QUARANTINE_S
    bench.handler.refresh(liar)
    assert bench.events[1:] == [QuarantineEnded(source.node)]
    assert not bench.control.nodes.is_quarantined(source.info.peer)


def test_probes_are_few_however_many_are_accused() -> None:
    bench = Bench()
    liar, *sources = (bench.join(f"10.0.0.{number}:1") for number in range(1, 8))
    swarm = bench.open(b"blob", pieces=4)
    bench.control.participation.learn_hashes(swarm, 0, HASH)
    bench.enter(liar, swarm)
    for number, source in enumerate([*sources, *sources], start=1):
        bench.lease(liar, number, swarm, 0, source.node)
        bench.handler.received(liar, Failed(number, FetchReason.CORRUPT))
    probes = [call for call in bench.seed.calls if call[0] == "probe"]
    assert len(probes) == PROBES_MAX
    for _, _, peer, _ in probes:
        bench.control.verification.probed(swarm.digest, 0, peer, "")  # type: ignore[arg-type]  # a PeerId
    bench.lease(liar, 99, swarm, 0, sources[0].node)
    bench.handler.received(liar, Failed(99, FetchReason.CORRUPT))
    assert len([call for call in bench.seed.calls if call[0] == "probe"]) == PROBES_MAX


def test_a_piece_whose_hash_is_not_known_counts_once_it_is() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob", pieces=2)
    bench.enter(session, swarm)
    bench.events.clear()
    bench.handler.received(session, Stored(0, swarm.number, 1, 5))
    assert bench.events == [PeerOffers(swarm.number, session.node, 0b10, 0, 0.0)]
    bench.control.verification.seed_stored(swarm.number, 1, HASH, None)
    stored = PieceStored(swarm.number, session.node, 1)
    assert bench.events[1:] == [stored, PieceStored(swarm.number, SEED, 1)]


def test_a_lease_is_reported_with_the_schedulers_own_number() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob", pieces=2)
    bench.enter(session, swarm)
    bench.control.participation.learn_hashes(swarm, 0, HASH * 2)
    bench.lease(session, 7, swarm, 0, SEED)
    bench.events.clear()
    bench.handler.received(session, Stored(7, swarm.number, 0, 1500))
    (lease_id,) = (event.lease_id for event in bench.events if isinstance(event, PieceStored))
    assert lease_id & 0xFF == 7
    assert lease_id > 7


def test_a_source_that_could_not_send_the_hash_is_not_blamed_and_the_hash_is_sent() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob", pieces=2)
    bench.enter(session, swarm)
    bench.control.participation.learn_hashes(swarm, 0, HASH * 2)
    bench.lease(session, 7, swarm, 1, 99)
    bench.events.clear()
    bench.handler.received(session, Failed(7, FetchReason.UNHASHED))
    assert [event.reason for event in bench.events if isinstance(event, FetchFailed)] == [FailReason.CANCELLED]
    assert [sent.first for sent in bench.heard(session).of(PieceHashes)] == [1]


def test_an_elected_peer_gets_on_with_each_piece_once_and_then_offers_them() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob", pieces=2)
    bench.enter(session, swarm)
    swarm.elect(session.node)
    bench.events.clear()
    for piece in (0, 0, 1):
        bench.handler.received(session, Stored(0, swarm.number, piece, 5))
    assert bench.events.count(OriginHeadway(swarm.number, session.node)) == 2
    bench.handler.received(session, OriginTried(swarm.number, ""))
    assert bench.events[-3:] == [
        PeerOffers(swarm.number, session.node, 0b11, 0, 0.0),
        PeerAnnounced(swarm.number, session.node, 0, False),
        contract.OriginTried(swarm.number, session.node, True),
    ]


def test_whoever_knows_that_the_blob_is_right_waits_for_it_no_more() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob")
    bench.enter(session, swarm)
    bench.handler.received(session, BlobChecked(swarm.number, True))
    assert session.wanting == set()


def test_what_is_not_a_peers_to_say_breaks_the_protocol() -> None:
    bench = Bench()
    session = bench.join()
    with pytest.raises(FrameInvalid, match="Welcome is not a peer's to say"):
        bench.handler.received(session, Welcome(3, 2.0, "x"))


def test_a_peer_that_is_back_replaces_its_own_older_session() -> None:
    bench = Bench()
    older = bench.join()
    bench.enter(older, bench.open(b"blob"))
    newer = bench.handler.admit(bench.heard(older), older.info)
    assert bench.heard(older).ended == "identity"
    assert newer.node != older.node
    assert bench.control.swarms.of(Digest.of(b"blob")) is None


def test_a_peer_that_got_a_corrupt_piece_from_the_store_has_it_looked_after() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob", pieces=2)
    bench.enter(session, swarm)
    bench.lease(session, 1, swarm, piece=1, source=SEED)
    bench.handler.received(session, Failed(1, FetchReason.CORRUPT))
    assert ("suspect", swarm.digest, 0b10) in bench.seed.calls


def test_with_its_last_piece_a_peer_wants_the_blob_no_more_and_the_store_may_evict_it() -> None:
    bench = Bench()
    first, second, swarm = bench.join(), bench.join(), bench.open(b"blob", pieces=2)
    for session in (first, second):
        bench.enter(session, swarm)
        bench.control.participation.settle(swarm)
    for session in (first, second):
        assert bench.seed.calls == [("pin", swarm.digest)]
        for piece in (0, 1):
            bench.handler.received(session, Stored(0, swarm.number, piece, 0))
    assert bench.seed.calls == [("pin", swarm.digest), ("unpin", swarm.digest)]
    assert (swarm.wanted_by, len(swarm.members)) == (0, 2)


def test_a_peer_whose_piece_came_corrupt_is_told_to_look_after_it() -> None:
    bench = Bench()
    session, holder, swarm = bench.join(), bench.join(), bench.open(b"blob", pieces=2)
    for each in (session, holder):
        bench.enter(each, swarm)
    bench.lease(session, 1, swarm, piece=1, source=holder.node)
    bench.handler.received(session, Failed(1, FetchReason.CORRUPT))
    assert bench.heard(holder).of(Doubted) == [Doubted(swarm.number, 1)]
    assert not [call for call in bench.seed.calls if call[0] == "suspect"]


def test_what_is_read_by_ranges_is_the_schedulers_to_know() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob", pieces=9)
    bench.enter(session, swarm)
    bench.events.clear()
    bench.handler.received(session, PiecesWanted(swarm.number, b"\x01\x01"))
    assert bench.events == [contract.PiecesWanted(swarm.number, session.node, 0b1_0000_0001)]
    for pieces in (b"", b"\x01", b"\x01\x02", b"\x01\x01\x00"):
        with pytest.raises(FrameInvalid):
            bench.handler.received(session, PiecesWanted(swarm.number, pieces))
    bench.handler.received(bench.join("10.0.0.2:1"), PiecesWanted(swarm.number, b"\x01\x01"))
    assert len([event for event in bench.events if isinstance(event, contract.PiecesWanted)]) == 1
