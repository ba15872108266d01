"""The digest of the whole blob: what is vouched for, and who is blamed where it does not match."""

from __future__ import annotations

import pytest

from proto.errors import FrameInvalid
from proto.ids import Digest
from proto.wire.messages import Announce, Voided, Vouched
from supernode.control.verification import VOIDED_S, VOIDS_MAX
from supernode.scheduler.contract import SEED, PieceEvicted, PieceStored
from tests.unit.supernode.control.bench import SOURCE, Bench

HASH = b"h" * 32
BLOB = Digest.of(b"blob")


def test_the_digest_is_checked_once_every_piece_is_here() -> None:
    bench = Bench()
    swarm = bench.open(b"blob", pieces=2)
    for piece in (0, 1):
        assert ("check", swarm.number) not in bench.seed.calls
        bench.control.verification.seed_stored(swarm.number, piece, HASH, None)
    assert bench.seed.calls == [("check", swarm.number)]


def test_members_hear_that_the_blob_is_vouched_for_and_it_is_saved() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob")
    bench.enter(session, swarm)
    bench.control.verification.seed_stored(swarm.number, 0, HASH, None)
    bench.control.verification.blob_checked(swarm.number, matches=True)
    assert bench.heard(session).of(Vouched) == [Vouched(swarm.number)]
    assert bench.saved.operations[-1] == "vouch"


def test_an_origin_whose_blob_does_not_match_is_blamed_for_a_while() -> None:
    bench = Bench()
    verification = bench.control.verification
    for times in range(1, VOIDS_MAX + 1):
        session, swarm = bench.join(), bench.open(b"blob")
        bench.enter(session, swarm)
        verification.blob_checked(swarm.number, matches=False)
        assert len(bench.heard(session).of(Voided)) == 1
        assert verification.times_voided(SOURCE, BLOB) == times
    assert bench.blamed == [SOURCE] * VOIDS_MAX
    bench.now_s += VOIDED_S
    assert verification.times_voided(SOURCE, BLOB) == 0


def test_a_peer_that_claimed_hashes_of_wrong_content_is_quarantined_not_the_origin() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob")
    swarm.claimant = session.info.peer
    bench.control.verification.blob_checked(swarm.number, matches=False)
    assert bench.control.nodes.is_quarantined(session.info.peer)
    assert bench.blamed == []


def test_a_claim_in_doubt_is_dropped_and_not_taken_again() -> None:
    bench = Bench()
    liar, swarm = bench.join(), bench.open(b"blob")
    claim = Announce(str(BLOB), (SOURCE,), False, 1000, 1000, b"\x01", HASH)
    bench.control.admission.enter(liar, swarm, claim, [SOURCE])
    assert swarm.hashes.known == 1
    bench.control.verification.doubt(swarm)
    assert ("void", BLOB) in bench.seed.calls
    again = bench.open(b"blob")
    bench.control.admission.enter(liar, again, claim, [SOURCE])
    assert again.hashes.known == 0


def test_hashes_of_a_blob_that_is_not_held_whole_break_the_protocol() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob", pieces=2)
    with pytest.raises(FrameInvalid, match="held whole"):
        bench.control.admission.enter(
            session, swarm, Announce(str(BLOB), (SOURCE,), False, 2000, 1000, b"\x01", HASH * 2), [SOURCE]
        )


def test_what_the_store_let_go_of_is_held_no_more() -> None:
    bench = Bench()
    swarm = bench.open(b"blob", pieces=2)
    bench.control.verification.seed_stored(swarm.number, 1, HASH, None)
    bench.control.verification.blob_evicted(BLOB)
    assert bench.events == [PieceStored(swarm.number, SEED, 1), PieceEvicted(swarm.number, SEED, 0b10)]
    assert swarm.seed_held == 0
