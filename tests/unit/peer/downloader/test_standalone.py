"""Without a supernode: known holders first, upstream for the rest after a grace; or a plain cache of one's own."""

from __future__ import annotations

from collections import Counter

import pytest

from peer.downloader.contract import (
    AnswerReader,
    AskHoldings,
    BlobFound,
    BlobWanted,
    CancelFetch,
    CancelUpstream,
    CheckDigest,
    CheckPublic,
    DigestChecked,
    FailReaders,
    FetchEnded,
    FetchUpstream,
    HoldingsKnown,
    OpenInStore,
    PublicChecked,
    ReaderAt,
    ReaderClosed,
    RefuseReader,
    StartFetch,
    StoreOpened,
    SupernodeAnswered,
    SupernodeConnected,
    SupernodeLost,
    UpstreamEnded,
    UpstreamPiece,
)
from peer.downloader.holders import UNANSWERED_MAX
from peer.downloader.limits import Limits
from proto.pieces import KIB, indices, mask_to_bytes
from proto.wire.messages import (
    SEED_NODE,
    Announce,
    BlobRefused,
    FetchReason,
    Holders,
    NodeKnown,
    OriginStatus,
    OriginTried,
    Stored,
    SwarmOpened,
)
from tests.unit.peer.downloader.script import (
    DIGEST,
    OTHER_SOURCE,
    PIECE,
    SIZE,
    SOURCE,
    SWARM,
    Script,
    of_type,
    peer_id,
    sent,
)

LIMITS = Limits()


def lost(
    held: int = 0, hashed: int = 0b1111, *, own: int = 9, silent: bool = False, holders: tuple[int, ...] = (1, 2)
) -> tuple[Script, list[AskHoldings]]:
    """A client reads, the supernode had named two holders, the session is lost."""
    script = Script(own=own).connected().open(held=held, hashed=hashed)
    script(ReaderAt(1, 0))
    script.receive(Holders(SWARM, holders))
    return script, of_type(script(SupernodeLost(silent)), AskHoldings)


def test_known_holders_are_asked_what_they_have() -> None:
    _, queries = lost(hashed=0b0011)
    assert [(q.holder.address, q.hashes) for q in queries] == [("10.0.0.1:65002", True), ("10.0.0.2:65002", True)]


def test_pieces_that_holders_have_are_fetched_from_them_within_limits() -> None:
    script, (first, second) = lost()
    assert len(of_type(script(HoldingsKnown(first.query, 0b1111)), StartFetch)) == LIMITS.standalone_fetches_per_holder
    script(HoldingsKnown(second.query, 0b1111))
    assert len(of_type(script.all, StartFetch)) == LIMITS.standalone_fetches_max


def test_the_reader_s_piece_comes_first_and_then_the_rarest() -> None:
    # At each piece this node comes before the one of the two holders that has not got it.
    script, (first, second) = lost(own=145)
    script(HoldingsKnown(first.query, 0b0111))
    script(HoldingsKnown(second.query, 0b1001))
    fetches = of_type(script.all, StartFetch)
    assert fetches[0].piece == 0
    assert 3 in [fetch.piece for fetch in fetches if fetch.holder.peer == peer_id(3)]
    assert len({fetch.piece for fetch in fetches}) == len(fetches) == 3


def takers(copies: int, waited_s: float = 0.0) -> list[int]:
    """Of the nodes 2 to 4 those that begin to fetch piece 0, which so many of the nodes 5 to 8 have."""
    began = []
    for own in (2, 3, 4):
        script = Script(own=own).connected()
        script.receive(*(NodeKnown(n, peer_id(n + 1), f"10.0.0.{n}:65002") for n in range(4, 8)))
        script.open(held=0b1110)
        script.receive(Holders(SWARM, tuple(n for n in range(1, 8) if n + 1 != own)))
        held = {peer_id(number): int(5 <= number < 5 + copies) | 0b1110 for number in range(2, 9)}
        asked = of_type(script(SupernodeLost()), AskHoldings)
        until_s = script.now + waited_s
        while asked or script.now < until_s:
            answers = [HoldingsKnown(query.query, held[query.holder.peer]) for query in asked]
            asked = of_type(script(*answers) or script.wait(0.5), AskHoldings)
        if of_type(script.all, StartFetch):
            began.append(own)
    return began


