"""Pieces that rotted on the node's own disk: they alone are fetched again, for readers and without any."""

from __future__ import annotations

from peer.downloader.contract import (
    BlobComplete,
    BlobFound,
    BlobWanted,
    CheckDigest,
    CloseInStore,
    DigestChecked,
    FailReaders,
    FetchEnded,
    FetchUpstream,
    OpenInStore,
    PiecesRotten,
    ReaderAt,
    ReaderClosed,
    SharingSwitched,
    StartFetch,
    StoreOpened,
    SupernodeConnected,
    UpstreamEnded,
    UpstreamPiece,
)
from peer.downloader.limits import Limits
from proto.pieces import mask_to_bytes
from proto.wire.messages import Announce, Failed, Stored, SwarmOpened
from tests.unit.peer.downloader.script import DIGEST, PIECE, SIZE, SOURCE, SWARM, TICKET, Script, of_type, sent

GRACE_S = Limits().grace_s


def read_complete(script: Script) -> Script:
    """A client reads a complete blob."""
    script(BlobFound(DIGEST, SIZE, PIECE, 0b1111, True, (SOURCE,)), BlobWanted(1, DIGEST, SOURCE))
    script.receive(SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET))
    script(StoreOpened(DIGEST, 0b1111, 0b1111, True))
    return script


def test_the_supernode_hears_that_it_is_missing_and_wanted_and_the_blob_is_complete_again() -> None:
    script = read_complete(Script().connected())
    (announce,) = sent(script(PiecesRotten(DIGEST, 0b0100)))
    assert isinstance(announce, Announce)
    assert (announce.wanted, announce.held) == (True, mask_to_bytes(0b1011, 4))
    script.receive(SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET))
    (fetch,) = of_type(script.grant(11, 2), StartFetch)
    (check,) = of_type(script(FetchEnded(fetch.fetch, "", 0.1)), CheckDigest)
    assert of_type(script(DigestChecked(check.check, True)), BlobComplete)
    assert not of_type(script.all, FailReaders)


def test_it_is_fetched_again_although_nobody_reads() -> None:
    script = Script().connected()
    script(BlobFound(DIGEST, SIZE, PIECE, 0b1111, True, (SOURCE,)))
    assert of_type(script(PiecesRotten(DIGEST, 0b0001)), OpenInStore)
    script.receive(SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET))
    script(StoreOpened(DIGEST, 0b1110, 0b1111, False))
    (fetch,) = of_type(script.grant(11, 0), StartFetch)
    (check,) = of_type(script(FetchEnded(fetch.fetch, "", 0.1)), CheckDigest)
    assert of_type(script(DigestChecked(check.check, True)), CloseInStore)


def test_without_a_supernode_the_origin_is_asked_for_it_alone_although_nobody_reads() -> None:
    script = Script()
    script(BlobFound(DIGEST, SIZE, PIECE, 0b1111, True, (SOURCE,)))
    script(PiecesRotten(DIGEST, 0b1000), StoreOpened(DIGEST, 0b0111, 0b1111, False))
    (fetch,) = of_type(script.wait(GRACE_S), FetchUpstream)
    assert (fetch.pieces, fetch.source) == (0b1000, SOURCE)
    (check,) = of_type(script(UpstreamPiece(fetch.fetch, 3)), CheckDigest)
    script(UpstreamEnded(fetch.fetch, ""))
    assert of_type(script(DigestChecked(check.check, True)), CloseInStore)


def test_what_is_found_rotten_before_the_first_session_is_open_comes_from_the_swarm() -> None:
    script = Script()
    script(BlobFound(DIGEST, SIZE, PIECE, 0b1111, True, (SOURCE,)))
    script(PiecesRotten(DIGEST, 0b1000), StoreOpened(DIGEST, 0b0111, 0b1111, False))
    assert of_type(script.wait(GRACE_S - 0.1), FetchUpstream) == []
    (announce,) = sent(script(SupernodeConnected()))
    assert isinstance(announce, Announce)
    assert (announce.wanted, announce.held) == (True, b"\7")
    assert of_type(script.wait(GRACE_S), FetchUpstream) == []


def test_an_origin_that_fails_is_not_asked_for_ever_when_nobody_reads() -> None:
    script = Script()
    script(BlobFound(DIGEST, SIZE, PIECE, 0b1111, True, (SOURCE,)))
    script(PiecesRotten(DIGEST, 0b1000), StoreOpened(DIGEST, 0b0111, 0b1111, False))
    (fetch,) = of_type(script.wait(GRACE_S), FetchUpstream)
    assert of_type(script(UpstreamEnded(fetch.fetch, "unavailable")), CloseInStore)
    assert not of_type(script.wait(3600), FetchUpstream)


def test_a_check_that_ended_before_it_rotted_makes_nothing_complete() -> None:
    script = Script().connected().open(held=0b1110)
    (fetch,) = of_type(script.grant(11, 0), StartFetch)
    (check,) = of_type(script(FetchEnded(fetch.fetch, "", 0.1)), CheckDigest)
    script(PiecesRotten(DIGEST, 0b0010))
    late = script(DigestChecked(check.check, True))
    assert not of_type(late, BlobComplete)
    assert not of_type(script.all, FailReaders)
    script.receive(SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET))
    assert of_type(script.grant(12, 1), StartFetch)


def test_a_digest_that_failed_for_rot_voids_nothing() -> None:
    script = Script().connected().open(held=0b1110)
    (fetch,) = of_type(script.grant(11, 0), StartFetch)
    (check,) = of_type(script(FetchEnded(fetch.fetch, "", 0.1)), CheckDigest)
    script(PiecesRotten(DIGEST, 0b0010), DigestChecked(check.check, False))
    assert not of_type(script.all, FailReaders)
    assert script.machine.state.blobs[DIGEST].held == 0b1101


def test_with_sharing_off_readers_go_on_at_the_origin() -> None:
    script = read_complete(Script().connected())
    script(SharingSwitched(False))
    (failed,) = of_type(script(PiecesRotten(DIGEST, 0b0100)), FailReaders)
    assert not failed.mismatch


def test_a_lease_for_a_piece_that_rotted_is_not_answered_from_memory() -> None:
    script = read_complete(Script().connected())
    script(ReaderAt(1, 2), PiecesRotten(DIGEST, 0b0100), ReaderClosed(1))
    script.receive(SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET))
    out = script.grant(11, 2)
    assert of_type(out, StartFetch)
    assert not [message for message in sent(out) if isinstance(message, Stored | Failed)]


def test_a_digest_that_could_not_be_checked_for_a_rotten_piece_is_no_trouble_of_the_store() -> None:
    script = Script().connected().open(held=0b1110)
    (fetch,) = of_type(script.grant(11, 0), StartFetch)
    (check,) = of_type(script(FetchEnded(fetch.fetch, "", 0.1)), CheckDigest)
    script(PiecesRotten(DIGEST, 0b0010), DigestChecked(check.check, False, "pieces missing"))
    assert not of_type(script.all, FailReaders)
    assert script.machine.state.blobs[DIGEST].wanted
