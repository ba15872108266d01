"""Rule 9: what follows a failed or expired lease."""

from __future__ import annotations

from typing import cast

import pytest

from supernode.scheduler import contract
from supernode.scheduler.contract import (
    SEED,
    CancelLease,
    FailReason,
)
from supernode.scheduler.rules import faults, link_rates
from tests.unit.supernode.scheduler.support import PIECE_BYTES, SWARM, Playbook, fetched, grants, only_grant, routes

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


def test_a_quarantined_peers_copies_are_ignored() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open_at_peers(2)
    play.hold(1, "**")
    leases = grants(play.want(2))
    commands = play.tell(contract.PeerQuarantined(1, "corrupt"))
    assert {command.lease_id for command in commands if isinstance(command, CancelLease)} == {
        lease.lease_id for lease in leases
    }
    assert [command.pieces for command in commands if isinstance(command, contract.FetchFromOrigin)] == [0b11]
    assert grants(commands) == []


def test_a_quarantined_peer_may_still_fetch() -> None:
    play = Playbook()
    play.join(1, 2, 3)
    play.open_at_peers(2)
    play.hold(1, "*.")
    play.hold(3, ".*")
    play.want(2)
    play.tell(contract.PeerQuarantined(1, "corrupt"))
    assert (1, 3, 1) in routes(play.want(1, "*."))


def test_after_its_quarantine_a_peer_is_a_source_again() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open_at_peers(1)
    play.hold(1, "*")
    play.tell(contract.PeerQuarantined(1, "corrupt"))
    play.tell(contract.QuarantineEnded(1))
    assert routes(play.want(2)) == [(0, 1, 2)]


def test_what_a_peer_announces_while_it_is_put_aside_counts_after_that() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open_at_peers(1)
    play.tell(contract.PeerQuarantined(1, "corrupt"))
    play.hold(1, "*")
    play.tell(contract.QuarantineEnded(1))
    assert routes(play.want(2)) == [(0, 1, 2)]


def test_the_seed_is_never_quarantined() -> None:
    play = Playbook()
    play.join(1)
    play.open("*")
    assert play.tell(contract.PeerQuarantined(SEED, "corrupt")) == []
    assert routes(play.want(1)) == [(0, SEED, 1)]


def test_what_one_receiver_alone_says_is_between_it_and_the_source() -> None:
    play = Playbook()
    play.join(1, 2, 3)
    play.open_at_peers(1)
    play.hold(1, "*")
    lease = only_grant(play.want(2))
    assert grants(play.tell(contract.FetchFailed(lease.lease_id, FailReason.DISPUTED))) == []
    assert play.scheduler.inspect().nodes[1].faults == 0
    assert routes(play.want(3)) == [(0, 1, 3)]


@pytest.mark.parametrize("reason", [FailReason.BUSY, FailReason.DISPUTED])
def test_a_pair_backs_off_for_twice_as_long_each_time(reason: FailReason) -> None:
    play = Playbook()
    play.join(1, 2, 3)
    play.open_at_peers(2)
    play.hold(1, "**")
    play.has_served(1)
    play.want(3, "*.")
    lease = only_grant(play.want(2, "*."))
    waited = []
    for _ in range(3):
        began = play.now
        play.tell(contract.FetchFailed(lease.lease_id, reason))
        lease = cast("contract.GrantLease", play.wake_until(contract.GrantLease))
        waited.append(play.now - began)
    assert waited[1] == pytest.approx(2 * waited[0])
    assert waited[2] == pytest.approx(4 * waited[0])


def test_a_source_that_fails_everybody_who_wants_the_blob_is_counted_on_no_more() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open_at_peers(1)
    play.hold(1, "*")
    lease = only_grant(play.want(2))
    commands: list[contract.Command] = []
    play.has_served(1)
    for _ in range(play.scheduler.settings.faults_given_up):
        commands = play.tell(contract.FetchFailed(lease.lease_id, FailReason.DISPUTED))
        if any(isinstance(command, contract.FetchFromOrigin) for command in commands):
            break
        lease = cast("contract.GrantLease", play.wake_until(contract.GrantLease))
    assert [command.pieces for command in commands if isinstance(command, contract.FetchFromOrigin)] == [0b1]


