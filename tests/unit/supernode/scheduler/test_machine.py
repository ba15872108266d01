"""The machine as a transcript: events in, commands out."""

from __future__ import annotations

from supernode.scheduler import contract
from supernode.scheduler.contract import (
    SEED,
    CancelLease,
    FailReason,
)
from tests.unit.supernode.scheduler.support import SWARM, Playbook, grants, only_grant, routes


def test_a_piece_is_leased_the_moment_the_seed_has_it() -> None:
    play = Playbook()
    play.join(1)
    play.open("...")
    play.want(1)
    assert routes(play.seed_gets(0)) == [(0, SEED, 1)]


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
