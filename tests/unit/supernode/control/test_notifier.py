"""What members are told of others, and how often how the origin does is repeated to them."""

from __future__ import annotations

from proto.ids import peer_name
from proto.owners import owners
from proto.wire.messages import Holders, OriginStatus
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


def test_all_who_wait_for_a_blob_know_its_owners_at_any_time() -> None:
    bench = Bench()
    swarm = bench.open(b"blob", pieces=3)
    inside = {}
    for _ in range(12):
        session = bench.join()
        inside[peer_name(session.info.peer)] = session
        bench.enter(session, swarm)
        owned_by = {inside[name].node for name in owners(swarm.digest, inside)}
        for other in inside.values():
            named = [{other.node, *holders.nodes} for holders in bench.heard(other).of(Holders)]
            assert owned_by <= (named[-1] if named else {other.node})
