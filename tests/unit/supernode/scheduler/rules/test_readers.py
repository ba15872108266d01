"""Rule 7: what a client waits for comes early."""

from __future__ import annotations

from supernode.scheduler import contract
from tests.unit.supernode.scheduler.support import SWARM, Playbook, grants, mask


def test_a_readers_next_piece_comes_first() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("........")
    play.hold(2, "********")
    play.tell(contract.PeerAnnounced(SWARM, 1, mask("******.."), False), contract.ReaderMoved(SWARM, 1, 6))
    assert grants(play.want(1, "*****..."))[0].piece in (6, 7)
