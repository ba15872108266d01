"""Rule 3: what only the seed has goes first, and its link is never idle for want of it."""

from __future__ import annotations

import pytest

from supernode.scheduler import contract
from supernode.scheduler.contract import (
    SEED,
    Command,
    FetchFromOrigin,
    GrantLease,
    OriginEnded,
)
from supernode.scheduler.machine import Scheduler
from supernode.scheduler.rules import admission
from supernode.scheduler.settings import SchedulerSettings
from tests.unit.supernode.scheduler.support import PIECE_BYTES, Playbook, grants, only_grant

# A piece takes a second at this rate, and twenty at that of the slow node.
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


def grants_until(play: Playbook, until_s: float) -> list[tuple[float, GrantLease]]:
    """Leases, with their times, while no transfer ends."""
    found = []
    while (due := play.scheduler.next_wakeup()) is not None and due <= until_s:
        found += [(play.now, lease) for lease in grants(play.wake())]
    play.now = until_s
    return found


def test_beside_a_first_copy_slower_than_the_origin_sends_the_seed_begins_another() -> None:
    play = Playbook(Scheduler(seed=1, epoch=1, seed_upload_slots=4))
    play.join(1, 2, 3)
    play.open("....")
    for peer in (1, 2, 3):
        play.want(peer)
    first = only_grant(play.seed_gets(0, after_s=1.0))
    granted = [(play.now, lease) for lease in grants(play.seed_gets(1, after_s=1.0))] + grants_until(play, 4.0)
    beside = [(at_s, lease) for at_s, lease in granted if not lease.ahead]
    assert [lease.source for _, lease in beside] == [SEED]
    ((at_s, second),) = beside
    assert at_s == pytest.approx(2.5, abs=0.1)
    assert (second.piece, second.receiver != first.receiver) == (1, True)


def test_who_has_room_follows_what_the_seed_is_assumed_to_carry() -> None:
    # The playbook checks after each event that the book knows who has room.
    play = Playbook(Scheduler(seed=1, epoch=1, seed_upload_slots=2))
    play.join(1)
    play.open("." * 8)
    play.want(1)
    only_grant(play.seed_gets(0, after_s=1.0))
    assert grants_until(play, 3.0) == []
    state = play.scheduler.inspect()
    seed = state.nodes[SEED]
    seed.up.idle_part = 0.0
    admission.refresh(seed.up)
    assert not seed.up.has_room
    granted = [lease for piece in range(1, 8) for lease in grants(play.seed_gets(piece, after_s=0.001))]
    assert [(lease.source, lease.ahead) for lease in granted][:1] == [(SEED, False)]


def fetch_of(commands: list[Command]) -> FetchFromOrigin:
    """The one fetch among the commands."""
    (found,) = [command for command in commands if isinstance(command, FetchFromOrigin)]
    return found


def test_time_without_a_fetch_does_not_count_against_the_origin() -> None:
    play = Playbook(Scheduler(seed=1, epoch=1, seed_upload_slots=4))
    play.join(1)
    play.open(".", inline=True)
    asked = fetch_of(play.want(1))
    play.stored(only_grant(play.seed_gets(0, after_s=1.0)))
    play.tell(OriginEnded(asked.fetch_id, 1, True), after_s=1.0)
    play.open("..", swarm=2)
    play.now += 3600.0
    play.want(1, swarm=2)
    lease = only_grant(play.seed_gets(0, swarm=2, after_s=1.0))
    assert play.scheduler.inspect().nodes[SEED].up.assumed == RATE
    assert lease.expires_in_s == SchedulerSettings().expiry_unknown_s
