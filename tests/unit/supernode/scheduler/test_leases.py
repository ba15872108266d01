"""Leases as transcripts: what is granted to whom, and what follows from each outcome."""

from __future__ import annotations

import pytest

from supernode.scheduler import contract
from supernode.scheduler.contract import SEED, CancelLease, FailReason, QuarantinePeer
from tests.unit.supernode.scheduler.support import SWARM, Playbook, grants, mask, only_grant, routes


def test_a_piece_is_leased_the_moment_the_seed_has_it() -> None:
    play = Playbook()
    play.join(1)
    play.open("...")
    play.want(1)
    assert routes(play.seed_gets(0)) == [(0, SEED, 1)]


def test_a_lone_reader_has_one_transfer_and_one_ahead() -> None:
    play = Playbook()
    play.join(1)
    play.open("...")
    play.want(1)
    first = only_grant(play.seed_gets(0))
    second = only_grant(play.seed_gets(1, after_s=0.9))
    assert (first.ahead, second.ahead) == (False, True)
    assert play.seed_gets(2, after_s=0.05) == []
    third = only_grant(play.stored(first, elapsed_s=1.0))
    assert (third.piece, third.ahead) == (2, True)


def test_first_copies_go_before_second_ones() -> None:
    play = Playbook()
    play.join(1, 2, 3)
    play.open("***")
    leases = [lease for peer in (1, 2, 3) for lease in grants(play.want(peer))]
    pieces: list[int] = []
    while len(pieces) < 3:
        lease = leases.pop(0)
        if lease.source == SEED:
            pieces.append(lease.piece)
        leases += grants(play.stored(lease, elapsed_s=0.1))
    assert sorted(pieces) == [0, 1, 2]


def test_a_peer_passes_on_what_it_has_just_stored() -> None:
    play = Playbook()
    play.join(1, 2, rate=1000.0)
    play.open(".")
    play.want(1)
    play.want(2)
    first = only_grant(play.seed_gets(0))
    assert routes(play.stored(first)) == [(0, first.receiver, 3 - first.receiver)]


def test_no_source_is_given_a_second_upload_while_another_has_none() -> None:
    play = Playbook()
    play.join(1, 2, 3)
    play.open_at_peers(4)
    play.hold(1, "****")
    play.hold(2, "****")
    assert {lease.source for lease in grants(play.want(3))} == {1, 2}


def test_the_nearest_holder_serves() -> None:
    play = Playbook()
    play.join(1, zone="r/z/far")
    play.join(2, zone="r/z/near")
    play.join(3, zone="r/z/near")
    play.open_at_peers(1)
    play.hold(1, "*")
    play.hold(2, "*")
    assert routes(play.want(3)) == [(0, 2, 3)]


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


def test_after_a_time_out_the_node_gets_twice_the_time() -> None:
    play = Playbook()
    play.join(1)
    play.open("*")
    first = only_grant(play.want(1))
    play.wake_until(CancelLease)
    again = play.wake_until(contract.GrantLease)
    assert isinstance(again, contract.GrantLease)
    assert again.expires_in_s == 2 * first.expires_in_s


def test_a_readers_next_piece_comes_first() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("........")
    play.hold(2, "********")
    play.tell(contract.PeerAnnounced(SWARM, 1, mask("******.."), False), contract.ReaderMoved(SWARM, 1, 6))
    assert grants(play.want(1, "*****..."))[0].piece in (6, 7)


def test_an_inline_blob_goes_to_all_who_want_it_at_once() -> None:
    play = Playbook(seed_slots=1)
    play.join(1, 2, 3)
    play.open(".", inline=True)
    for peer in (1, 2, 3):
        play.want(peer)
    leases = grants(play.seed_gets(0))
    assert [(lease.receiver, lease.source, lease.inline, lease.ahead) for lease in leases] == [
        (peer, SEED, True, False) for peer in (1, 2, 3)
    ]
    play.join(4)
    assert only_grant(play.want(4)).inline


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
    assert play.scheduler.inspect().book.nodes[1].faults == 0


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


