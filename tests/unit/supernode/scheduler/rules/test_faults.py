"""Rule 9: what follows a failed or expired lease."""

from __future__ import annotations

import pytest

from supernode.scheduler import contract
from supernode.scheduler.contract import (
    SEED,
    CancelLease,
    FailReason,
    QuarantinePeer,
)
from supernode.scheduler.rules import faults, link_rates
from tests.unit.supernode.scheduler.support import PIECE_BYTES, SWARM, Playbook, grants, only_grant, routes

# A piece takes a second at this rate, and twenty at that of the slow node.
RATE = float(PIECE_BYTES)


SLOW_RATE = RATE / 20


@pytest.mark.parametrize(
    "reason", [FailReason.CONNECTION, FailReason.TIMEOUT, FailReason.PROTOCOL, FailReason.NOT_HELD, FailReason.BUSY]
)
def test_a_failed_piece_is_fetched_elsewhere(reason: FailReason) -> None:
    play = Playbook()
    play.join(1, 2, 3)
    play.open_at_peers(1)
    play.hold(1, "*")
    play.hold(2, "*")
    lease = only_grant(play.want(3))
    assert routes(play.tell(contract.FetchFailed(lease.lease_id, reason))) == [(0, 3 - lease.source, 3)]
    assert play.scheduler.counters[f"failed_{reason.value}"] == 1


def test_a_busy_source_is_asked_again_shortly() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open_at_peers(1)
    play.hold(1, "*")
    lease = only_grant(play.want(2))
    assert play.tell(contract.FetchFailed(lease.lease_id, FailReason.BUSY)) == []
    assert routes(play.wake()) == [(0, 1, 2)]
    assert play.now == pytest.approx(play.scheduler.settings.busy_backoff_s)
    assert play.scheduler.inspect().nodes[1].faults == 0


def test_the_only_holder_is_tried_again_after_a_fault() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open_at_peers(1)
    play.hold(1, "*")
    lease = only_grant(play.want(2))
    assert grants(play.tell(contract.FetchFailed(lease.lease_id, FailReason.CONNECTION))) == []
    assert routes([play.wake_until(contract.GrantLease)]) == [(0, 1, 2)]


def test_a_receiver_in_trouble_is_left_alone_for_a_while() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open_at_peers(1)
    play.hold(1, "*")
    lease = only_grant(play.want(2))
    assert play.tell(contract.FetchFailed(lease.lease_id, FailReason.LOCAL)) == []
    play.wake_until(contract.GrantLease)
    assert play.now >= play.scheduler.settings.local_backoff_s


def test_a_peer_that_served_corrupt_bytes_is_quarantined_and_its_copies_ignored() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open_at_peers(2)
    play.hold(1, "**")
    leases = grants(play.want(2))
    commands = play.tell(contract.FetchFailed(leases[0].lease_id, FailReason.CORRUPT))
    assert [command.peer for command in commands if isinstance(command, QuarantinePeer)] == [1]
    assert {command.lease_id for command in commands if isinstance(command, CancelLease)} == {
        lease.lease_id for lease in leases[1:]
    }
    assert [command.pieces for command in commands if isinstance(command, contract.FetchFromOrigin)] == [0b11]
    assert grants(commands) == []


def test_a_quarantined_peer_may_still_fetch() -> None:
    play = Playbook()
    play.join(1, 2, 3)
    play.open_at_peers(2)
    play.hold(1, "*.")
    play.hold(3, ".*")
    lease = next(lease for lease in grants(play.want(2)) if lease.source == 1)
    play.tell(contract.FetchFailed(lease.lease_id, FailReason.CORRUPT))
    assert (1, 3, 1) in routes(play.want(1, "*."))


def test_the_seed_is_never_quarantined() -> None:
    play = Playbook()
    play.join(1)
    play.open("*")
    lease = only_grant(play.want(1))
    assert play.tell(contract.FetchFailed(lease.lease_id, FailReason.CORRUPT)) == []
    assert routes([play.wake_until(contract.GrantLease)]) == [(0, SEED, 1)]


def test_silence_ends_a_lease_and_its_late_success_still_counts() -> None:
    play = Playbook()
    play.join(1)
    play.open("*.")
    lease = only_grant(play.want(1))
    cancelled = play.wake_until(CancelLease)
    assert isinstance(cancelled, CancelLease)
    assert (cancelled.lease_id, cancelled.reason) == (lease.lease_id, "expired")
    assert play.now > lease.expires_in_s
    play.tell(contract.PieceStored(SWARM, 1, 0, lease.lease_id, 40.0))
    assert play.scheduler.inspect().swarms[SWARM].members[1].have == 0b01
    assert (play.scheduler.counters["expired"], play.scheduler.counters["late"]) == (1, 1)


def test_two_slow_transfers_deprioritize_a_node_one_does_not() -> None:
    play = Playbook()
    play.join(1)
    state = play.scheduler.inspect()
    node = state.nodes[1]
    state.typical_rate = RATE
    link_rates.learn(node.up, SLOW_RATE, 1.0, 1.0, 0.0)
    faults.rank_source(state, node)
    assert not state.deprioritized
    link_rates.learn(node.up, SLOW_RATE, 1.0, 1.0, 0.0)
    faults.rank_source(state, node)
    assert state.deprioritized == node.bit


def test_who_becomes_slow_wakes_those_that_may_now_fetch_from_slow_nodes() -> None:
    play = Playbook()
    play.join(1, 2, 3)
    play.open_at_peers(8)
    play.hold(1, "********")
    play.hold(2, "********")
    play.want(3)
    state = play.scheduler.inspect()
    state.down.room |= state.nodes[3].bit
    state.nodes[1].faults = state.settings.faults_deprioritized
    faults.rank_source(state, state.nodes[1])
    assert state.nodes[3].down.woken
