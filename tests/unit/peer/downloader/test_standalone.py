"""Without a supernode: known holders first, upstream for the rest after a grace; or a plain cache of one's own."""

from __future__ import annotations

from collections import Counter

import pytest

from peer.downloader.contract import (
    AnswerReader,
    AskHoldings,
    BlobFound,
    BlobWanted,
    CancelUpstream,
    CheckDigest,
    CheckPublic,
    DigestChecked,
    FailReaders,
    FetchEnded,
    FetchUpstream,
    HashesLearned,
    HoldingsKnown,
    OpenInStore,
    PublicChecked,
    ReaderAt,
    ReaderClosed,
    RefuseReader,
    StartFetch,
    StoreOpened,
    SupernodeConnected,
    SupernodeLost,
    UpstreamEnded,
    UpstreamPiece,
)
from peer.downloader.limits import Limits
from proto.pieces import KIB
from proto.wire.messages import Announce, FetchReason, Holders
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


def lost(held: int = 0, hashed: int = 0b1111, seed: int = 1) -> tuple[Script, list[AskHoldings]]:
    """A client reads, the supernode had named two holders, the session is lost."""
    script = Script(seed).connected().open(held=held, hashed=hashed)
    script(ReaderAt(1, 0))
    script.receive(Holders(SWARM, (1, 2)))
    return script, of_type(script(SupernodeLost()), AskHoldings)


def test_known_holders_are_asked_what_they_have() -> None:
    _, queries = lost(hashed=0b0011)
    assert [(q.holder.address, q.hashes) for q in queries] == [("10.0.0.1:65002", True), ("10.0.0.2:65002", True)]


def test_pieces_that_holders_have_are_fetched_from_them_within_limits() -> None:
    script, (first, second) = lost()
    assert len(of_type(script(HoldingsKnown(first.query, 0b1111)), StartFetch)) == LIMITS.standalone_fetches_per_holder
    script(HoldingsKnown(second.query, 0b1111))
    assert len(of_type(script.all, StartFetch)) == LIMITS.standalone_fetches_max


def test_the_reader_s_piece_comes_first_and_then_the_rarest() -> None:
    script, (first, second) = lost()
    script(HoldingsKnown(first.query, 0b0111))
    script(HoldingsKnown(second.query, 0b1001))
    fetches = of_type(script.all, StartFetch)
    assert fetches[0].piece == 0
    assert 3 in [fetch.piece for fetch in fetches if fetch.holder.peer == peer_id(3)]
    assert len({fetch.piece for fetch in fetches}) == len(fetches) == 3


def test_a_piece_without_a_signed_hash_is_never_taken_from_a_peer() -> None:
    script, (first, _) = lost(hashed=0)
    assert of_type(script(HoldingsKnown(first.query, 0b1111)), StartFetch) == []
    assert of_type(script(HashesLearned(DIGEST, 0b0010)), StartFetch)[0].piece == 1


def test_holders_are_asked_again_and_again() -> None:
    script, (first, second) = lost()
    script(HoldingsKnown(first.query, 0), HoldingsKnown(second.query, 0))
    assert len(of_type(script.wait(7.0), AskHoldings)) == 2


def test_upstream_is_asked_after_a_grace_that_counts_from_the_loss() -> None:
    script, (first, second) = lost()
    script(HoldingsKnown(first.query, None), HoldingsKnown(second.query, 0))
    assert of_type(script.wait(9.9), FetchUpstream) == []
    asked = of_type(script.wait(10.2), FetchUpstream)
    assert [fetch.pieces for fetch in asked] == [0b1111]


def test_the_grace_differs_from_node_to_node() -> None:
    moments = {round(lost(seed=seed)[0].machine.state.upstream_from, 3) for seed in range(8)}
    assert len(moments) == 8
    assert all(110.0 <= moment <= 120.0 for moment in moments)


def test_upstream_is_asked_only_for_what_nobody_known_holds() -> None:
    script, (first, second) = lost()
    script(HoldingsKnown(first.query, 0b0110), HoldingsKnown(second.query, 0b0010))
    (fetch,) = of_type(script.wait(20.0), FetchUpstream)
    assert fetch.pieces == 0b1001


def test_nobody_reading_means_nothing_asked_of_upstream() -> None:
    script = Script().connected().open()
    script(SupernodeLost(), ReaderClosed(1))
    assert of_type(script.wait(60.0), FetchUpstream) == []


def test_on_reconnect_upstream_is_left_alone_and_everything_announced() -> None:
    script, _ = lost(held=0b0001)
    (fetch,) = of_type(script.wait(25.0), FetchUpstream)
    out = script(SupernodeConnected())
    assert CancelUpstream(fetch.fetch) in out
    assert [m.held for m in sent(out) if isinstance(m, Announce)] == [b"\1"]
    script(UpstreamPiece(fetch.fetch, 1), UpstreamEnded(fetch.fetch, "cancelled"))
    assert of_type(script.wait(20.0), FetchUpstream) == []


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
    (check,) = of_type(script(BlobWanted(1, DIGEST, OTHER_SOURCE)), CheckPublic)
    assert of_type(script(PublicChecked(check.check, SIZE)), OpenInStore)
    assert script(StoreOpened(DIGEST, 0b1111, 0, True)) == [AnswerReader(1)]


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
    assert of_type(script(BlobWanted(2, DIGEST, SOURCE)), FetchUpstream)


def test_what_was_fetched_alone_is_announced_with_hashes_when_the_supernode_is_back() -> None:
    script = Script()
    script(BlobFound(DIGEST, SIZE, PIECE, 0b1111, True, (SOURCE,)))
    (announce,) = script(SupernodeConnected())
    assert getattr(announce, "with_hashes", False)
