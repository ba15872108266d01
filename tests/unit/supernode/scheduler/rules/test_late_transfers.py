"""Rule 8: late transfers make way, and a second source races for their piece."""

from __future__ import annotations

from supernode.scheduler import contract
from supernode.scheduler.contract import (
    SEED,
    CancelLease,
    GrantLease,
    PieceEvicted,
)
from supernode.scheduler.rules import link_rates
from tests.unit.supernode.scheduler.support import PIECE_BYTES, Playbook, grants, mask

# A piece takes a second at this rate, and twenty at that of the slow node.
RATE = float(PIECE_BYTES)


def grants_until(play: Playbook, until_s: float) -> list[tuple[float, GrantLease]]:
    """Leases, with their times, while no transfer ends."""
    found = []
    while (due := play.scheduler.next_wakeup()) is not None and due <= until_s:
        found += [(play.now, lease) for lease in grants(play.wake())]
    play.now = until_s
    return found


def test_a_second_source_races_a_transfer_that_is_long_overdue() -> None:
    play = Playbook()
    play.join(1, 2, 3)
    play.open_at_peers(2)
    play.hold(1, "**")
    play.hold(2, "**")
    leases = grants(play.want(3))
    while len(leases) < 2:
        leases += grants(play.wake())
    leases += grants(play.stored(leases.pop(0), elapsed_s=1.0))
    slow = leases[-1]
    racer = play.wake_until(contract.GrantLease)
    assert isinstance(racer, contract.GrantLease)
    assert (racer.piece, racer.receiver, racer.source) == (slow.piece, 3, 3 - slow.source)
    assert [command.lease_id for command in play.stored(racer) if isinstance(command, CancelLease)] == [slow.lease_id]


def test_a_link_that_turns_out_to_carry_less_takes_more_at_once() -> None:
    play = Playbook()
    sources = (1, 4, 5, 6)
    play.join(*sources, 3, rate=10.0 * RATE)
    play.join(2)
    link_rates.learn(play.scheduler.inspect().nodes[2].down, 10.0 * RATE, 1.0, 1.0, 0.0)
    play.open_at_peers(4)
    everything = "*" * 12
    play.open(everything, swarm=2)
    play.tell(PieceEvicted(2, SEED, mask(everything)))
    for source in sources:
        play.hold(source, everything, swarm=2)
    play.want(2, swarm=2)
    # Each is given up on after three times its time, and counts for a third at most from then on.
    grants_until(play, 2.5)
    stuck = list(play.scheduler.inspect().leases.values())
    assert [lease.stalled for lease in stuck] == [True] * 3
    idle = set(sources) - {lease.source.peer for lease in stuck}
    play.hold(stuck[0].source.peer, "****")
    beside = grants(play.want(3))[0]
    assert beside.source == stuck[0].source.peer
    # When that one ends, the transfer beside it is seen to take far less still.
    granted = grants(play.stored(beside, elapsed_s=0.1))
    assert {lease.source in idle for lease in granted if lease.receiver == 2} == {True}
