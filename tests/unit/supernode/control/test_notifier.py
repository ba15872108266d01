"""How the origin does is repeated to a member until a piece that it got says that we get on."""

from __future__ import annotations

from proto.wire.messages import OriginStatus
from tests.unit.supernode.control.bench import Bench


def test_how_the_origin_does_is_repeated_to_those_who_got_nothing_meanwhile() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob", pieces=3)
    bench.enter(session, swarm)
    member = swarm.members[session.node]

    def statuses() -> int:
        bench.heard(session).heard.clear()
        bench.handler.refresh(session)
        return len(bench.heard(session).of(OriginStatus))

    swarm.fetch_began(1)
    assert (statuses(), statuses()) == (1, 1)
    member.held |= 1
    assert (statuses(), statuses()) == (0, 1)
    member.held |= 2
    swarm.elect(None)
    assert statuses() == 1
