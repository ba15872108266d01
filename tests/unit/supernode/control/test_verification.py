"""The digest of the whole blob: what is vouched for, and who is blamed where it does not match."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from proto.errors import FrameInvalid
from proto.ids import Digest
from proto.wire.messages import Announce, OriginStatus, PieceHashes, Source, Voided, Vouched
from supernode.control.node_registry import QUARANTINE_S
from supernode.control.verification import CLAIMS_TRIED_MAX, VOIDED_S, VOIDS_MAX
from supernode.scheduler.contract import SEED, FetchFromOrigin, OriginEnded, PieceEvicted, PieceStored
from tests.unit.supernode.control.bench import SOURCE, Bench

if TYPE_CHECKING:
    from supernode.control.peer_session import PeerSession
    from supernode.control.swarm_registry import OpenSwarm

HASH = b"h" * 32
BLOB = Digest.of(b"blob")
OTHER_SOURCE = Source("registry.example.net", "library/thing")
# Of a peer that says it completed the blob by itself.
CLAIM = Announce(str(BLOB), (SOURCE,), False, 1000, 1000, b"\x01", HASH)


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


def two_origins(bench: Bench) -> tuple[PeerSession, PeerSession, OpenSwarm]:
    """Two nodes want the blob, each from another registry; nothing was fetched yet."""
    one, other, swarm = bench.join(), bench.join("10.0.0.2:1"), bench.open(b"blob", pieces=2)
    for session, source in ((one, SOURCE), (other, OTHER_SOURCE)):
        wanted = Announce(str(BLOB), (source,), True, 0, 0, b"")
        bench.control.admission.enter(session, swarm, wanted, [source])
    return one, other, swarm


def test_only_the_origin_whose_bytes_came_is_blamed() -> None:
    bench = Bench()
    _, _, swarm = two_origins(bench)
    swarm.fetch_began(1, 0b11)
    bench.control.verification.seed_stored(swarm.number, 0, HASH, None)
    bench.control.verification.blob_checked(swarm.number, matches=False)
    assert bench.blamed == [SOURCE]


def test_one_origins_bytes_are_for_readers_that_named_it_until_the_digest_has_passed() -> None:
    bench = Bench()
    _, _, swarm = two_origins(bench)
    before = swarm.serves({OTHER_SOURCE.upstream})
    swarm.fetch_began(1, 0b11)
    bench.control.verification.seed_stored(swarm.number, 0, HASH, None)
    bench.control.verification.seed_stored(swarm.number, 1, HASH, None)
    during = [swarm.serves({source.upstream}) for source in (SOURCE, OTHER_SOURCE)]
    bench.control.verification.blob_checked(swarm.number, matches=True)
    assert (before, during, swarm.serves({OTHER_SOURCE.upstream})) == (True, [True, False], True)


def test_when_one_origin_fails_the_other_is_asked_for_the_rest() -> None:
    bench = Bench()
    _, _, swarm = two_origins(bench)
    bench.events.clear()
    swarm.fetch_began(1, 0b11)
    assert swarm.fetch_sources == (SOURCE,)
    bench.control.verification.seed_stored(swarm.number, 0, HASH, None)
    bench.control.verification.origin_ended(1, swarm.number, ok=False)
    assert swarm.fetch_sources == (OTHER_SOURCE,)
    assert bench.seed.calls[-1] == ("fetch_from_origin", 1, 0b10)
    bench.control.verification.origin_ended(1, swarm.number, ok=False)
    assert bench.events[-1] == OriginEnded(1, swarm.number, False)


def test_what_a_peer_claims_of_a_blob_is_told_to_nobody_and_not_kept() -> None:
    bench = Bench()
    liar, swarm = bench.join(), bench.open(b"blob")
    bench.control.admission.enter(liar, swarm, CLAIM, [SOURCE])
    assert swarm.claim is not None
    assert (swarm.claim.peer, swarm.claim.hashes) == (liar.info.peer, HASH)
    other = bench.join()
    bench.enter(other, swarm)
    assert swarm.hashes.known == 0
    assert bench.saved.hashes == []
    assert bench.heard(other).of(PieceHashes) == []


def test_a_claim_does_not_outlive_its_author() -> None:
    bench = Bench()
    author, other, swarm = bench.join(), bench.join(), bench.open(b"blob")
    bench.enter(other, swarm)
    bench.control.admission.enter(author, swarm, CLAIM, [SOURCE])
    bench.handler.lost(author, "closed")
    assert swarm.claim is None


def test_a_claim_of_wrong_content_has_its_author_quarantined_and_the_origin_is_asked() -> None:
    bench = Bench()
    liar, swarm = bench.join(), bench.open(b"blob")
    bench.control.admission.enter(liar, swarm, CLAIM, [SOURCE])
    assert swarm.claim is not None
    bench.control.verification.claim_ended(BLOB, swarm.claim, matches=False)
    assert bench.control.nodes.is_quarantined(liar.info.peer)
    assert bench.blamed == []
    second = bench.join()
    bench.control.admission.enter(second, swarm, CLAIM, [SOURCE])
    assert swarm.claim is None


@pytest.mark.parametrize("matches", [True, None])
def test_a_claim_that_is_right_or_cannot_be_looked_at_harms_nobody(matches: bool | None) -> None:
    bench = Bench()
    author, swarm = bench.join(), bench.open(b"blob")
    bench.control.admission.enter(author, swarm, CLAIM, [SOURCE])
    claims = [swarm.claim]
    assert claims[0] is not None
    bench.control.verification.claim_ended(BLOB, claims[0], matches)
    claims.append(swarm.claim)
    assert claims[1] is None
    assert not bench.control.nodes.is_quarantined(author.info.peer)


def test_after_wrong_content_the_origin_comes_before_any_claim() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob")
    bench.enter(session, swarm)
    bench.control.verification.blob_checked(swarm.number, matches=False)
    again = bench.open(b"blob")
    taken = []
    for later_s in (0.0, VOIDED_S):
        bench.now_s += later_s
        bench.control.admission.enter(session, again, CLAIM, [SOURCE])
        taken.append(again.claim is not None)
    assert taken == [False, True]


def test_a_remembered_hash_never_wins_over_what_the_seed_computed() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob")
    bench.enter(session, swarm)
    swarm.hashes.learn(0, HASH)
    bench.control.verification.seed_stored(swarm.number, 0, b"x" * 32, None)
    assert len(bench.heard(session).of(Voided)) == 1
    assert bench.saved.operations[-1] == "forget_swarm"
    assert ("void", BLOB) in bench.seed.calls


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


def claimed(bench: Bench, author: PeerSession, number: int) -> OpenSwarm:
    """A blob that the author says it completed, and that somebody else wants: the supernode is to fetch it."""
    content = b"blob %d" % number
    swarm = bench.open(content)
    bench.enter(bench.join(f"10.1.0.{number}:1"), swarm)
    claim = replace(CLAIM, digest=str(Digest.of(content)))
    bench.control.admission.enter(author, swarm, claim, [SOURCE])
    bench.control.commands.carry_out(FetchFromOrigin(number, swarm.number, 1))
    return swarm


def test_few_claims_of_one_member_are_tried_at_a_time() -> None:
    bench = Bench()
    author = bench.join()
    swarms = [claimed(bench, author, number) for number in range(1, CLAIMS_TRIED_MAX + 3)]
    assert [swarm.claim is not None for swarm in swarms] == [True] * CLAIMS_TRIED_MAX + [False] * 2
    other = bench.join("10.0.0.2:1")
    assert claimed(bench, other, 100).claim is not None


@pytest.mark.parametrize("matches", [False, None])
def test_of_a_member_whose_claim_was_of_no_use_none_is_tried_for_a_while(matches: bool | None) -> None:
    bench = Bench()
    author = bench.join()
    first = claimed(bench, author, 1)
    assert first.claim is not None
    bench.control.verification.claim_ended(first.digest, first.claim, matches)
    assert claimed(bench, author, 2).claim is None
    bench.now_s += max(VOIDED_S, QUARANTINE_S)
    bench.control.participation.end_quarantines_over()
    assert claimed(bench, author, 3).claim is not None


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
