"""With a supernode: announce, lease, hold, check, complete; and what goes wrong on the way."""

from __future__ import annotations

import dataclasses

import pytest

from peer.downloader.blob import PieceState
from peer.downloader.contract import (
    AnswerReader,
    BlobComplete,
    BlobEvicted,
    BlobFound,
    BlobWanted,
    CancelFetch,
    CheckDigest,
    CloseInStore,
    DigestChecked,
    FailReaders,
    FetchEnded,
    HashesConflict,
    OpenInStore,
    PieceHeld,
    ReaderAt,
    ReaderClosed,
    Received,
    RefuseReader,
    Send,
    SharingSwitched,
    StartFetch,
    StoreContent,
    StoreOpened,
    StoreRefused,
    SupernodeConnected,
    SupernodeLost,
    VoidInStore,
)
from proto.wire.messages import (
    Announce,
    BlobChecked,
    BlobRefused,
    Cancel,
    Failed,
    FetchReason,
    Grant,
    InlineBlob,
    ReaderMoved,
    Stored,
    SwarmOpened,
    Voided,
    Withdraw,
)
from tests.unit.peer.downloader.script import (
    DIGEST,
    OTHER_SOURCE,
    PIECE,
    SIZE,
    SOURCE,
    SWARM,
    TICKET,
    Script,
    of_type,
    sent,
)

OPENED = SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET)


def test_the_first_client_makes_an_announcement_and_reads_once_the_store_is_open() -> None:
    script = Script().connected()
    assert script(BlobWanted(1, DIGEST, SOURCE)) == [Send(Announce(str(DIGEST), (SOURCE,), True, 0, 0, b""))]
    assert of_type(script.receive(OPENED), OpenInStore) == [OpenInStore(DIGEST, SIZE, PIECE)]
    assert script(StoreOpened(DIGEST, 0, 0, False)) == [AnswerReader(1)]
    assert script.machine.known_size(DIGEST, SOURCE, script.now) == SIZE
    assert script.machine.known_size(DIGEST, OTHER_SOURCE, script.now) is None


def test_a_second_client_of_a_public_source_reads_at_once() -> None:
    script = Script().connected().open()
    assert script(BlobWanted(2, DIGEST, SOURCE)) == [AnswerReader(2)]


def test_a_word_counts_from_when_the_origin_was_asked_however_long_it_was_on_its_way() -> None:
    script = Script().connected()
    script(BlobWanted(1, DIGEST, SOURCE))
    script.wait(5.0)
    script.receive(dataclasses.replace(OPENED, age_s=40.0))
    script(StoreOpened(DIGEST, 0b1111, 0b1111, True))
    script.wait(14.0)
    assert script(BlobWanted(2, DIGEST, SOURCE)) == [AnswerReader(2)]
    script.wait(1.0)
    assert script.machine.known_size(DIGEST, SOURCE, script.now) is None
    assert [type(message) for message in sent(script(BlobWanted(3, DIGEST, SOURCE)))] == [Announce]
    refused = script.receive(BlobRefused(str(DIGEST), "private", "wants a credential"))
    assert of_type(refused, RefuseReader) == [RefuseReader(3, "private", "wants a credential")]


def test_a_word_of_an_origin_that_cannot_be_asked_counts_once() -> None:
    script = Script().connected()
    script(BlobWanted(1, DIGEST, SOURCE))
    script.receive(dataclasses.replace(OPENED, age_s=float("inf")))
    assert of_type(script(StoreOpened(DIGEST, 0b1111, 0b1111, True)), AnswerReader) == [AnswerReader(1)]
    assert [type(message) for message in sent(script(BlobWanted(2, DIGEST, SOURCE)))] == [Announce]


def test_a_client_of_another_source_waits_for_the_word_about_that_source() -> None:
    script = Script().connected().open(held=0b0001)
    assert sent(script(BlobWanted(2, DIGEST, OTHER_SOURCE))) == [
        Announce(str(DIGEST), (OTHER_SOURCE,), True, SIZE, PIECE, b"\1")
    ]
    refused = script.receive(BlobRefused(str(DIGEST), "private", "wants a credential"))
    assert refused == [RefuseReader(2, "private", "wants a credential")]
    assert script.machine.state.blobs[DIGEST].wanted


