"""A blob that a client reads and its node nearly has is finished before rarer pieces of other blobs come."""

from __future__ import annotations

import pytest

from supernode.scheduler import contract, receiver_selection
from tests.unit.supernode.scheduler.support import Playbook, grants, mask

# Nearly everybody holds its pieces; the other's are at one node alone.
COMMON, RARE = 1, 2
COPIER, READER = 1, 4
PIECES = 16


class TwoBlobs(Playbook):
    """Peers 1 to 3 hold the common blob, peer 1 the rare one too; peer 4 is being sent a first piece of that."""

    def __init__(self, reader_holds: str, *, common_pieces: int = PIECES) -> None:
        super().__init__()
        self.join(1, 2, 3, 4, rate=1000.0)
        for swarm, pieces in ((COMMON, common_pieces), (RARE, PIECES)):
            self.open("*" * pieces, swarm=swarm)
            self.tell(contract.PieceEvicted(swarm, contract.SEED, mask("*" * pieces)))
        self.hold(COPIER, "*" * PIECES, swarm=RARE)
        self.first = grants(self.want(READER, swarm=RARE))[0]
        self.want(READER, reader_holds, swarm=COMMON)
        for peer in (1, 2, 3):
            self.hold(peer, "*" * common_pieces, swarm=COMMON)

    def read(self, piece: int | None) -> None:
        """The client of the reading node waits for this piece of the common blob."""
        self.tell(contract.ReaderMoved(COMMON, READER, piece))

    def next_swarm(self) -> int:
        """Whose piece the reading node gets next, as its first one has come."""
        return grants(self.stored(self.first))[0].swarm


def test_the_last_piece_that_a_client_waits_for_comes_before_a_rarer_one_of_another_blob() -> None:
    blobs = TwoBlobs(reader_holds="*" * (PIECES - 1))
    blobs.read(PIECES - 1)
    assert blobs.next_swarm() == COMMON


@pytest.mark.parametrize("held", [PIECES - 1, PIECES // 2])
def test_rarer_pieces_come_first_while_nobody_waits_or_much_is_left(held: int) -> None:
    blobs = TwoBlobs(reader_holds="*" * held)
    blobs.read(None if held == PIECES - 1 else held)
    assert blobs.next_swarm() == RARE


def test_a_source_finishes_a_blob_for_a_client_before_it_sends_others_rarer_pieces() -> None:
    book = Playbook()
    book.join(1, READER, 5, rate=1000.0)
    # Two more hold the common blob, and can send nothing of it.
    for holder in (2, 3):
        book.tell(contract.PeerJoined(holder, "", 0, 8))
    book.open("*" * PIECES, swarm=COMMON)
    book.open("*" * PIECES, swarm=RARE)
    for swarm in (COMMON, RARE):
        book.tell(contract.PieceEvicted(swarm, contract.SEED, mask("*" * PIECES)))
    for holder in (1, 2, 3):
        book.hold(holder, "*" * PIECES, swarm=COMMON)
    book.hold(1, "*" * PIECES, swarm=RARE)
    running, ahead = grants(book.want(5, swarm=RARE))
    assert not grants(book.want(READER, "*" * (PIECES - 1), swarm=COMMON))
    book.tell(contract.ReaderMoved(COMMON, READER, PIECES - 1))
    granted = grants(book.stored(running) + book.stored(ahead))
    assert (granted[0].swarm, granted[0].receiver) == (COMMON, READER)


@pytest.mark.parametrize(("reads", "swarm"), [(PIECES - 1, COMMON), (None, RARE)])
def test_a_receiver_that_chooses_takes_the_last_piece_of_what_its_client_reads(reads: int | None, swarm: int) -> None:
    blobs = TwoBlobs(reader_holds="*" * (PIECES - 1))
    # Has room, and both.
    blobs.hold(2, "*" * PIECES, swarm=RARE)
    blobs.read(reads)
    core = blobs.scheduler.inspect()
    choice = receiver_selection.for_receiver(core, core.book.nodes[READER], seed_free=False)
    assert choice is not None
    assert choice[0].swarm.number == swarm


def test_a_blob_of_one_piece_comes_before_rarer_pieces_though_nobody_says_that_it_is_read() -> None:
    blobs = TwoBlobs(reader_holds=" ", common_pieces=1)
    assert blobs.next_swarm() == COMMON


def test_a_client_that_left_is_not_finished_for() -> None:
    blobs = TwoBlobs(reader_holds="*" * (PIECES - 1))
    blobs.read(PIECES - 1)
    blobs.read(None)
    assert blobs.next_swarm() == RARE


def test_a_node_that_comes_in_the_place_of_a_lost_one_finishes_nothing() -> None:
    blobs = TwoBlobs(reader_holds="*" * (PIECES - 1))
    blobs.read(PIECES - 1)
    blobs.tell(contract.PeerLost(READER, "gone"))
    blobs.join(5, rate=1000.0)
    blobs.want(5, "*" * (PIECES - 1), swarm=COMMON)
    assert not blobs.scheduler.inspect().book.finishing