def test_a_piece_goes_from_each_that_has_it_to_one_that_has_not() -> None:
    assert [len(takers(copies)) for copies in range(5)] == [0, 1, 2, 3, 3]


def test_who_gets_nothing_for_long_waits_no_more_for_those_that_are_before_it() -> None:
    assert takers(1, 3 * LIMITS.refresh_s) == [2, 3, 4]


def test_a_piece_without_a_signed_hash_is_taken_as_unproven() -> None:
    script, (first, _) = lost(hashed=0b0001)
    fetches = of_type(script(HoldingsKnown(first.query, 0b0011)), StartFetch)
    assert {fetch.piece: fetch.unproven for fetch in fetches} == {0: False, 1: True}


def test_after_unproven_pieces_made_a_blob_wrong_only_signed_ones_are_taken() -> None:
    script, (first, _) = lost(held=0b1110, hashed=0)
    (fetch,) = of_type(script(HoldingsKnown(first.query, 0b0001)), StartFetch)
    (check,) = of_type(script(FetchEnded(fetch.fetch, "", 0.1)), CheckDigest)
    script(DigestChecked(check.check, False))
    script(BlobWanted(2, DIGEST, SOURCE), StoreOpened(DIGEST, 0, 0b0010, False))
    later = of_type(script.wait(LIMITS.refresh_s), AskHoldings)
    fetches = of_type(script(HoldingsKnown(later[0].query, 0b1111)), StartFetch)
    assert [fetch.piece for fetch in fetches] == [1]


def test_holders_are_asked_again_and_again() -> None:
    script, (first, second) = lost()
    script(HoldingsKnown(first.query, 0), HoldingsKnown(second.query, 0))
    assert len(of_type(script.wait(7.0), AskHoldings)) == 2


def test_upstream_is_asked_after_a_grace_that_counts_from_the_loss() -> None:
    script, (first, second) = lost()
    script(HoldingsKnown(first.query, None), HoldingsKnown(second.query, 0))
    assert of_type(script.wait(LIMITS.grace_s - 0.1), FetchUpstream) == []
    assert {fetch.why for fetch in of_type(script.wait(3 * LIMITS.turn_s), FetchUpstream)} == {"no_supernode"}


def test_a_silent_supernode_may_be_slow_and_is_waited_for_longer() -> None:
    script, (first, second) = lost(silent=True)
    script(HoldingsKnown(first.query, 0), HoldingsKnown(second.query, 0))
    assert of_type(script.wait(LIMITS.silent_grace_s - 0.1), FetchUpstream) == []
    assert of_type(script.wait(3 * LIMITS.turn_s), FetchUpstream)


def test_while_a_session_is_being_opened_the_origin_is_not_asked_however_long_that_takes() -> None:
    script, queries = lost()
    script(*(HoldingsKnown(query.query, 0) for query in queries))
    script.wait(LIMITS.grace_s - 0.1)
    script(SupernodeAnswered())
    assert of_type(script.wait(LIMITS.grace_s - 0.1), FetchUpstream) == []
    script(SupernodeConnected())
    assert of_type(script.wait(LIMITS.stall_s - 1.0), FetchUpstream) == []


def test_a_supernode_that_answers_and_gives_no_session_is_not_waited_for_without_end() -> None:
    script, queries = lost()
    script(*(HoldingsKnown(query.query, 0) for query in queries))
    script(SupernodeAnswered())
    for _ in range(round(LIMITS.silent_grace_s) - 1):
        assert of_type(script.wait(1.0), FetchUpstream) == []
        script(SupernodeAnswered())
    asked: list[FetchUpstream] = []
    for _ in range(round(3 * LIMITS.turn_s)):
        asked += of_type(script.wait(1.0), FetchUpstream)
        script(SupernodeAnswered())
    assert asked


