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
from supernode.scheduler.settings import STALLED_MAX
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


def test_what_takes_a_millisecond_is_not_late_while_a_busy_node_may_be_telling_its_end() -> None:
    fast, play = 1000.0 * RATE, Playbook()
    play.join(1, 2, 3, rate=fast)
    play.open_at_peers(8)
    for source in (1, 2):
        play.hold(source, "*" * 8)
    play.want(3)
    grants_until(play, 0.09)
    leases = play.scheduler.inspect().leases
    assert [lease.stalled for lease in leases.values()] == [False] * len(leases)
    assert play.scheduler.counters["cancelled"] == 0
    grants_until(play, 0.2)
    assert any(lease.stalled for lease in leases.values())


def test_a_link_that_turns_out_to_carry_less_takes_more_at_once() -> None:
    play = Playbook()
    sources = (1, 4, 5, 6)
    play.join(*sources, 3, rate=10.0 * RATE)
    play.join(2)
    receiver = play.scheduler.inspect().nodes[2]
    link_rates.learn(receiver.down, 10.0 * RATE, 1.0, 1.0, 0.0)
    receiver.received = True
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


class Takers:
    """Two nodes got a small blob from the seed; eight others want a large one, and take nothing of what they get."""

    honest = (1, 2)
    takers = range(3, 11)
    later = 3

    def __init__(self) -> None:
        self.play = Playbook()
        self.play.join(*self.honest)
        self.play.open("****")
        self._carry([lease for node in self.honest for lease in grants(self.play.want(node))], 100.0)
        self.play.join(*self.takers)
        self.play.open("*" * 32, swarm=2)
        for node in self.takers:
            self.play.want(node, swarm=2)

    def pull(self, within_s: float) -> None:
        """The honest nodes want another blob, and take each piece in a hundredth of a second."""
        self.play.open("*" * 32, swarm=self.later)
        leases = [lease for node in self.honest for lease in grants(self.play.want(node, swarm=self.later))]
        self._carry(leases, self.play.now + within_s)

    def _carry(self, leases: list[GrantLease], until_s: float) -> None:
        running = [(self.play.now + 0.01, lease) for lease in leases]
        while (due := self.play.scheduler.next_wakeup()) is not None and min(due, *_ends(running)) <= until_s:
            if min(_ends(running)) > due:
                commands = self.play.wake()
            else:
                end = min(running, key=lambda one: one[0])
                running.remove(end)
                self.play.now = max(self.play.now, end[0])
                commands = self.play.stored(end[1], elapsed_s=0.0)
            running += [(self.play.now + 0.01, lease) for lease in grants(commands) if lease.receiver in self.honest]

    def held(self) -> list[int]:
        """By the honest nodes, of the later blob."""
        members = self.play.scheduler.inspect().swarms[self.later].members
        return [members[node].have.bit_count() for node in self.honest]


def _ends(running: list[tuple[float, GrantLease]]) -> list[float]:
    return [end_s for end_s, _ in running] or [float("inf")]


def test_nodes_that_take_nothing_of_what_they_want_hold_up_nobody_for_long() -> None:
    scene = Takers()
    scene.pull(within_s=3.0)
    assert scene.held() == [32, 32]


def test_one_that_never_got_anything_has_few_overdue_transfers_at_a_time() -> None:
    scene = Takers()
    grants_until(scene.play, scene.play.now + 3.0)
    nodes = scene.play.scheduler.inspect().nodes
    assert [len(nodes[node].down.leases) for node in scene.takers] == [STALLED_MAX] * len(scene.takers)
    # They take no slot from others.
    assert nodes[SEED].up.chains > nodes[SEED].up.slots
    assert nodes[SEED].up.has_room
