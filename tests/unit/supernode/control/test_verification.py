"""The digest of the whole blob: what is vouched for, and who is blamed where it does not match."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.ids import Digest
from proto.wire.messages import Announce, OriginStatus, Source, Voided, Vouched
from supernode.control.verification import SILENT_S, VOIDED_S, VOIDS_MAX
from supernode.scheduler.contract import SEED, EndFetch, OriginEnded, PieceEvicted, PieceStored
from tests.unit.supernode.control.bench import SOURCE, Bench

if TYPE_CHECKING:
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.peer_session import PeerSession

HASH = b"h" * 32
BLOB = Digest.of(b"blob")
OTHER_SOURCE = Source("registry.example.net", "library/thing")


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
        swarm.fetch_began(times)
        verification.seed_stored(swarm.number, 0, HASH, None)
        verification.blob_checked(swarm.number, matches=False)
        assert len(bench.heard(session).of(Voided)) == 1
        assert verification.times_voided(SOURCE, BLOB) == times
    assert bench.blamed == [SOURCE] * VOIDS_MAX
    bench.now_s += VOIDED_S
    assert verification.times_voided(SOURCE, BLOB) == 0


def of_other_origin(bench: Bench, swarm: OpenSwarm) -> PeerSession:
    """A node whose client named another registry is let in."""
    session = bench.join("10.0.0.2:1")
    announce = Announce(str(BLOB), (OTHER_SOURCE,), True, 0, 0, b"")
    bench.control.admission.enter(session, swarm, announce, [OTHER_SOURCE])
    return session


def test_one_origins_bytes_are_for_readers_that_named_it_until_the_digest_has_passed() -> None:
    bench = Bench()
    swarm = bench.open(b"blob")
    bench.enter(bench.join(), swarm)
    # also before anything was asked for
    before = [swarm.serves({source.upstream}) for source in (SOURCE, OTHER_SOURCE)]
    swarm.fetch_began(1, 0b1)
    bench.control.verification.seed_stored(swarm.number, 0, HASH, None)
    bench.control.verification.blob_checked(swarm.number, matches=True)
    assert (before, swarm.serves({OTHER_SOURCE.upstream})) == ([True, False], True)


def test_until_then_only_that_origin_is_asked() -> None:
    bench = Bench()
    swarm = bench.open(b"blob")
    bench.enter(bench.join(), swarm)
    holder = Announce(str(BLOB), (OTHER_SOURCE,), False, 0, 0, b"")
    bench.control.admission.enter(bench.join("10.0.0.2:1"), swarm, holder, [OTHER_SOURCE])
    swarm.fetch_began(1, 0b1)
    assert swarm.sources == [SOURCE]
    bench.control.verification.origin_ended(1, swarm.number, ok=False)
    assert bench.events[-1] == OriginEnded(1, swarm.number, False)


def test_of_a_proven_blob_the_next_origin_is_asked_where_one_fails() -> None:
    bench = Bench()
    swarm = bench.open(b"blob", pieces=2)
    swarm.vouched = True
    bench.enter(bench.join(), swarm)
    of_other_origin(bench, swarm)
    swarm.fetch_began(1, 0b11)
    assert swarm.fetch_sources == (SOURCE,)
    bench.control.verification.seed_stored(swarm.number, 0, HASH, None)
    bench.control.verification.origin_ended(1, swarm.number, ok=False)
    assert swarm.fetch_sources == (OTHER_SOURCE,)
    assert bench.seed.calls[-1] == ("fetch_from_origin", 1, 0b10)
    bench.control.verification.origin_ended(1, swarm.number, ok=False)
    assert bench.events[-1] == OriginEnded(1, swarm.number, False)


def test_of_a_proven_blob_a_silent_origin_is_left_for_that_of_who_comes() -> None:
    bench = Bench()
    swarm = bench.open(b"blob")
    swarm.vouched = True
    bench.enter(bench.join(), swarm)
    swarm.fetch_began(1, 0b1)
    of_other_origin(bench, swarm)
    verification, upstreams = bench.control.verification, {OTHER_SOURCE.upstream}
    verification.origin_moved(swarm.number)
    verification.ask_elsewhere(swarm, upstreams)
    assert ("cancel_origin", 1) not in bench.seed.calls
    bench.now_s += SILENT_S
    verification.ask_elsewhere(swarm, {SOURCE.upstream})
    assert ("cancel_origin", 1) not in bench.seed.calls
    verification.ask_elsewhere(swarm, upstreams)
    assert bench.seed.calls[-1] == ("cancel_origin", 1)


def test_a_remembered_hash_never_wins_over_what_the_seed_computed() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob")
    bench.enter(session, swarm)
    swarm.hashes.learn(0, HASH)
    bench.control.verification.seed_stored(swarm.number, 0, b"x" * 32, None)
    assert len(bench.heard(session).of(Voided)) == 1
    assert bench.saved.operations[-1] == "forget_swarm"
    assert ("void", BLOB) in bench.seed.calls


def test_what_the_store_let_go_of_is_held_no_more() -> None:
    bench = Bench()
    swarm = bench.open(b"blob", pieces=2)
    bench.control.verification.seed_stored(swarm.number, 1, HASH, None)
    bench.control.verification.blob_evicted(BLOB)
    assert bench.events == [PieceStored(swarm.number, SEED, 1), PieceEvicted(swarm.number, SEED, 0b10)]
    assert swarm.seed_held == 0


def test_a_piece_that_rotted_in_the_store_is_held_no_more_and_the_blob_is_checked_again_with_it() -> None:
    bench = Bench()
    swarm = bench.open(b"blob", pieces=2)
    bench.enter(bench.join(), swarm)
    for piece in (0, 1):
        bench.control.verification.seed_stored(swarm.number, piece, HASH, None)
    bench.control.verification.blob_checked(swarm.number, matches=True)
    bench.events.clear()
    bench.control.verification.pieces_rotten(BLOB, 0b10)
    assert bench.events == [PieceEvicted(swarm.number, SEED, 0b10)]
    assert (swarm.seed_held, swarm.vouched) == (0b01, True)
    bench.control.verification.seed_stored(swarm.number, 1, HASH, None)
    assert bench.seed.calls.count(("check", swarm.number)) == 2


def test_a_check_that_ended_before_a_piece_rotted_is_done_again() -> None:
    bench = Bench()
    swarm = bench.open(b"blob", pieces=2)
    bench.enter(bench.join(), swarm)
    for piece in (0, 1):
        bench.control.verification.seed_stored(swarm.number, piece, HASH, None)
    bench.control.verification.pieces_rotten(BLOB, 0b10)
    bench.control.verification.blob_checked(swarm.number, matches=True)
    bench.control.verification.seed_stored(swarm.number, 1, HASH, None)
    assert bench.seed.calls.count(("check", swarm.number)) == 2


def test_members_hear_for_how_long_the_origin_wants_to_be_left_alone() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob", pieces=2)
    bench.enter(session, swarm)
    swarm.fetch_began(1, 0b11)
    bench.control.verification.seed_stored(swarm.number, 0, HASH, None)
    bench.control.verification.origin_ended(1, swarm.number, ok=False, refused="429", retry_after_s=60.0)
    assert bench.events[-1] == OriginEnded(1, swarm.number, False, 60.0)
    bench.now_s += 10.0
    bench.handler.refresh(session)
    assert bench.heard(session).of(OriginStatus) == [OriginStatus(swarm.number, "queued", False, 50.0)]


def test_a_fetch_that_was_told_to_end_did_not_fail_and_no_other_upstream_is_asked() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob", pieces=2)
    bench.enter(session, swarm)
    swarm.add_sources([OTHER_SOURCE])
    swarm.fetch_began(1, 0b11)
    bench.control.commands.carry_out(EndFetch(1, swarm.number))
    assert bench.seed.calls[-1] == ("end_origin", 1)
    bench.control.verification.origin_ended(1, swarm.number, ok=False)
    assert bench.events[-1] == OriginEnded(1, swarm.number, False)
    assert "fetch_from_origin" not in [call[0] for call in bench.seed.calls]
    assert (swarm.origin_state, swarm.fetches_ending) == ("", set())