def test_nodes_that_know_nobody_begin_at_moments_of_their_own() -> None:
    moments = set()
    for seed in range(8):
        script = Script(seed).connected().open()
        script(ReaderAt(1, 0), SupernodeLost())
        script.wait(LIMITS.grace_s + LIMITS.grace_jitter_s)
        moments.add(script.machine.story(DIGEST)[-1].split()[0])
    assert len(moments) == 8


def alone_among(own: int, *seed: int) -> Script:
    """One of the nodes 2, 3 and 4, which know each other and hold nothing, when the grace is over."""
    script, queries = lost(own=own, holders=(*seed, *(peer - 1 for peer in (2, 3, 4) if peer != own)))
    script(*(HoldingsKnown(query.query, 0) for query in queries))
    script.wait(LIMITS.grace_s)
    return script


def fetched_upstream(script: Script) -> int:
    """The pieces (mask) that this node asks of upstream in one request after the other, each of which succeeds."""
    asked = 0
    while (upstream := script.machine.state.blobs[DIGEST].upstream) is not None:
        assert not asked & upstream.pieces
        asked |= upstream.pieces
        pieces = [piece for piece in range(4) if upstream.pieces >> piece & 1]
        script(*(UpstreamPiece(upstream.fetch, piece) for piece in pieces), UpstreamEnded(upstream.fetch, ""))
    return asked


def test_nodes_that_know_each_other_share_the_origin_out() -> None:
    asked = [fetched_upstream(alone_among(own)) for own in (2, 3, 4)]
    assert sum(asked) == asked[0] | asked[1] | asked[2] == 0b1111, "each piece by one of them"


def test_the_seed_has_no_share_that_would_have_to_be_waited_for() -> None:
    asked = [fetched_upstream(alone_among(own, SEED_NODE)) for own in (2, 3, 4)]
    assert sum(asked) == asked[0] | asked[1] | asked[2] == 0b1111


def test_who_comes_next_tries_what_its_owner_does_not_come_up_with() -> None:
    script = alone_among(2)
    asked = [fetched_upstream(script)]
    for _ in range(2):
        script.wait(LIMITS.turn_s + 0.1)
        asked.append(fetched_upstream(script))
    assert asked[0] != 0b1111
    assert sum(asked) == 0b1111


def test_pieces_that_turn_up_at_holders_put_the_next_one_s_turn_off() -> None:
    script = alone_among(2)
    missing = 0b1111 & ~fetched_upstream(script)
    script.wait(LIMITS.turn_s - 1.0)
    query = of_type(script.all, AskHoldings)[-1]
    script(HoldingsKnown(query.query, missing & -missing))
    script.wait(LIMITS.turn_s - 1.0)
    assert fetched_upstream(script) == 0


def test_what_a_busy_holder_has_is_not_asked_of_upstream() -> None:
    script, (first, second) = lost(own=2)
    script(HoldingsKnown(first.query, 0b1111), HoldingsKnown(second.query, 0))
    for _ in range(20):
        fetches = list(script.machine.state.blobs[DIGEST].fetches)
        script(*(FetchEnded(fetch, FetchReason.BUSY, 0.0) for fetch in fetches))
        script.wait(1.0)
    assert of_type(script.all, FetchUpstream) == []


def test_a_holder_that_does_not_answer_has_no_turn() -> None:
    script, queries = lost(own=2, holders=(2, 3))
    for _ in range(UNANSWERED_MAX):
        script(*(HoldingsKnown(query.query, None) for query in queries))
        queries = of_type(script.wait(LIMITS.refresh_s), AskHoldings)
    script.wait(LIMITS.grace_s + LIMITS.refresh_s)
    assert fetched_upstream(script) == 0b1111


def test_upstream_is_asked_only_for_what_nobody_known_holds() -> None:
    script, (first, second) = lost()
    script(HoldingsKnown(first.query, 0b0110), HoldingsKnown(second.query, 0b0010))
    asked = 0
    for _ in range(6):
        script.wait(LIMITS.turn_s)
        asked |= fetched_upstream(script)
    assert asked == 0b1001


