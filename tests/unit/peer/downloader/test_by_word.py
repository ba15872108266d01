"""Pieces that go by the word of the node that fetched them for all: taken, held to its hash, and given to no client."""

from __future__ import annotations

import pytest

from peer.downloader import contract
from peer.downloader.contract import (
    AnswerReader,
    BlobFound,
    BlobWanted,
    DigestChecked,
    FailReaders,
    FetchEnded,
    FetchUpstream,
    HashesLearned,
    ReaderAt,
    StartFetch,
    StoreOpened,
    UpstreamEnded,
    UpstreamPiece,
    Withhold,
)
from peer.downloader.limits import Limits
from proto.wire.messages import Failed, FetchReason, Grant, OriginStatus, OriginTried, Stored, SwarmOpened, Voided
from tests.unit.peer.downloader.script import DIGEST, PIECE, SIZE, SOURCE, SWARM, TICKET, Script, of_type, sent

CLAIM = b"c" * 32


def opened(limits: Limits | None = None) -> Script:
    """A client reads a private blob; nobody signed any of its hashes."""
    script = Script(limits=limits).connected()
    script(BlobWanted(1, DIGEST, SOURCE, SIZE, True))
    script.receive(SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET, private=True))
    script(StoreOpened(DIGEST, 0, 0, False))
    return script


def grant(script: Script, lease: int, piece: int, claim: bytes = CLAIM) -> list[contract.Command]:
    return script.receive(Grant(lease, SWARM, piece, 1, 5000, claim=claim))


def bring(script: Script, *pieces: int) -> list[contract.Command]:
    """Each by a lease that ends well."""
    out: list[contract.Command] = []
    for piece in pieces:
        [fetch] = of_type(grant(script, 10 + piece, piece), StartFetch)
        out += script(FetchEnded(fetch.fetch, "", 0.1))
    return out


def withheld(script: Script) -> int:
    """As the shell was last told."""
    told = of_type(script.all, Withhold)
    return told[-1].pieces if told else 0


def test_such_a_piece_is_held_to_the_hash_and_withheld_before_it_can_come() -> None:
    script = opened()
    commands = grant(script, 11, 1)
    assert [type(each) for each in commands] == [Withhold, StartFetch]
    assert of_type(commands, StartFetch)[0].claim == CLAIM
    assert withheld(script) == 0b0010
    assert sent(bring(script, 0))[0] == Stored(10, SWARM, 0, 100)
    assert withheld(script) == 0b0011


def test_once_the_digest_has_passed_nothing_is_withheld() -> None:
    script = opened()
    bring(script, 0, 1, 2, 3)
    [check] = of_type(script.all, contract.CheckDigest)
    script(DigestChecked(check.check, True))
    assert withheld(script) == 0


def test_what_the_supernode_signs_is_not_withheld_any_more() -> None:
    script = opened()
    bring(script, 0, 1)
    script(HashesLearned(DIGEST, 0b0001))
    assert withheld(script) == 0b0010
    [fetch] = of_type(grant(script, 20, 2, b""), StartFetch)
    assert fetch.claim == b""
    assert withheld(script) == 0b0010


def test_a_piece_whose_hash_is_signed_goes_by_nobodys_word() -> None:
    script = opened()
    script(HashesLearned(DIGEST, 0b1111))
    [fetch] = of_type(grant(script, 11, 1), StartFetch)
    assert (fetch.claim, withheld(script)) == (b"", 0)


def test_a_transfer_that_failed_withholds_nothing() -> None:
    script = opened()
    [fetch] = of_type(grant(script, 11, 1), StartFetch)
    script(FetchEnded(fetch.fetch, FetchReason.CONNECTION, 0.1))
    assert withheld(script) == 0


def test_after_a_wrong_digest_nothing_of_the_blob_is_taken_so_again() -> None:
    script = opened()
    bring(script, 0, 1, 2, 3)
    [check] = of_type(script.all, contract.CheckDigest)
    commands = script(DigestChecked(check.check, False))
    assert [type(each) for each in commands if isinstance(each, FailReaders | Withhold)] == [FailReaders, Withhold]
    assert withheld(script) == 0
    assert sent(grant(script, 20, 0)) == [Failed(20, FetchReason.UNHASHED)]


def test_a_void_withholds_nothing() -> None:
    script = opened()
    bring(script, 0)
    script.receive(Voided(SWARM, "no match"))
    assert withheld(script) == 0


def test_a_client_that_is_given_nothing_for_long_goes_to_its_origin() -> None:
    script = opened(Limits(withheld_s=50.0))
    script(ReaderAt(1, 0))
    bring(script, 0, 1)
    for piece in (2, 3):
        assert not of_type(script.wait(24.0), FailReaders)
        if piece == 2:
            bring(script, piece)
    failed = of_type(script.wait(3.0), FailReaders)
    assert [(each.reader, each.mismatch) for each in failed] == [(1, False)]


def test_after_a_restart_what_is_private_and_not_signed_is_withheld() -> None:
    script = Script().connected()
    script(BlobFound(DIGEST, SIZE, PIECE, 0b0111, False, (), (SOURCE.upstream,)))
    script(BlobWanted(1, DIGEST, SOURCE, SIZE, True), StoreOpened(DIGEST, 0b0111, 0b0001, False))
    assert withheld(script) == 0b0110


@pytest.mark.parametrize("elected", [True, False])
def test_the_elected_node_alone_gives_its_word(elected: bool) -> None:
    script = opened()
    if elected:
        script.receive(OriginStatus(SWARM, "unreachable", True))
    else:
        script.receive(OriginStatus(SWARM, "open", False))
        script.wait(200)
    [fetch, *_] = of_type(script.all, FetchUpstream)
    commands = script(UpstreamPiece(fetch.fetch, 2, CLAIM))
    assert sent(commands)[0] == Stored(0, SWARM, 2, 0, claim=CLAIM if elected else b"")
    assert withheld(script) == 0, "its own client has it from the origin"


def test_the_elected_node_asks_for_no_more_than_nobody_holds() -> None:
    script = opened()
    [fetch] = of_type(script.receive(OriginStatus(SWARM, "unreachable", True, pieces=b"\x0c")), FetchUpstream)
    assert fetch.pieces == 0b1100
    commands = script(
        UpstreamPiece(fetch.fetch, 2, CLAIM), UpstreamPiece(fetch.fetch, 3, CLAIM), UpstreamEnded(fetch.fetch, "")
    )
    assert sent(commands)[-1] == OriginTried(SWARM, "")
    assert not of_type(commands, FetchUpstream)


def test_who_is_elected_for_nothing_says_so_at_once() -> None:
    script = opened()
    assert sent(script.receive(OriginStatus(SWARM, "unreachable", True, pieces=b"\x00"))) == [OriginTried(SWARM, "")]
    assert of_type(script.all, AnswerReader)
