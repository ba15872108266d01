"""Blobs that an origin gives to clients with credentials alone: by whose they come, and to whom they are given."""

from __future__ import annotations

import pytest

from peer.downloader import contract
from peer.downloader.contract import (
    AnswerReader,
    BlobFound,
    BlobWanted,
    BytesPrivate,
    DigestChecked,
    FailReaders,
    FetchUpstream,
    PublicChecked,
    ReaderClosed,
    RefuseReader,
    StoreOpened,
    UpstreamEnded,
    UpstreamPiece,
)
from proto.wire.messages import Announce, BlobRefused, OriginStatus, OriginTried, Source, SwarmOpened
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
)  # fmt: skip


def allowed(reader: int, source: Source = SOURCE, size: int = SIZE, *, proven: bool = True) -> BlobWanted:
    return BlobWanted(reader, DIGEST, source, size, proven)


def refused(commands: list[contract.Command]) -> list[tuple[int, str]]:
    return [(each.reader, each.reason) for each in of_type(commands, RefuseReader)]


def private(script: Script) -> Script:
    """The supernode says that the blob is not public; a client that the origin allows has begun it."""
    script(allowed(1, proven=False))
    script.receive(BlobRefused(str(DIGEST), "private", "401"))
    script(StoreOpened(DIGEST, 0, 0, False))
    return script


def complete(script: Script) -> Script:
    """That client has fetched all of it."""
    [fetch] = of_type(script.all, FetchUpstream)
    assert fetch.why == "not_shared"
    script(*(UpstreamPiece(fetch.fetch, piece) for piece in range(4)), UpstreamEnded(fetch.fetch, ""))
    [check] = of_type(script.all, contract.CheckDigest)
    script(DigestChecked(check.check, True), ReaderClosed(1))
    return script


def test_a_private_blob_comes_by_the_credential_of_the_client_that_waits() -> None:
    script = private(Script().connected())
    assert of_type(script.all, BytesPrivate) == [BytesPrivate(DIGEST, (SOURCE.upstream,))]
    [fetch] = of_type(script.all, FetchUpstream)
    assert (fetch.reader, fetch.source, fetch.pieces) == (1, SOURCE, 0b1111)
    assert of_type(script.all, AnswerReader) == [AnswerReader(1)]


def test_whose_bytes_they_are_is_said_before_the_store_is_opened() -> None:
    script = private(Script().connected())
    kinds = [type(command) for command in script.all]
    assert kinds.index(BytesPrivate) < kinds.index(contract.OpenInStore)


def test_it_is_announced_to_nobody() -> None:
    script = private(Script().connected())
    before = len(of_type(script.all, contract.Send))
    complete(script)
    assert sent(script.all)[before:] == []
    script(contract.SupernodeLost(), contract.SupernodeConnected())
    assert not [message for message in sent(script.all)[before:] if isinstance(message, Announce)]


def test_a_client_of_whom_nothing_is_known_is_to_be_asked_for() -> None:
    script = complete(private(Script().connected()))
    assert refused(script(BlobWanted(2, DIGEST, SOURCE))) == [(2, "private")]
    assert of_type(script(allowed(3), StoreOpened(DIGEST, 0b1111, 0, True)), AnswerReader) == [AnswerReader(3)]


def test_a_manifests_word_opens_nothing_that_another_credential_brought() -> None:
    script = private(Script().connected())
    assert refused(script(allowed(2, proven=False))) == [(2, "private")]
    assert refused(complete(script)(allowed(3, proven=False))) == [(3, "private")]


def test_another_origins_word_unlocks_nothing() -> None:
    script = complete(private(Script().connected()))
    assert refused(script(allowed(2, OTHER_SOURCE))) == [(2, "foreign")]
    assert refused(script(BlobWanted(3, DIGEST, OTHER_SOURCE))) == [(3, "foreign")]


def test_another_origins_word_that_was_asked_for_before_unlocks_nothing_either() -> None:
    script = Script().connected()
    script(BlobWanted(2, DIGEST, OTHER_SOURCE))
    script(allowed(1))
    script.receive(BlobRefused(str(DIGEST), "private", ""))  # to the first announcement, of the other source
    script.receive(BlobRefused(str(DIGEST), "private", "401"))
    script(StoreOpened(DIGEST, 0, 0, False))
    script(BlobWanted(3, DIGEST, OTHER_SOURCE))
    commands = script.receive(SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET))
    assert of_type(commands, AnswerReader) == []


def test_a_size_that_is_not_the_blobs_is_no_permission() -> None:
    script = complete(private(Script().connected()))
    assert refused(script(allowed(2, size=SIZE + 1))) == [(2, "foreign")]


def test_a_credential_that_ended_is_followed_by_that_of_another_client() -> None:
    script = private(Script().connected())
    script(allowed(2))
    [fetch] = of_type(script.all, FetchUpstream)
    script(UpstreamPiece(fetch.fetch, 0))
    commands = script(UpstreamEnded(fetch.fetch, "denied", "401"))
    assert [(each.reader, each.mismatch) for each in of_type(commands, FailReaders)] == [(1, False)]
    [follows] = of_type(commands, FetchUpstream)
    assert (follows.reader, follows.pieces) == (2, 0b1110)