def test_losing_a_source_cancels_its_leases_and_grants_others() -> None:
    play = Playbook()
    play.join(1, 2, 3)
    play.open_at_peers(1)
    play.hold(1, "*")
    play.hold(2, "*")
    lease = only_grant(play.want(3))
    commands = play.tell(contract.PeerLost(lease.source, "gone"))
    assert [command.lease_id for command in commands if isinstance(command, CancelLease)] == [lease.lease_id]
    assert routes(commands) == [(0, 3 - lease.source, 3)]


def test_a_new_announcement_replaces_what_was_known() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open_at_peers(4)
    play.hold(1, "****")
    play.hold(1, "*...")
    assert {lease.piece for lease in grants(play.want(2))} == {0}


def test_a_source_that_evicts_a_piece_is_no_source_of_it_any_more() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open_at_peers(1)
    play.hold(1, "*")
    lease = only_grant(play.want(2))
    commands = play.tell(contract.PieceEvicted(SWARM, 1, 0b1))
    assert CancelLease(lease.lease_id, 2, "source evicted it") in commands
    assert any(isinstance(command, contract.FetchFromOrigin) for command in commands)


def test_a_voided_swarm_is_forgotten_by_all_and_begins_afresh() -> None:
    play = Playbook()
    play.join(1)
    play.open("**")
    leases = grants(play.want(1))
    commands = play.tell(contract.SwarmVoided(SWARM))
    assert {command.lease_id for command in commands if isinstance(command, CancelLease)} == {
        lease.lease_id for lease in leases
    }
    assert [command.pieces for command in play.want(1) if isinstance(command, contract.FetchFromOrigin)] == [0b11]


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


def test_nonsense_is_ignored_and_told() -> None:
    play = Playbook()
    events: list[contract.Event] = [
        contract.PeerLost(9, "unknown"),
        contract.PeerLost(SEED, "never"),
        contract.PeerAnnounced(9, 9, 1, True),
        contract.PeerWithdrew(9, 9),
        contract.PieceStored(9, 9, 0, 77),
        contract.FetchFailed(77, FailReason.TIMEOUT),
        contract.PieceEvicted(9, 9, 1),
        contract.ReaderMoved(9, 9, 0),
        contract.OriginEnded(5, 9, True),
        contract.OriginTried(9, 9, True),
        contract.RecoveryPeerReturned(9, 9),
        contract.SwarmVoided(9),
        contract.SwarmClosed(9),
        contract.Wakeup(),
    ]
    assert play.tell(*events) == []
    # All but the Wakeup.
    assert len(play.scheduler.ignored()) == play.scheduler.counters["ignored"] == len(events) - 1


def test_the_story_of_a_piece_says_what_became_of_it() -> None:
    play = Playbook()
    play.join(1)
    play.open(".*")
    play.want(1)
    lease = only_grant(play.seed_gets(0)) if not play.scheduler.leases_in_flight else None
    play.tell(contract.FetchFailed(1 << 40 | 1, FailReason.CONNECTION))
    story = "\n".join(play.scheduler.story(SWARM, 1))
    assert "lease 10000000001: 0 -> 1" in story
    assert "failed: connection" in story
    assert lease is None


def test_a_report_of_hardly_any_time_says_nothing_of_a_link() -> None:
    play = Playbook()
    play.join(1)
    play.open("**")
    (lease, *_) = grants(play.want(1))
    play.tell(contract.PieceStored(lease.swarm, lease.receiver, lease.piece, lease.lease_id, 5e-324))
    book = play.scheduler.inspect().book
    assert book.typical_flow is None
    assert book.nodes[1].down.carries is None


@pytest.mark.parametrize(
    ("rate", "receiver"), [(1900.0, 3), (9000.0, 2)], ids=["like rates: who lacks more", "unlike: who needs longer"]
)
def test_of_two_nodes_the_needier_one_gets_the_piece(rate: float, receiver: int) -> None:
    play = Playbook()
    play.join(1, 2, rate=1000.0)
    play.join(3, rate=rate)
    play.open_at_peers(4)
    # Node 3 lacks one more, and takes less time for each.
    for peer, held in ((2, "*   "), (3, "")):
        play.hold(peer, held)
        play.want(peer, held)
    first = grants(play.hold(1, "   *"))[0]
    assert (first.source, first.receiver) == (1, receiver)
