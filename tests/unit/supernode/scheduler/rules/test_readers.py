"""Rule 7: what a client waits for comes early."""

from __future__ import annotations

from supernode.scheduler import contract
from supernode.scheduler.contract import SEED
from tests.unit.supernode.scheduler.support import SWARM, Playbook, grants, mask, routes


def test_a_readers_next_piece_comes_first() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("........")
    play.hold(2, "********")
    play.tell(contract.PeerAnnounced(SWARM, 1, mask("******.."), False), contract.ReaderMoved(SWARM, 1, 6))
    assert grants(play.want(1, "*****..."))[0].piece in (6, 7)


def test_who_reads_ranges_is_sent_nothing_but_their_pieces() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("........")
    play.hold(2, "********")
    commands = play.read(1, "...*....")
    assert (3, 2, 1) in routes(commands)
    (lease,) = [lease for lease in grants(commands) if lease.receiver == 1]
    assert [route for route in routes(play.stored(lease)) if route[2] != SEED] == []


def test_the_seed_takes_of_it_what_is_read_and_no_more() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("........")
    play.hold(2, "********")
    play.read(1, "...*....")
    assert play.scheduler.inspect().swarms[SWARM].seed.need & ~mask("...*....") == 0


def test_what_a_node_reads_by_ranges_comes_before_all_else_that_it_wants() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("................")
    play.hold(2, "****************")
    (first,) = [lease for lease in grants(play.want(1)) if lease.receiver == 1]
    asked = 15 if first.piece != 15 else 14
    play.tell(contract.PiecesWanted(SWARM, 1, 1 << asked))
    assert next(piece for piece, _, receiver in routes(play.stored(first)) if receiver == 1) == asked


def test_who_asks_for_the_whole_after_ranges_gets_it() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("....")
    play.hold(2, "****")
    lease = next(lease for lease in grants(play.read(1, "*...")) if lease.receiver == 1)
    play.stored(lease)
    (following,) = [lease for lease in grants(play.want(1, "*...")) if lease.receiver == 1]
    assert following.piece != 0