def silence(play: Playbook, lease: contract.GrantLease) -> list[contract.Command]:
    """The receiver waited in vain for all of the lease's time, and the source never gave anything to anybody."""
    assert lease.expires_in_s == play.scheduler.settings.expiry_unserved_s
    return play.tell(contract.FetchFailed(lease.lease_id, FailReason.DISPUTED), after_s=lease.expires_in_s)


def test_what_a_silent_node_alone_holds_is_asked_of_the_origin_at_once() -> None:
    play = Playbook()
    play.join(1, 2, 3)
    play.open_at_peers(2)
    play.hold(1, "**")
    first, _ = grants(play.want(2))
    play.want(3)
    assert fetched(silence(play, first)) == 0b11


def test_what_several_silent_nodes_hold_is_asked_of_the_origin_after_the_last() -> None:
    play = Playbook()
    play.join(1, 2, 3)
    play.open_at_peers(1)
    play.hold(1, "*")
    play.hold(2, "*")
    after_first = silence(play, only_grant(play.want(3)))
    assert fetched(after_first) == 0
    assert fetched(silence(play, only_grant(after_first))) == 0b1


def test_a_silent_node_counts_again_when_it_announces_again() -> None:
    play = Playbook()
    play.join(1, 2, 3)
    play.open_at_peers(1)
    play.hold(1, "*")
    silence(play, only_grant(play.want(2)))
    play.hold(1, "*")
    assert routes(play.want(3)) == [(0, 1, 3)]


def test_one_that_gave_something_is_asked_again_after_a_silence() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open_at_peers(2)
    play.hold(1, "**")
    first, second = grants(play.want(2))
    play.stored(first)
    failed = play.tell(contract.FetchFailed(second.lease_id, FailReason.DISPUTED), after_s=second.expires_in_s)
    assert fetched(failed) == 0
    assert isinstance(play.wake_until(contract.GrantLease), contract.GrantLease)


def test_of_one_that_never_gave_anything_two_failures_are_enough() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open_at_peers(1)
    play.hold(1, "*")
    lease = only_grant(play.want(2))
    assert fetched(play.tell(contract.FetchFailed(lease.lease_id, FailReason.DISPUTED))) == 0
    again = cast("contract.GrantLease", play.wake_until(contract.GrantLease))
    assert again.expires_in_s == lease.expires_in_s
    assert fetched(play.tell(contract.FetchFailed(again.lease_id, FailReason.DISPUTED))) == 0b1


@pytest.mark.parametrize("reason", [FailReason.BUSY, FailReason.LOCAL, FailReason.TICKET])
def test_one_that_never_gave_anything_is_not_given_up_for_what_is_no_fault_of_its_own(reason: FailReason) -> None:
    play = Playbook()
    play.join(1, 2)
    play.open_at_peers(1)
    play.hold(1, "*")
    lease = only_grant(play.want(2))
    for _ in range(play.scheduler.settings.unserved_given_up):
        assert fetched(play.tell(contract.FetchFailed(lease.lease_id, reason))) == 0
        lease = cast("contract.GrantLease", play.wake_until(contract.GrantLease))


def test_the_first_transfer_from_a_node_has_the_longer_the_larger_its_piece() -> None:
    play = Playbook()
    play.join(1, 2)
    settings = play.scheduler.settings
    expiries = []
    for swarm, seconds in enumerate((1.0, 20.0, 1000.0), start=1):
        size_bytes = int(seconds * settings.unserved_rate_bytes_s)
        play.tell(contract.SwarmOpened(swarm, size_bytes, size_bytes, seed_held=1))
        play.tell(contract.PieceEvicted(swarm, SEED, 1))
        play.tell(contract.PeerAnnounced(swarm, 1, 1, False))
        lease = only_grant(play.tell(contract.PeerAnnounced(swarm, 2, 0, True)))
        expiries.append(lease.expires_in_s)
        play.tell(contract.PeerWithdrew(swarm, 2))
    assert expiries == [settings.expiry_unserved_s, 20.0, settings.expiry_unknown_s]


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