def test_nobody_reading_means_nothing_asked_of_upstream() -> None:
    script = Script().connected().open()
    script(SupernodeLost(), ReaderClosed(1))
    assert of_type(script.wait(60.0), FetchUpstream) == []


def reconnected() -> tuple[Script, FetchUpstream]:
    """A node that asks the origin for a span of its own when the session is open again."""
    script, _ = lost(held=0b0001)
    (fetch,) = of_type(script.wait(25.0), FetchUpstream)
    out = script(SupernodeConnected())
    assert of_type(out, CancelUpstream) == []
    (announce,) = (message for message in sent(out) if isinstance(message, Announce))
    assert (announce.held, announce.fetching) == (b"\1", mask_to_bytes(fetch.pieces, 4))
    return script, fetch


def test_on_reconnect_everything_is_announced_and_what_is_being_fetched_upstream_goes_on() -> None:
    script, fetch = reconnected()
    (piece,) = indices(fetch.pieces)
    # Before the answer: it is told with it.
    script(UpstreamPiece(fetch.fetch, piece))
    out = script.receive(SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, b"ticket"), OriginStatus(SWARM, "fetching", True))
    assert of_type(out, CancelUpstream) == []
    assert Stored(0, SWARM, piece, 0) in sent(out)
    assert OriginTried(SWARM, "") in sent(script(UpstreamEnded(fetch.fetch, "")))
    assert of_type(script.wait(20.0), FetchUpstream) == []


def test_it_ends_where_the_supernode_has_that_or_fetches_it() -> None:
    script, fetch = reconnected()
    script.receive(SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, b"ticket"))
    out = script.receive(OriginStatus(SWARM, "fetching", False))
    assert of_type(out, CancelUpstream) == [CancelUpstream(fetch.fetch)]
    script(UpstreamEnded(fetch.fetch, "cancelled"))
    assert of_type(script.wait(20.0), FetchUpstream) == []


def test_what_did_not_come_without_the_supernode_sends_nobody_to_the_origin_when_it_is_back() -> None:
    script, queries = lost(silent=True)
    script(*(HoldingsKnown(query.query, 0) for query in queries))
    script.wait(LIMITS.silent_grace_s - 1.0)
    script(SupernodeConnected())
    assert of_type(script.wait(LIMITS.stall_s - 1.0), FetchUpstream) == []


def test_on_reconnect_the_seed_is_the_supernodes_to_share_out_again() -> None:
    script, (first, second) = lost(holders=(SEED_NODE, 1))
    script(HoldingsKnown(first.query, 0b0011), HoldingsKnown(second.query, 0b1100))
    fetches = of_type(script.all, StartFetch)
    assert len(fetches) == 4
    of_the_seed = {CancelFetch(fetch.fetch) for fetch in fetches if fetch.holder.peer == first.holder.peer}
    assert set(of_type(script(SupernodeConnected()), CancelFetch)) == of_the_seed


def test_a_fetch_of_its_own_that_fails_leaves_the_rest_to_the_swarm() -> None:
    script, fetch = reconnected()
    script.receive(SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, b"ticket"), OriginStatus(SWARM, "fetching", True))
    out = script(UpstreamEnded(fetch.fetch, "unavailable"))
    assert OriginTried(SWARM, "unavailable") in sent(out)
    assert of_type(out, FailReaders) == []


def test_a_blob_that_the_supernode_does_not_share_is_fetched_to_its_end() -> None:
    script, _ = reconnected()
    out = script.receive(BlobRefused(str(DIGEST), "limit", "not an allowed upstream"))
    assert (of_type(out, CancelUpstream), of_type(out, FailReaders)) == ([], [])


