"""Rule 4: which piece goes next, from whom and to whom."""

from __future__ import annotations

from tests.unit.supernode.scheduler.support import Playbook, grants, only_grant, routes


def test_the_nearest_holder_serves() -> None:
    play = Playbook()
    play.join(1, zone="r/z/far")
    play.join(2, zone="r/z/near")
    play.join(3, zone="r/z/near")
    play.open_at_peers(1)
    play.hold(1, "*")
    play.hold(2, "*")
    assert routes(play.want(3)) == [(0, 2, 3)]


def test_a_peer_passes_on_what_it_has_just_stored() -> None:
    play = Playbook()
    play.join(1, 2, rate=1000.0)
    play.open(".")
    play.want(1)
    play.want(2)
    first = only_grant(play.seed_gets(0))
    assert routes(play.stored(first)) == [(0, first.receiver, 3 - first.receiver)]


def test_of_many_nodes_the_one_that_lacks_the_most_gets_the_piece() -> None:
    play = Playbook()
    play.join(1, 2, 3, 4, 5, 6, rate=1000.0)
    # Has room for one more beside what the others send it.
    play.join(7, rate=1900.0)
    play.open_at_peers(4)
    for peer, held in ((2, "*   "), (3, "*   "), (4, "*   "), (5, "*   "), (6, "*   "), (7, "")):
        play.hold(peer, held)
        play.want(peer, held)
    first = grants(play.hold(1, "   *"))[0]
    assert (first.source, first.receiver) == (1, 7)
