"""Rule 6: one copy of a piece into a rack, and the rest from within."""

from __future__ import annotations

from supernode.scheduler import contract
from supernode.scheduler.contract import (
    FailReason,
)
from supernode.scheduler.rules import faults
from tests.unit.supernode.scheduler.support import PIECE_BYTES, Playbook, grants, only_grant, routes


def test_one_copy_of_a_piece_enters_a_rack_at_a_time() -> None:
    play = Playbook()
    play.join(1, 2, zone="r/z/a")
    play.join(3, 4)
    play.open_at_peers(1)
    play.hold(3, "*")
    play.hold(4, "*")
    first = only_grant(play.want(1))
    assert grants(play.want(2)) == []
    assert routes(play.stored(first)) == [(0, 1, 2)]


def test_the_rest_of_the_rack_is_served_when_its_first_copy_fails() -> None:
    play = Playbook()
    play.join(1, 2, zone="r/z/a")
    play.join(3, 4)
    play.open_at_peers(1)
    play.hold(3, "*")
    play.hold(4, "*")
    first = only_grant(play.want(1))
    play.want(2)
    again = only_grant(play.tell(contract.FetchFailed(first.lease_id, FailReason.CONNECTION)))
    assert again.receiver in (1, 2)
    assert (again.receiver, again.source) != (1, first.source)


def test_the_rest_of_the_rack_is_served_when_its_first_copy_is_at_a_node_in_quarantine() -> None:
    play = Playbook()
    play.join(1, 2, zone="r/z/a")
    play.join(3, 4)
    play.open_at_peers(1)
    play.hold(3, "*")
    failing = only_grant(play.want(2))
    play.want(1)
    # Not from there again for a while; the other source looks for nobody by itself.
    first = only_grant(play.tell(contract.FetchFailed(failing.lease_id, FailReason.CONNECTION)))
    assert (first.receiver, first.source) == (1, 3)
    assert grants(play.hold(4, "*")) == []
    assert grants(play.tell(contract.PeerQuarantined(1, "corrupt"))) == []
    assert routes(play.stored(first, elapsed_s=0.1)) == [(0, 4, 2)]


def test_what_a_rack_holds_its_nodes_take_from_outside_only_after_a_long_wait() -> None:
    play = Playbook()
    play.join(1, 2, 4, zone="r/z/a")
    play.join(3)
    play.open_at_peers(1)
    play.want(2)
    play.want(4)
    served = only_grant(play.hold(1, "*")).receiver
    assert grants(play.hold(3, "*")) == []
    assert routes([play.wake_until(contract.GrantLease)]) == [(0, 3, 6 - served)]
    assert play.now >= play.scheduler.settings.rack_patience_s


# A piece takes a second at this rate, and twenty at that of the slow node.
RATE = float(PIECE_BYTES)


def test_what_a_rack_has_at_a_slow_node_alone_comes_from_that_one() -> None:
    play = Playbook()
    play.join(1, 2, zone="r/z/a", rate=RATE)
    play.join(3, 4, zone="r/z/b", rate=RATE)
    play.open_at_peers(1)
    slow = play.scheduler.inspect().nodes[1]
    slow.faults = 2
    faults.rank_source(play.scheduler.inspect(), slow)
    for holder in (1, 3, 4):
        play.hold(holder, "*")
    assert only_grant(play.want(2)).source == 1