def test_without_a_client_that_waits_the_origin_is_asked_for_nothing_more() -> None:
    script = private(Script().connected())
    [fetch] = of_type(script.all, FetchUpstream)
    commands = script(ReaderClosed(1), UpstreamEnded(fetch.fetch, "unavailable"))
    assert of_type(commands + script.wait(600), FetchUpstream) == []


def test_a_repository_that_refused_is_not_asked_for_each_blob() -> None:
    script = private(Script().connected())
    script(ReaderClosed(1))
    before = len(sent(script.all))
    script(allowed(2))
    assert not [message for message in sent(script.all)[before:] if isinstance(message, Announce)]


def test_without_a_supernode_it_is_the_same() -> None:
    script = Script()
    script(allowed(1))
    [check] = of_type(script.all, contract.CheckPublic)
    script(PublicChecked(check.check, 0, "private", "401"), StoreOpened(DIGEST, 0, 0, False))
    [fetch] = of_type(script.all, FetchUpstream)
    assert fetch.reader == 1
    assert refused(complete(script)(BlobWanted(2, DIGEST, SOURCE))) == [(2, "private")]


def test_what_turns_out_to_be_public_is_shared_again() -> None:
    script = Script().connected()
    script(BlobWanted(2, DIGEST, SOURCE))
    script.receive(BlobRefused(str(DIGEST), "unavailable", ""))
    script(allowed(1))
    script.receive(SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET))
    assert of_type(script.all, BytesPrivate) == []
    assert of_type(script(StoreOpened(DIGEST, 0, 0, False)), AnswerReader) == [AnswerReader(1)]


def test_after_a_restart_it_is_as_private_as_before() -> None:
    script = Script().connected()
    script(BlobFound(DIGEST, SIZE, PIECE, 0b1111, True, (), (SOURCE.upstream,)))
    assert refused(script(BlobWanted(1, DIGEST, SOURCE), allowed(2, OTHER_SOURCE))) == [(1, "private"), (2, "foreign")]
    assert of_type(script(allowed(3), StoreOpened(DIGEST, 0b1111, 0, True)), AnswerReader) == [AnswerReader(3)]


def test_what_left_the_store_is_nobodys() -> None:
    script = complete(private(Script().connected()))
    commands = script(contract.BlobEvicted(DIGEST))
    assert of_type(commands, BytesPrivate) == [BytesPrivate(DIGEST, ())]


def shared(script: Script, *readers: BlobWanted) -> Script:
    """The supernode opened a private swarm for these clients."""
    script(*readers)
    script.receive(SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET, private=True))
    script(StoreOpened(DIGEST, 0, 0, False))
    return script


def test_the_supernode_is_told_what_the_origin_allows() -> None:
    script = Script().connected()
    script(allowed(1, proven=False), allowed(2))
    announced = [message for message in sent(script.all) if isinstance(message, Announce)]
    assert [(each.allowed, each.size_bytes, each.wanted) for each in announced] == [(1, SIZE, True), (2, SIZE, True)]


def test_a_private_swarm_lets_in_those_alone_whom_the_origin_allows() -> None:
    script = shared(Script().connected(), allowed(1), BlobWanted(2, DIGEST, SOURCE))
    assert of_type(script.all, AnswerReader) == [AnswerReader(1)]
    assert refused(script.all) == [(2, "private")]
    assert of_type(script.all, BytesPrivate) == [BytesPrivate(DIGEST, (SOURCE.upstream,))]
    assert of_type(script.all, FetchUpstream) == [], "others bring it"


def test_what_the_supernode_found_itself_proves_a_manifests_word() -> None:
    script = shared(Script().connected(), allowed(1, proven=False))
    assert of_type(script.all, AnswerReader) == [AnswerReader(1)]


def test_where_nobody_proved_it_the_origin_is_asked_for_the_blob_itself() -> None:
    script = Script().connected()
    script(allowed(1, proven=False))
    assert refused(script.receive(BlobRefused(str(DIGEST), "unproven", ""))) == [(1, "private")]


def test_the_elected_node_fetches_with_the_credential_of_its_client() -> None:
    script = shared(Script().connected(), allowed(1))
    [fetch] = of_type(script.receive(OriginStatus(SWARM, "unreachable", True)), FetchUpstream)
    assert (fetch.reader, fetch.source) == (1, SOURCE)


def test_it_may_be_elected_before_its_store_is_open() -> None:
    script = Script().connected()
    script(allowed(1))
    script.receive(SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET, private=True))
    assert sent(script.receive(OriginStatus(SWARM, "unreachable", True))) == []
    assert of_type(script(StoreOpened(DIGEST, 0, 0, False)), FetchUpstream)


def test_when_that_credential_has_expired_the_lease_moves_to_another_node() -> None:
    script = shared(Script().connected(), allowed(1))
    [fetch] = of_type(script.receive(OriginStatus(SWARM, "unreachable", True)), FetchUpstream)
    commands = script(UpstreamEnded(fetch.fetch, "denied", "401"))
    assert [message for message in sent(commands) if isinstance(message, OriginTried)] == [OriginTried(SWARM, "denied")]
    assert [each.reader for each in of_type(commands, FailReaders)] == [1]