def test_a_client_of_another_source_reads_others_bytes_only_by_the_supernodes_word() -> None:
    script = Script().connected().open()
    script.machine.state.mark_public(script.machine.state.blobs[DIGEST], OTHER_SOURCE, script.now)
    assert script.machine.known_size(DIGEST, OTHER_SOURCE, script.now) is None
    assert of_type(script(BlobWanted(2, DIGEST, OTHER_SOURCE)), AnswerReader) == []
    assert of_type(script.receive(OPENED), AnswerReader) == [AnswerReader(2)]
    assert script(BlobWanted(3, DIGEST, OTHER_SOURCE)) == [AnswerReader(3)]


def test_a_client_of_another_source_is_not_given_what_no_supernode_signed() -> None:
    script = Script().connected().open(held=0b0001, hashed=0b0000)
    script(BlobWanted(2, DIGEST, OTHER_SOURCE))
    assert [refused.reason for refused in of_type(script.receive(OPENED), RefuseReader)] == ["unavailable"]


def test_a_client_whose_answer_stands_behind_one_about_another_upstream_does_not_wait_for_it() -> None:
    script = Script().connected()
    script(BlobWanted(1, DIGEST, SOURCE), BlobWanted(2, DIGEST, OTHER_SOURCE))
    refused = of_type(script.wait(script.machine.state.limits.other_upstream_s), RefuseReader)
    assert [(each.reader, each.reason) for each in refused] == [(2, "link")]


def test_answers_belong_to_announcements_in_their_order() -> None:
    script = Script().connected()
    script(BlobWanted(1, DIGEST, SOURCE), BlobWanted(2, DIGEST, OTHER_SOURCE))
    assert of_type(script.receive(BlobRefused(str(DIGEST), "unknown", "404")), RefuseReader)[0].reader == 1
    script.receive(OPENED)
    assert of_type(script(StoreOpened(DIGEST, 0, 0, False)), AnswerReader) == [AnswerReader(2)]


def test_a_lease_becomes_a_fetch_and_its_success_a_report() -> None:
    script = Script().connected().open()
    (fetch,) = of_type(script.grant(11, 2), StartFetch)
    assert (fetch.piece, fetch.holder.address, fetch.deadline_s) == (2, "10.0.0.1:65002", 5.0)
    assert script.machine.state.blobs[DIGEST].piece_state(2) is PieceState.LEASED
    assert script(FetchEnded(fetch.fetch, "", 0.25)) == [Send(Stored(11, SWARM, 2, 250)), PieceHeld(DIGEST, 2)]
    assert script.machine.state.blobs[DIGEST].piece_state(2) is PieceState.HELD


def test_a_report_says_how_long_its_request_and_its_answer_took() -> None:
    script = Script().connected().open()
    (fetch,) = of_type(script.grant(11, 2), StartFetch)
    ended = FetchEnded(fetch.fetch, "", 0.250123, waited_s=0.002, answered_s=0.0031)
    assert script(ended)[0] == Send(Stored(11, SWARM, 2, 250, 123, 2000, 3100))


def test_hashes_that_came_with_a_piece_are_known_whatever_became_of_it() -> None:
    script = Script().connected().open()
    (fetch,) = of_type(script.grant(11, 2), StartFetch)
    script(FetchEnded(fetch.fetch, FetchReason.CORRUPT, 0.1, learned=0b1100))
    assert script.machine.state.blobs[DIGEST].hashed & 0b1100 == 0b1100


def test_a_failed_lease_is_reported_with_its_reason() -> None:
    script = Script().connected().open()
    (fetch,) = of_type(script.grant(11, 2), StartFetch)
    assert script(FetchEnded(fetch.fetch, FetchReason.CORRUPT, 0.1)) == [Send(Failed(11, "corrupt"))]
    assert script.machine.state.blobs[DIGEST].piece_state(2) is PieceState.MISSING


def test_leases_that_come_before_the_store_is_open_wait_for_it() -> None:
    script = Script().connected()
    script(BlobWanted(1, DIGEST, SOURCE))
    script.receive(OPENED)
    assert script.grant(11, 0) == []
    assert script.grant(12, 1) == []
    script.receive(Cancel(12))
    assert [f.piece for f in of_type(script(StoreOpened(DIGEST, 0, 0b1111, False)), StartFetch)] == [0]


def test_a_lease_on_an_unknown_swarm_node_or_piece_is_refused() -> None:
    script = Script().connected().open()
    assert script.receive(Grant(1, 99, 0, 1, 5000)) == [Send(Failed(1, "protocol"))]
    assert script.receive(Grant(2, SWARM, 0, 99, 5000)) == [Send(Failed(2, "protocol"))]
    assert script.receive(Grant(3, SWARM, 4, 1, 5000)) == [Send(Failed(3, "protocol"))]


