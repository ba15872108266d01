"""What follows what: a lease names the one before it at its receiver, and the seed looks early for its first copies."""

from __future__ import annotations

from supernode.scheduler import contract
from supernode.scheduler.contract import SEED, GrantLease
from supernode.scheduler.machine import Scheduler
from supernode.scheduler.settings import SchedulerSettings
from tests.unit.supernode.scheduler.support import PIECE_BYTES, Playbook, grants

# Of every node and the seed: a piece takes a second.
RATE = float(PIECE_BYTES)


def with_seed(*peers: int, pieces: int) -> tuple[Playbook, list[GrantLease]]:
    """Peers that want a swarm of which the seed has just got all pieces, and the leases granted at once."""
    settings = SchedulerSettings()
    play = Playbook(Scheduler(seed=1, epoch=1, settings=settings, seed_upload_slots=8, seed_upload_rate_bytes_s=RATE))
    play.join(*peers, rate=RATE)
    play.open("." * pieces)
    for peer in peers:
        play.want(peer)
    return play, grants(play.seed_gets(*range(pieces)))


def seed_grants_until(play: Playbook, until_s: float) -> list[tuple[float, GrantLease]]:
    """Leases from the seed, with their times, while no transfer ends."""
    found = []
    while (due := play.scheduler.next_wakeup()) is not None and due <= until_s:
        found += [(play.now, lease) for lease in grants(play.wake()) if lease.source == SEED]
    return found


def test_a_lease_names_the_one_that_it_follows_at_its_receiver() -> None:
    play = Playbook()
    play.join(1, 2, 3, rate=RATE)
    play.open_at_peers(2)
    play.hold(1, "* ")
    play.hold(2, " *")
    first, second = grants(play.want(3))
    assert (first.source, first.behind) == (1, 0)
    assert (second.source, second.behind, second.ahead) == (2, first.lease_id, False)


def test_what_follows_from_the_same_source_waits_there_alone() -> None:
    play = Playbook()
    play.join(1, 3, rate=RATE)
    play.open_at_peers(2)
    play.hold(1, "**")
    first, second = grants(play.want(3))
    assert (first.ahead, first.behind) == (False, 0)
    assert (second.ahead, second.behind) == (True, 0)


def test_the_seeds_next_first_copy_is_granted_half_a_transfer_ahead_to_a_node_that_gets_nothing() -> None:
    play, leases = with_seed(1, 2, 3, pieces=3)
    assert [lease.piece for lease in leases] == [0]
    ((granted_s, second),) = seed_grants_until(play, 0.9)
    assert 0.49 < granted_s < 0.51
    assert (second.piece, second.ahead, second.behind) == (1, True, 0)
    assert second.receiver != leases[0].receiver


def test_further_copies_are_not_decided_that_early() -> None:
    play, (first,) = with_seed(1, 2, 3, pieces=2)
    ((_, second),) = seed_grants_until(play, 0.9)
    play.stored(first, elapsed_s=1.0 - play.now)
    further = seed_grants_until(play, 1.99)
    assert second.piece == 1
    assert all(granted_s > 1.9 for granted_s, _ in further)


def test_one_more_first_copy_is_promised_behind_the_next_while_nodes_have_nothing_to_get() -> None:
    # 25 nodes that get something from each other, and 5 that get nothing.
    play = Playbook(Scheduler(seed=1, epoch=1, seed_upload_slots=8, seed_upload_rate_bytes_s=RATE))
    busy, idle = range(6, 31), range(1, 6)
    play.join(*busy, *idle, rate=RATE)
    play.open("....")
    for peer in (*busy, *idle):
        play.want(peer)
    (first,) = grants(play.seed_gets(0))
    play.now += 0.1
    # Every other node has a transfer of a long piece from another swarm's holder.
    play.tell(contract.SwarmOpened(2, 50 * PIECE_BYTES, 50 * PIECE_BYTES, seed_held=0))
    for holder in range(31, 31 + len(busy)):
        play.join(holder, rate=RATE)
        play.hold(holder, "*", swarm=2)
    for peer in busy:
        play.want(peer, swarm=2)
    play.seed_gets(1, 2)
    promised = [lease for _, lease in seed_grants_until(play, 0.9)]
    assert [(lease.piece, lease.ahead) for lease in promised] == [(1, True), (2, True)]
    assert len({first.receiver, *(lease.receiver for lease in promised)}) == 3


def test_what_follows_a_promised_copy_is_decided_when_half_of_that_is_over() -> None:
    play, (first,) = with_seed(1, 2, 3, pieces=3)
    ((_, second),) = seed_grants_until(play, 0.9)
    begun = play.stored(first, elapsed_s=1.0 - play.now)
    assert [lease for lease in grants(begun) if lease.source == SEED] == []
    third = [(granted_s, lease) for granted_s, lease in seed_grants_until(play, 1.9) if lease.piece == 2]
    assert [1.49 < granted_s < 1.52 for granted_s, _ in third] == [True]
    assert second.piece == 1
