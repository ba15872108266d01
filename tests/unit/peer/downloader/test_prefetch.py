"""The layers that a client will ask for next are begun while it still reads others."""

from __future__ import annotations

from peer.downloader.contract import (
    AnswerReader,
    BlobFound,
    BlobWanted,
    DigestChecked,
    ForgetBlob,
    ImageNamed,
    LinkLost,
    OpenInStore,
    PieceArrived,
    RefuseReader,
    StoreOpened,
)
from peer.downloader.limits import Limits
from proto.ids import Digest
from proto.wire.messages import Announce, BlobRefused, SwarmOpened
from tests.unit.peer.downloader.script import DIGEST, OTHER_SOURCE, PIECE, SIZE, SOURCE, TICKET, Script, of_type, sent

SECOND, THIRD, FOURTH = (Digest.of(bytes([number])) for number in range(2, 5))
LAYERS = (DIGEST, SECOND, THIRD, FOURTH)
QUARTER = Limits(prefetch_part=0.25)


def named(script: Script, *, held: int = 0) -> Script:
    """A client that read the manifest reads the first layer, of which these pieces are here."""
    script(ImageNamed(SOURCE, LAYERS))
    return script.open(held)


def wanted(script: Script) -> list[str]:
    """What the supernode was told that this node wants, in order."""
    return [m.digest for m in sent(script.all) if isinstance(m, Announce) and m.wanted]


def test_a_layer_that_is_nearly_here_brings_the_next_one() -> None:
    script = named(Script(limits=QUARTER).linked(), held=0b0011)
    assert wanted(script) == [str(DIGEST)]
    script = named(Script(limits=QUARTER).linked(), held=0b0111)
    assert wanted(script) == [str(DIGEST), str(SECOND)]


def test_nothing_is_begun_while_another_layer_that_the_client_reads_is_far_from_here() -> None:
    script = Script(limits=QUARTER).linked()
    script(ImageNamed(SOURCE, LAYERS), BlobWanted(2, SECOND, SOURCE))
    script.receive(SwarmOpened(8, str(SECOND), SIZE, PIECE, TICKET))
    script(StoreOpened(SECOND, 0b0001, 0b1111, False))
    script.open(held=0b0111)
    script(PieceArrived(SECOND, 1))
    assert str(THIRD) not in wanted(script)
    script(PieceArrived(SECOND, 2))
    assert wanted(script)[-1] == str(THIRD)


def test_what_is_begun_is_downloaded_although_nobody_reads_it() -> None:
    script = named(Script(limits=QUARTER).linked(), held=0b0111)
    assert script.receive(SwarmOpened(8, str(SECOND), SIZE, PIECE, TICKET))[-1] == OpenInStore(SECOND, SIZE, PIECE)


def test_the_client_that_comes_for_it_then_reads_at_once() -> None:
    script = named(Script(limits=QUARTER).linked(), held=0b0111)
    script.receive(SwarmOpened(8, str(SECOND), SIZE, PIECE, TICKET))
    script(StoreOpened(SECOND, 0b1111, 0b1111, False))
    assert of_type(script(BlobWanted(2, SECOND, SOURCE)), AnswerReader) == [AnswerReader(2)]
    assert wanted(script)[-1] == str(THIRD)


def test_each_layer_brings_one_more_and_none_that_was_asked_for() -> None:
    script = Script(limits=QUARTER).linked()
    script(ImageNamed(SOURCE, LAYERS), BlobWanted(2, SECOND, SOURCE), BlobWanted(3, THIRD, SOURCE))
    script.open(held=0b1111)
    script(DigestChecked(script.machine.state.blobs[DIGEST].check, True))
    assert wanted(script) == [str(SECOND), str(THIRD), str(DIGEST), str(FOURTH)]


def test_layers_before_the_one_that_is_asked_for_are_the_clients_already() -> None:
    script = Script(limits=QUARTER).linked()
    script(ImageNamed(SOURCE, (SECOND, DIGEST, THIRD)))
    script.open(held=0b0111)
    assert wanted(script) == [str(DIGEST), str(THIRD)]


def test_a_manifest_that_is_read_to_its_end_after_the_first_request_counts_the_same() -> None:
    script = Script(limits=QUARTER).linked().open(held=0b0111)
    script(ImageNamed(SOURCE, LAYERS), BlobWanted(2, DIGEST, SOURCE))
    assert wanted(script) == [str(DIGEST), str(SECOND)]


def test_a_client_of_another_source_brings_nothing() -> None:
    script = Script(limits=QUARTER).linked()
    script(ImageNamed(OTHER_SOURCE, LAYERS))
    script.open(held=0b0111)
    assert wanted(script) == [str(DIGEST)]


def test_a_layer_that_is_here_is_not_begun_again() -> None:
    script = Script(limits=QUARTER).linked()
    script(BlobFound(SECOND, SIZE, PIECE, 0b1111, True, (SOURCE,)))
    named(script, held=0b0111)
    assert wanted(script) == [str(DIGEST)]


def test_what_is_refused_ahead_of_the_client_is_forgotten_and_asked_for_again_with_it() -> None:
    script = named(Script(limits=QUARTER).linked(), held=0b0111)
    assert ForgetBlob(SECOND) in script.receive(BlobRefused(str(SECOND), "private", "wants a credential"))
    again = script(BlobWanted(2, SECOND, SOURCE))
    assert sent(again) == [Announce(str(SECOND), (SOURCE,), True, 0, 0, b"")]
    refused = script.receive(BlobRefused(str(SECOND), "private", "wants a credential"))
    assert of_type(refused, RefuseReader) == [RefuseReader(2, "private", "wants a credential")]


def test_without_a_supernode_nothing_is_begun() -> None:
    script = named(Script(limits=QUARTER).linked())
    script(LinkLost())
    sent_before = len(script.all)
    script(StoreOpened(DIGEST, 0b0111, 0b1111, False))
    assert not of_type(script.all[sent_before:], OpenInStore)
    assert SECOND not in script.machine.state.blobs


def test_of_many_images_the_latest_are_known() -> None:
    script = Script(limits=Limits(prefetch_part=0.25, images_max=2)).linked()
    named(script)
    for number in range(10, 12):
        script(ImageNamed(SOURCE, (Digest.of(bytes([number])),)))
    assert len(script.machine.state.images) == 2
    assert script.machine.state.images.source_of(DIGEST) is None