def test_a_piece_whose_hash_is_not_known_is_fetched_for_its_hash_may_come_with_it() -> None:
    script = Script().connected().open(hashed=0b0111)
    (fetch,) = of_type(script.grant(11, 3), StartFetch)
    assert script(FetchEnded(fetch.fetch, "unhashed", 0.1)) == [Send(Failed(11, "unhashed"))]
    (again,) = of_type(script.grant(12, 3), StartFetch)
    assert again.piece == 3


def test_a_lease_on_a_held_piece_is_a_success_at_once() -> None:
    script = Script().connected().open(held=0b0100)
    assert script.grant(11, 2) == [Send(Stored(11, SWARM, 2, 0))]


def test_a_cancelled_lease_needs_no_outcome_but_its_late_success_counts() -> None:
    script = Script().connected().open()
    (fetch,) = of_type(script.grant(11, 2), StartFetch)
    assert script.receive(Cancel(11)) == [CancelFetch(fetch.fetch)]
    assert script(FetchEnded(fetch.fetch, "", 0.1)) == [Send(Stored(0, SWARM, 2, 100)), PieceHeld(DIGEST, 2)]


def test_of_two_sources_of_a_piece_the_first_verified_wins() -> None:
    script = Script().connected().open()
    (slow,) = of_type(script.grant(11, 2, node=1), StartFetch)
    (fast,) = of_type(script.grant(12, 2, node=2), StartFetch)
    out = script(FetchEnded(fast.fetch, "", 0.1))
    assert out == [Send(Stored(12, SWARM, 2, 100)), PieceHeld(DIGEST, 2), CancelFetch(slow.fetch)]
    assert script(FetchEnded(slow.fetch, FetchReason.CANCELLED, 0.2)) == [Send(Failed(11, "cancelled"))]


def test_an_inline_blob_goes_into_the_store_like_a_lease() -> None:
    script = Script().connected().open(size=500, hashed=1)
    (inline,) = of_type(script(Received(InlineBlob(5, SWARM, b"content"))), StoreContent)
    out = script(FetchEnded(inline.fetch, "", 0.0))
    assert out[:2] == [Send(Stored(5, SWARM, 0, 0)), PieceHeld(DIGEST, 0)]
    assert of_type(out, CheckDigest)


def test_the_hash_of_what_the_supernode_sent_itself_is_not_claimed() -> None:
    script = Script().connected().open(size=500, hashed=0)
    (inline,) = of_type(script(Received(InlineBlob(5, SWARM, b"content"))), StoreContent)
    (check,) = of_type(script(FetchEnded(inline.fetch, "", 0.0)), CheckDigest)
    out = script(DigestChecked(check.check, True))
    assert Send(BlobChecked(SWARM, True)) in out
    assert not any(isinstance(message, Announce) for message in sent(out))


def complete(script: Script) -> Script:
    for piece in range(4):
        (fetch,) = of_type(script.grant(20 + piece, piece), StartFetch)
        out = script(FetchEnded(fetch.fetch, "", 0.1))
    (check,) = of_type(out, CheckDigest)
    script(DigestChecked(check.check, True))
    return script


def test_a_blob_is_complete_after_its_own_digest_check_and_unpinned_when_nobody_reads() -> None:
    script = complete(Script().connected().open())
    assert BlobComplete(DIGEST) in script.all
    assert Send(BlobChecked(SWARM, True)) in script.all
    assert not of_type(script.all, CloseInStore)
    assert script(ReaderClosed(1)) == [CloseInStore(DIGEST)]
    assert script(BlobWanted(2, DIGEST, SOURCE)) == [OpenInStore(DIGEST, SIZE, PIECE)]
    assert script(StoreOpened(DIGEST, 0b1111, 0b1111, True)) == [AnswerReader(2)]


def test_a_download_goes_on_without_its_client() -> None:
    script = Script().connected().open()
    assert script(ReaderClosed(1)) == []
    assert of_type(script.grant(11, 0), StartFetch)


def test_an_empty_blob_is_complete_after_its_check() -> None:
    script = Script().connected()
    script(BlobWanted(1, DIGEST, SOURCE))
    script.receive(SwarmOpened(SWARM, str(DIGEST), 0, PIECE, TICKET))
    (check,) = of_type(script(StoreOpened(DIGEST, 0, 0, False)), CheckDigest)
    assert BlobComplete(DIGEST) in script(DigestChecked(check.check, True))