def test_a_corrupt_holder_is_asked_no_more() -> None:
    script, (first, second) = lost()
    (one, _) = of_type(script(HoldingsKnown(first.query, 0b1111)), StartFetch)
    script(FetchEnded(one.fetch, FetchReason.CORRUPT, 0.1))
    script(HoldingsKnown(second.query, 0b1111))
    later = of_type(script.wait(10.0), StartFetch)
    assert all(fetch.holder.peer != peer_id(2) for fetch in later)


def test_a_busy_holder_rests_before_it_is_asked_again() -> None:
    script, (first, _) = lost()
    fetches = of_type(script(HoldingsKnown(first.query, 0b0001)), StartFetch)
    assert of_type(script(FetchEnded(fetches[0].fetch, FetchReason.BUSY, 0.0)), StartFetch) == []
    assert of_type(script.wait(0.6), StartFetch)


@pytest.mark.parametrize("reason", [FetchReason.BUSY, FetchReason.TICKET, FetchReason.CONNECTION])
def test_a_holder_that_always_refuses_rests_ever_longer_and_is_asked_last(reason: str) -> None:
    script, (first, second) = lost()
    refusing = first.holder.peer
    script(HoldingsKnown(first.query, 0b1111))
    script(HoldingsKnown(second.query, 0b1111))
    asked: Counter[bytes] = Counter()
    answered = 0
    for _ in range(40):
        fetches = of_type(script.all, StartFetch)
        for fetch in fetches[answered:]:
            asked[fetch.holder.peer] += 1
            if fetch.holder.peer == refusing:
                script(FetchEnded(fetch.fetch, reason, 0.0))
        answered = len(fetches)
        script.wait(0.25)
    assert 2 <= asked[refusing] <= 6


def test_a_node_that_never_had_a_link_checks_by_itself_and_fetches_the_whole_blob_once() -> None:
    script = Script()
    (check,) = of_type(script(BlobWanted(1, DIGEST, SOURCE), BlobWanted(2, DIGEST, SOURCE)), CheckPublic)
    (opened,) = of_type(script(PublicChecked(check.check, 500 * KIB)), OpenInStore)
    out = script(StoreOpened(DIGEST, 0, 0, False))
    assert of_type(out, AnswerReader) == [AnswerReader(1), AnswerReader(2)]
    (fetch,) = of_type(out, FetchUpstream)
    assert (opened.piece_size_bytes, fetch.pieces, fetch.source) == (PIECE, 0b11, SOURCE)
    script(UpstreamPiece(fetch.fetch, 0), UpstreamPiece(fetch.fetch, 1), UpstreamEnded(fetch.fetch, ""))
    (digest_check,) = of_type(script.all, CheckDigest)
    script(DigestChecked(digest_check.check, True))
    assert len(of_type(script.all, FetchUpstream)) == 1


def test_a_private_blob_is_refused_without_a_supernode_too() -> None:
    script = Script()
    (check,) = of_type(script(BlobWanted(1, DIGEST, SOURCE)), CheckPublic)
    out = script(PublicChecked(check.check, 0, "private", "401"))
    assert RefuseReader(1, "private", "401") in out


def test_a_stored_blob_is_read_without_a_supernode_once_its_source_is_known_public() -> None:
    script = Script()
    script(BlobFound(DIGEST, SIZE, PIECE, 0b1111, True, (SOURCE,)))
    (check,) = of_type(script(BlobWanted(1, DIGEST, SOURCE)), CheckPublic)
    assert of_type(script(PublicChecked(check.check, SIZE)), OpenInStore)
    assert script(StoreOpened(DIGEST, 0b1111, 0, True)) == [AnswerReader(1)]


def stored_and_found_public(limits: Limits) -> Script:
    script = Script(limits=limits)
    script(BlobFound(DIGEST, SIZE, PIECE, 0b1111, True, (SOURCE,)))
    (check,) = of_type(script(BlobWanted(1, DIGEST, SOURCE)), CheckPublic)
    script.wait(20.0)
    script(PublicChecked(check.check, SIZE), StoreOpened(DIGEST, 0b1111, 0, True))
    return script


