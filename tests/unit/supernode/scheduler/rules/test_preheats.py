"""Rule 11: what no client waits for takes what pulls leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supernode.scheduler import contract, copies
from supernode.scheduler.contract import SEED, EndFetch, OriginEnded
from supernode.scheduler.machine import Scheduler
from tests.unit.supernode.scheduler.support import PIECE_BYTES, Playbook, fetched, grants, mask, only_grant, routes

if TYPE_CHECKING:
    import pytest

    from supernode.scheduler.records import Member

PULL = 1
PREHEAT = 2


def preheat(play: Playbook, peer: int, held: str = "", *, swarm: int = PREHEAT) -> list[contract.Command]:
    """The peer wants the rest for no client."""
    return play.tell(contract.PeerAnnounced(swarm, peer, mask(held), True, background=True))


def swarms_sent(commands: list[contract.Command], *, to: int) -> set[int]:
    """Of which swarms leases were granted to this node."""
    return {one.swarm for one in commands if isinstance(one, contract.GrantLease) and one.receiver == to}


def two_swarms(pull: str, preheated: str, *peers: int, seed_slots: int = 8) -> Playbook:
    """Open at the seed, which holds these pieces."""
    play = Playbook(seed_slots=seed_slots)
    play.join(*peers, rate=1000.0)
    play.open(preheated, swarm=PREHEAT)
    play.open(pull, swarm=PULL)
    return play


def test_where_nobody_pulls_a_preheat_is_a_swarm_like_any_other() -> None:
    play = two_swarms("....", "****", 1)
    assert routes(preheat(play, 1))


def test_a_node_that_pulls_is_sent_nothing_of_a_preheat() -> None:
    play = two_swarms("****", "****", 1)
    play.want(1, swarm=PULL)
    assert swarms_sent(preheat(play, 1), to=1) == set()


def test_a_node_that_has_pulled_all_is_sent_preheats_again() -> None:
    play = two_swarms("*", "****", 1)
    (lease,) = [one for one in play.want(1, swarm=PULL) if isinstance(one, contract.GrantLease)]
    preheat(play, 1)
    assert swarms_sent(play.stored(lease), to=1) == {PREHEAT}


def test_a_node_that_gives_its_pull_up_is_sent_preheats_again() -> None:
    play = two_swarms("..", "****", 1)
    play.want(1, swarm=PULL)
    preheat(play, 1)
    assert swarms_sent(play.tell(contract.PeerWithdrew(PULL, 1)), to=1) == {PREHEAT}


def test_a_node_that_pulls_sends_nothing_of_a_preheat() -> None:
    play = two_swarms("....", "....", 1, 2)
    play.hold(1, "****", swarm=PREHEAT)
    play.want(1, swarm=PULL)
    assert swarms_sent(preheat(play, 2), to=2) == set()


def test_others_are_preheated_beside_a_pull() -> None:
    play = two_swarms("....", "....", 1, 2, 3)
    play.hold(3, "****", swarm=PREHEAT)
    play.want(1, swarm=PULL)
    assert swarms_sent(preheat(play, 2), to=2) == {PREHEAT}


def test_the_seed_serves_a_pull_before_a_preheat() -> None:
    play = two_swarms("****", "****", 1, 2, seed_slots=1)
    (running, *_) = [one for one in preheat(play, 2) if isinstance(one, contract.GrantLease)]
    commands = play.want(1, swarm=PULL) + play.stored(running)
    assert swarms_sent(commands, to=1) == {PULL}


def test_a_client_that_comes_makes_a_pull_of_a_preheat() -> None:
    play = two_swarms("....", "****", 1, 2)
    preheat(play, 2)
    assert play.scheduler.inspect().preheats
    play.want(1, swarm=PREHEAT)
    assert not play.scheduler.inspect().preheats


def sent_beside_a_pull_from_the_origin(*, gap_s: float) -> tuple[Playbook, set[int]]:
    """What was sent to the node that is preheated while two of a pull's pieces came so far apart; the seed sends one a
    second."""
    play = Playbook(Scheduler(seed=1, epoch=1, seed_upload_slots=8, seed_upload_rate_bytes_s=float(PIECE_BYTES)))
    play.join(1, 2, rate=float(PIECE_BYTES))
    play.open("****", swarm=PREHEAT)
    play.open("....", swarm=PULL)
    play.want(1, swarm=PULL)
    commands = preheat(play, 2)
    for piece in range(2):
        came = play.seed_gets(piece, swarm=PULL, after_s=gap_s)
        commands += came
        for lease in grants(came):
            if lease.swarm == PULL:
                commands += play.stored(lease, elapsed_s=0.0)
    return play, swarms_sent(commands, to=2)


def test_the_seed_sends_no_preheat_while_a_pulls_pieces_come_as_fast_as_it_sends_them() -> None:
    play, sent = sent_beside_a_pull_from_the_origin(gap_s=1.0)
    assert sent == set()
    (fetch,) = [plan.fetch_id for plan in play.scheduler.inspect().plans.values() if plan.fetch_id]
    play.seed_gets(2, 3, swarm=PULL)
    commands = play.tell(OriginEnded(fetch, PULL, True))
    while not swarms_sent(commands, to=2):
        commands = play.wake()
    assert swarms_sent(commands, to=2) == {PREHEAT}


def test_the_seed_sends_preheats_between_a_pulls_pieces_that_come_far_apart() -> None:
    _, sent = sent_beside_a_pull_from_the_origin(gap_s=8.0)
    assert sent == {PREHEAT}


def test_the_seed_sends_preheats_again_when_nobody_waits_for_what_is_fetched() -> None:
    play, _ = sent_beside_a_pull_from_the_origin(gap_s=1.0)
    assert swarms_sent(play.tell(contract.PeerWithdrew(PULL, 1)), to=2) == {PREHEAT}


def test_no_preheat_is_fetched_from_an_origin_beside_a_pull() -> None:
    play = two_swarms("....", "....", 1, 2)
    assert fetched(play.want(1, swarm=PULL)) == mask("****")
    assert fetched(preheat(play, 2)) == 0


def test_a_fetch_for_a_preheat_makes_way_for_a_pull_and_goes_on_after_it() -> None:
    play = two_swarms("..", "....", 1, 2)
    preheat(play, 2)
    commands = play.want(1, swarm=PULL)
    (ended,) = [one for one in commands if isinstance(one, EndFetch)]
    (pulled,) = [one for one in commands if isinstance(one, contract.FetchFromOrigin)]
    play.seed_gets(0, swarm=PREHEAT)
    assert fetched(play.tell(OriginEnded(ended.fetch_id, PREHEAT, False))) == 0
    play.seed_gets(0, 1, swarm=PULL)
    assert fetched(play.tell(OriginEnded(pulled.fetch_id, PULL, True))) == mask(".***")


def test_the_seeds_own_wants_are_no_pull() -> None:
    play = two_swarms("..", "....", 1, 2)
    play.hold(1, "****", swarm=PREHEAT)
    preheat(play, 2)
    assert SEED not in {receiver for _, _, receiver in routes(play.want(2, "**", swarm=PULL))}


def test_a_pull_that_is_given_up_with_its_swarm_leaves_the_origin_to_preheats() -> None:
    play = two_swarms("..", "....", 1, 2)
    play.want(1, swarm=PULL)
    preheat(play, 2)
    assert fetched(play.tell(contract.SwarmClosed(PULL))) == mask("****")


def test_a_pull_that_becomes_a_preheat_leaves_the_origin_to_others() -> None:
    play = two_swarms("..", "....", 1, 2)
    play.want(1, swarm=PULL)
    preheat(play, 2)
    assert fetched(preheat(play, 1, swarm=PULL)) == mask("****")


def test_a_voided_pull_leaves_its_nodes_to_preheats() -> None:
    play = two_swarms("*.", "****", 1)
    play.want(1, swarm=PULL)
    preheat(play, 1)
    assert swarms_sent(play.tell(contract.SwarmVoided(PULL)), to=1) == {PREHEAT}


def test_a_node_that_comes_to_a_preheat_has_not_all_others_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    wants = copies.wants

    def counted(member: Member) -> int:
        looked.append(member.node.peer)
        return wants(member)

    others = range(1, 40)
    play = two_swarms("....", "....", *others, 40)
    for peer in others:
        preheat(play, peer)
    monkeypatch.setattr(copies, "wants", counted)
    # By itself: whoever checks the machine looks at all.
    play.scheduler.handle(contract.PeerAnnounced(PREHEAT, 40, 0, True, background=True), play.now)
    assert len(looked) < len(others)


# --- the operator's rate: pieces of 1,000 bytes, links of 1,000 bytes/s ---------------------------------------------


def limited(rate: float, *peers: int) -> Playbook:
    """A preheat that the seed holds, of which a node is sent so much a second."""
    play = two_swarms("****", "****", *peers)
    play.tell(contract.PreheatRateSet(rate))
    return play


def test_a_node_is_sent_one_piece_of_a_preheat_in_the_time_that_its_rate_gives() -> None:
    play = limited(100.0, 1)
    lease = only_grant(preheat(play, 1))
    assert grants(play.stored(lease)) == []
    play.wake_until(contract.GrantLease)
    assert play.now == 10.0


def test_a_rate_beyond_the_link_changes_nothing() -> None:
    play = limited(1e6, 1)
    lease = grants(preheat(play, 1))[0]
    play.tell(contract.Wakeup(), after_s=0.1)
    assert grants(play.stored(lease))


def test_a_node_that_rests_is_sent_pulls() -> None:
    play = limited(100.0, 1)
    preheat(play, 1)
    assert swarms_sent(play.want(1, swarm=PULL), to=1) == {PULL}


def test_a_client_that_comes_ends_the_rest() -> None:
    play = limited(100.0, 1)
    play.stored(only_grant(preheat(play, 1)))
    assert swarms_sent(play.want(1, "*", swarm=PREHEAT), to=1) == {PREHEAT}


def test_each_node_has_its_own_share() -> None:
    play = limited(100.0, 1, 2)
    assert swarms_sent(preheat(play, 1), to=1) == {PREHEAT}
    assert swarms_sent(preheat(play, 2), to=2) == {PREHEAT}


def test_another_rate_counts_at_once() -> None:
    play = limited(100.0, 1)
    play.stored(only_grant(preheat(play, 1)))
    assert swarms_sent(play.tell(contract.PreheatRateSet(0.0)), to=1) == {PREHEAT}


def test_a_node_that_rests_does_not_give_up_its_rack_for_it() -> None:
    play = Playbook()
    play.join(1, 2, zone="r/z/1", rate=1000.0)
    play.open("****", swarm=PREHEAT)
    play.tell(contract.PreheatRateSet(10.0))
    play.stored(only_grant(preheat(play, 1)))
    play.tell(contract.Wakeup(), after_s=50.0)
    assert play.scheduler.inspect().rack_exempt == 0