def test_after_a_reconnect_it_is_announced_as_private() -> None:
    script = shared(Script().connected(), allowed(1))
    commands = script(contract.SupernodeLost(), contract.SupernodeConnected())
    assert [(m.sources, m.allowed) for m in sent(commands) if isinstance(m, Announce)] == [((SOURCE,), 2)]


@pytest.mark.parametrize("reason", ["private", "unproven"])
def test_a_manifests_word_opens_nothing_that_was_public_elsewhere(reason: str) -> None:
    script = Script().connected()
    script(BlobFound(DIGEST, SIZE, PIECE, 0b1111, True, (SOURCE,)))
    script(allowed(1, OTHER_SOURCE, proven=False))
    assert refused(script.receive(BlobRefused(str(DIGEST), reason, ""))) == [(1, "private")]
    script(allowed(2, OTHER_SOURCE))
    assert of_type(script.receive(opened_at()), contract.OpenInStore)
    assert of_type(script(StoreOpened(DIGEST, 0b1111, 0, True)), AnswerReader)


def opened_at(**more: object) -> SwarmOpened:
    return SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET, **more)  # type: ignore[arg-type]


def public_in_store() -> Script:
    """The blob is here, and was public at SOURCE. A client comes whom another origin allows to read it."""
    script = Script().connected()
    script(BlobFound(DIGEST, SIZE, PIECE, 0b1111, True, (SOURCE,)))
    announced = [message for message in sent(script(allowed(1, OTHER_SOURCE))) if isinstance(message, Announce)]
    assert [(message.sources, message.asks) for message in announced] == [((SOURCE,), True)]
    return script


def test_what_was_made_private_where_it_came_from_is_unlocked_by_no_other_origin() -> None:
    script = public_in_store()
    assert refused(script.receive(BlobRefused(str(DIGEST), "private", "401"))) == [(1, "foreign")]
    assert refused(script(allowed(2, OTHER_SOURCE))) == [(2, "foreign")]
    # Its own clients have it.
    assert of_type(script(allowed(3), StoreOpened(DIGEST, 0b1111, 0, True)), AnswerReader) == [AnswerReader(3)]


def test_where_it_came_from_is_down_the_other_origins_word_will_do() -> None:
    script = public_in_store()
    script.receive(BlobRefused(str(DIGEST), "unavailable", "503"))
    assert of_type(script(StoreOpened(DIGEST, 0b1111, 0, True)), AnswerReader) == [AnswerReader(1)]


def test_what_the_supernode_finds_made_private_elsewhere_is_the_origins_own_to_give() -> None:
    script = Script().connected()
    script(allowed(1))
    assert refused(script.receive(BlobRefused(str(DIGEST), "foreign", ""))) == [(1, "foreign")]


def test_bytes_that_are_public_elsewhere_are_not_kept_from_anyone() -> None:
    script = Script().connected()
    script(allowed(1))
    script.receive(opened_at(private=True, public_at=(OTHER_SOURCE,)))
    assert of_type(script(StoreOpened(DIGEST, 0, 0b1111, False)), AnswerReader) == [AnswerReader(1)]
    assert of_type(script.all, BytesPrivate) == []
    # Of the other place it is known already, of this one it is still to be asked.
    assert of_type(script(BlobWanted(2, DIGEST, OTHER_SOURCE)), AnswerReader) == [AnswerReader(2)]
    assert of_type(script(BlobWanted(3, DIGEST, SOURCE)), AnswerReader) == []
    # After a reconnect it is announced as what it is.
    commands = script(contract.SupernodeLost(), contract.SupernodeConnected())
    assert ((OTHER_SOURCE,), 0) in [(m.sources, m.allowed) for m in sent(commands) if isinstance(m, Announce)]


def test_what_comes_from_where_it_is_public_is_not_mixed_with_private_bytes() -> None:
    script = Script()
    script(BlobWanted(1, DIGEST, OTHER_SOURCE), BlobWanted(2, DIGEST, SOURCE))
    other, denied = of_type(script.all, contract.CheckPublic)
    script(PublicChecked(denied.check, 0, "private", "401"), PublicChecked(other.check, SIZE, "", ""))
    script(StoreOpened(DIGEST, 0, 0, False))
    script.wait(20)
    assert of_type(script.all, FetchUpstream)
    assert refused(script(allowed(3))) == [(3, "foreign")]
    assert of_type(script.all, BytesPrivate) == []


def test_what_the_store_does_not_open_stays_its_origins() -> None:
    script = complete(private(Script().connected()))
    commands = script(allowed(2), contract.StoreRefused(DIGEST, "too many open files"))
    assert refused(commands) == [(2, "store")]
    assert not of_type(commands, BytesPrivate)
    assert not of_type(commands, contract.ForgetBlob)
    assert refused(script(ReaderClosed(2), BlobWanted(3, DIGEST, OTHER_SOURCE))) == [(3, "foreign")]