def test_an_own_check_counts_from_when_it_was_begun() -> None:
    script = stored_and_found_public(Limits())
    script.wait(39.0)
    assert script(BlobWanted(2, DIGEST, SOURCE)) == [AnswerReader(2)]
    script.wait(1.0)
    (check,) = of_type(script(BlobWanted(3, DIGEST, SOURCE)), CheckPublic)
    assert RefuseReader(3, "private", "401") in script(PublicChecked(check.check, 0, "private", "401"))


@pytest.mark.parametrize("reason", ["unavailable", "rate_limited"])
def test_while_its_origin_is_down_a_stored_blob_is_given_where_the_operator_wants_that(reason: str) -> None:
    for stale_s, answer in ((0.0, RefuseReader), (3600.0, AnswerReader)):
        script = stored_and_found_public(Limits(stale_s=stale_s))
        script.wait(600.0)
        (check,) = of_type(script(BlobWanted(2, DIGEST, SOURCE)), CheckPublic)
        out = script(PublicChecked(check.check, 0, reason, "503"))
        assert [type(each) for each in out if isinstance(each, AnswerReader | RefuseReader)] == [answer]


def test_clients_that_wait_for_an_answer_when_the_link_is_lost_get_one_from_an_own_check() -> None:
    script = Script().connected()
    script(BlobWanted(1, DIGEST, SOURCE))
    assert of_type(script(SupernodeLost()), CheckPublic)


def test_a_failed_upstream_fetch_sends_readers_on_and_is_tried_anew_for_the_next() -> None:
    script, (first, second) = lost()
    script(HoldingsKnown(first.query, 0), HoldingsKnown(second.query, 0))
    (fetch,) = of_type(script.wait(25.0), FetchUpstream)
    assert FailReaders(DIGEST, False, "upstream: unavailable") in script(UpstreamEnded(fetch.fetch, "unavailable"))
    assert of_type(script.wait(60.0), FetchUpstream) == []
    (check,) = of_type(script(BlobWanted(2, DIGEST, SOURCE)), CheckPublic)
    assert of_type(script(PublicChecked(check.check, SIZE)), FetchUpstream)


def test_two_clients_that_named_two_origins_are_not_given_the_bytes_of_one() -> None:
    script = Script()
    checks = of_type(script(BlobWanted(1, DIGEST, SOURCE), BlobWanted(2, DIGEST, OTHER_SOURCE)), CheckPublic)
    out = script(*(PublicChecked(check.check, SIZE) for check in checks), StoreOpened(DIGEST, 0, 0, False))
    assert of_type(out, AnswerReader) == [AnswerReader(1)]
    assert [(refused.reader, refused.reason) for refused in of_type(out, RefuseReader)] == [(2, "unavailable")]
    assert [fetch.source for fetch in of_type(script.wait(20.0) + out, FetchUpstream)] == [SOURCE]


def test_once_its_digest_has_passed_a_blob_is_for_clients_of_every_origin_that_gives_it() -> None:
    script = Script()
    script(BlobFound(DIGEST, SIZE, PIECE, 0b1111, True, (SOURCE,)))
    (check,) = of_type(script(BlobWanted(2, DIGEST, OTHER_SOURCE)), CheckPublic)
    (first,) = of_type(script(PublicChecked(check.check, SIZE)), CheckPublic)
    assert first.source == SOURCE
    script(PublicChecked(first.check, SIZE))
    assert script(StoreOpened(DIGEST, 0b1111, 0, True)) == [AnswerReader(2)]


def test_unless_it_was_made_private_where_it_came_from() -> None:
    script = Script()
    script(BlobFound(DIGEST, SIZE, PIECE, 0b1111, True, (SOURCE,)))
    (check,) = of_type(script(BlobWanted(2, DIGEST, OTHER_SOURCE)), CheckPublic)
    (first,) = of_type(script(PublicChecked(check.check, SIZE)), CheckPublic)
    out = script(PublicChecked(first.check, 0, "private", "401"))
    assert [(refused.reader, refused.reason) for refused in of_type(out, RefuseReader)] == [(2, "foreign")]
