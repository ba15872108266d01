"""The node's own digest check when it does not go straight: the disk in trouble, the blob voided under it."""

from __future__ import annotations

from peer.downloader.contract import (
    BlobComplete,
    BlobWanted,
    CheckDigest,
    CloseInStore,
    DigestChecked,
    FailReaders,
    FetchEnded,
    HashesLearned,
    ReaderClosed,
    StartFetch,
    StoreOpened,
    VoidInStore,
)
from peer.downloader.limits import Limits
from proto.wire.messages import FetchReason, Grant, SwarmOpened, Voided
from tests.unit.peer.downloader.script import DIGEST, PIECE, SIZE, SOURCE, SWARM, TICKET, Script, of_type

LIMITS = Limits()


def test_the_outcome_of_a_check_that_a_void_overtook_says_nothing() -> None:
    script = Script().connected().open(held=0b1110)
    (fetch,) = of_type(script.grant(11, 0), StartFetch)
    (check,) = of_type(script(FetchEnded(fetch.fetch, "", 0.1)), CheckDigest)
    assert of_type(script.receive(Voided(SWARM, "no match")), VoidInStore)
    script(ReaderClosed(1), BlobWanted(2, DIGEST, SOURCE))
    script.receive(SwarmOpened(SWARM + 1, str(DIGEST), SIZE, PIECE, TICKET))
    script(HashesLearned(DIGEST, 0b1111))
    for piece in range(4):
        (again,) = of_type(script.receive(Grant(20 + piece, SWARM + 1, piece, 1, 5000)), StartFetch)
        script(FetchEnded(again.fetch, "", 0.1))
    late = script(DigestChecked(check.check, False))
    assert not of_type(late, VoidInStore)
    (fresh,) = of_type(late, CheckDigest)
    assert of_type(script(DigestChecked(fresh.check, True)), BlobComplete)


def test_a_digest_that_cannot_be_checked_is_tried_again_for_a_later_client_alone() -> None:
    script = Script().connected().open(held=0b1110)
    (fetch,) = of_type(script.grant(11, 0), StartFetch)
    (check,) = of_type(script(FetchEnded(fetch.fetch, "", 0.1)), CheckDigest)
    failed = script(DigestChecked(check.check, False, "the disk is in trouble"))
    assert not of_type(failed, CheckDigest)
    assert of_type(failed, FailReaders)
    assert of_type(script(ReaderClosed(1)), CloseInStore)
    script.wait(LIMITS.store_rest_s)
    script(BlobWanted(2, DIGEST, SOURCE))
    assert of_type(script(StoreOpened(DIGEST, 0b1111, 0b1111, False)), CheckDigest)


def test_a_complete_blob_that_nobody_reads_keeps_the_end_of_its_history_alone() -> None:
    script = Script().connected().open(held=0b1110)
    for lease in range(20):
        (fetch,) = of_type(script.grant(100 + lease, 0), StartFetch)
        script(FetchEnded(fetch.fetch, FetchReason.TIMEOUT, 0.1))
    (fetch,) = of_type(script.grant(11, 0), StartFetch)
    (check,) = of_type(script(FetchEnded(fetch.fetch, "", 0.1)), CheckDigest)
    script(DigestChecked(check.check, True))
    assert len(script.machine.story(DIGEST)) > LIMITS.history_idle_max
    script(ReaderClosed(1))
    story = script.machine.story(DIGEST)
    assert len(story) == LIMITS.history_idle_max
    assert "complete" in story[-1]