def test_an_own_mismatch_voids_the_blob_and_ends_its_readers() -> None:
    script = Script().connected().open(held=0b1111)
    (check,) = of_type(script.all, CheckDigest)
    out = script(DigestChecked(check.check, False))
    assert Send(BlobChecked(SWARM, False)) in out
    assert VoidInStore(DIGEST) in out
    assert of_type(out, FailReaders)[0].mismatch
    assert script.machine.state.blobs[DIGEST].held == 0


def test_what_the_supernode_voids_is_dropped_and_late_pieces_of_it_count_for_nothing() -> None:
    script = Script().connected().open(held=0b0001)
    (fetch,) = of_type(script.grant(11, 1), StartFetch)
    out = script.receive(Voided(SWARM, "no match"))
    assert VoidInStore(DIGEST) in out
    assert of_type(out, FailReaders)[0].mismatch
    script(FetchEnded(fetch.fetch, "", 0.1))
    assert script.machine.state.blobs[DIGEST].held == 0
    assert CloseInStore(DIGEST) in script(ReaderClosed(1))
    assert DIGEST not in script.machine.state.blobs


@pytest.mark.parametrize("opened_first", [True, False])
def test_a_blob_of_which_a_wrong_size_was_told_is_begun_anew_with_the_right_one(opened_first: bool) -> None:
    script = Script().connected()
    script(BlobWanted(1, DIGEST, SOURCE))
    script.receive(SwarmOpened(SWARM, str(DIGEST), SIZE + 5, PIECE, TICKET))
    # While the store still opens it: on a busy machine.
    (refused,) = of_type(script.receive(Voided(SWARM, "5 bytes less")), RefuseReader)
    assert refused.reason == "changed"
    out = script(ReaderClosed(1), BlobWanted(2, DIGEST, SOURCE))
    assert [announced.wanted for announced in sent(out) if isinstance(announced, Announce)] == [True]
    events = [
        StoreOpened(DIGEST, 0b0001, 0b0001, False),
        Received(SwarmOpened(SWARM + 1, str(DIGEST), SIZE, PIECE, TICKET)),
    ]
    out = script(*(events if opened_first else reversed(events)))
    assert VoidInStore(DIGEST) in out
    assert of_type(out, OpenInStore)[-1] == OpenInStore(DIGEST, SIZE, PIECE)
    assert script(StoreOpened(DIGEST, 0, 0, False)) == [AnswerReader(2)]


def test_after_a_void_a_new_client_starts_afresh() -> None:
    script = Script().connected().open(held=0b0001)
    script.receive(Voided(SWARM, "no match"))
    out = script(BlobWanted(2, DIGEST, SOURCE))
    assert Announce(str(DIGEST), (SOURCE,), True, SIZE, PIECE, b"\0") in sent(out)


def test_hashes_that_contradict_held_pieces_void_them() -> None:
    script = Script().connected().open(held=0b0001)
    assert VoidInStore(DIGEST) in script(HashesConflict(DIGEST))


def test_the_store_in_trouble_sends_readers_on_and_returns_leases() -> None:
    script = Script().connected().open()
    (first,) = of_type(script.grant(11, 0), StartFetch)
    (second,) = of_type(script.grant(12, 1), StartFetch)
    out = script(FetchEnded(first.fetch, FetchReason.LOCAL, 0.1, "no space left"))
    assert Send(Failed(11, "local")) in out
    assert CancelFetch(second.fetch) in out
    assert FailReaders(DIGEST, False, "no space left") in out
    assert script(FetchEnded(second.fetch, FetchReason.CANCELLED, 0.1))[0] == Send(Failed(12, "cancelled"))
    assert of_type(script(BlobWanted(2, DIGEST, SOURCE)), RefuseReader)[0].reason == "store"


def test_a_store_without_room_refuses_the_clients() -> None:
    script = Script().connected()
    script(BlobWanted(1, DIGEST, SOURCE))
    script.receive(OPENED)
    out = script(StoreRefused(DIGEST, "store full"))
    assert RefuseReader(1, "store", "store full") in out
    assert Withdraw(str(DIGEST)) in sent(out)


def test_the_reader_s_piece_is_told_when_it_changes() -> None:
    script = Script().connected().open(held=0b0001)
    assert script(ReaderAt(1, 0)) == [Send(ReaderMoved(SWARM, 1))]
    assert script(ReaderAt(1, 1)) == []
    assert script(ReaderAt(1, 3)) == [Send(ReaderMoved(SWARM, 3))]
    assert script(ReaderClosed(1)) == [Send(ReaderMoved(SWARM, -1))]


def test_a_blob_of_one_piece_has_no_place_to_tell() -> None:
    script = Script().connected().open(size=500)
    assert script(ReaderAt(1, 0), ReaderClosed(1)) == []


def test_the_earliest_of_several_readers_counts() -> None:
    script = Script().connected().open()
    script(BlobWanted(2, DIGEST, SOURCE), ReaderAt(1, 3))
    assert script(ReaderAt(2, 1)) == [Send(ReaderMoved(SWARM, 1))]
    assert script(ReaderClosed(2)) == [Send(ReaderMoved(SWARM, 3))]


def test_no_size_in_time_sends_the_client_on() -> None:
    script = Script().connected()
    script(BlobWanted(1, DIGEST, SOURCE))
    assert of_type(script.wait(22.9), RefuseReader) == []
    assert [refused.reason for refused in of_type(script.wait(0.2), RefuseReader)] == ["link"]


def test_a_restarted_node_announces_what_it_has_and_wants_it_when_asked() -> None:
    script = Script()
    script(BlobFound(DIGEST, SIZE, PIECE, 0b0011, False, (SOURCE,)))
    only_told = Announce(str(DIGEST), (SOURCE,), False, SIZE, PIECE, b"\3", asks=False)
    assert sent(script(SupernodeConnected())) == [only_told]
    script.receive(OPENED)
    out = script(BlobWanted(1, DIGEST, SOURCE))
    assert sent(out) == [Announce(str(DIGEST), (SOURCE,), True, SIZE, PIECE, b"\3")]
    assert of_type(script.receive(OPENED), OpenInStore)


def test_an_evicted_blob_is_withdrawn() -> None:
    script = Script()
    script(BlobFound(DIGEST, SIZE, PIECE, 0b1111, True, (SOURCE,)), SupernodeConnected())
    script.receive(OPENED)
    assert sent(script(BlobEvicted(DIGEST))) == [Withdraw(str(DIGEST))]


def test_a_store_hit_for_an_unknown_source_asks_first() -> None:
    script = Script()
    script(BlobFound(DIGEST, SIZE, PIECE, 0b1111, True, (SOURCE,)), SupernodeConnected())
    script.receive(OPENED)
    out = script(BlobWanted(1, DIGEST, OTHER_SOURCE))
    assert of_type(out, AnswerReader) == []
    assert sent(out) == [Announce(str(DIGEST), (OTHER_SOURCE,), False, SIZE, PIECE, b"\x0f")]


def test_permission_to_read_expires_and_is_asked_anew() -> None:
    script = complete(Script().connected().open())
    script(ReaderClosed(1))
    script.now += 3601
    assert sent(script(BlobWanted(2, DIGEST, SOURCE)))


def test_after_a_reconnect_everything_is_announced_with_its_bitfield() -> None:
    script = Script().connected().open(held=0b0001)
    (fetch,) = of_type(script.grant(11, 1), StartFetch)
    script(SupernodeLost())
    assert script(FetchEnded(fetch.fetch, "", 0.1)) == [PieceHeld(DIGEST, 1)]
    assert sent(script(SupernodeConnected())) == [Announce(str(DIGEST), (SOURCE,), True, SIZE, PIECE, b"\3")]


def test_sharing_switched_off_sends_clients_on_and_refuses_new_ones() -> None:
    script = Script().connected().open()
    (fetch,) = of_type(script.grant(11, 1), StartFetch)
    out = script(SharingSwitched(False))
    assert CancelFetch(fetch.fetch) in out
    assert of_type(out, FailReaders)
    assert of_type(script(BlobWanted(2, DIGEST, SOURCE)), RefuseReader)[0].reason == "off"


def test_the_story_of_a_piece_says_what_happened_to_it() -> None:
    script = Script().connected().open()
    (fetch,) = of_type(script.grant(11, 2), StartFetch)
    script(FetchEnded(fetch.fetch, FetchReason.TIMEOUT, 5.0))
    story = "\n".join(script.machine.story(DIGEST, 2))
    assert "lease 11" in story
    assert "timeout" in story
