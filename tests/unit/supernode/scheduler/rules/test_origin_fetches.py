"""Who asks the origin, for what, and when: each transcript is one rule."""

from __future__ import annotations

from supernode.scheduler import contract
from supernode.scheduler.contract import EndFetch, FetchFromOrigin, OpenOrigin, TryOrigin
from tests.unit.supernode.scheduler.support import PIECE_BYTES, SWARM, Playbook, fetched, grants, mask, only_grant


def cold(peers: int = 2, pieces: int = 4) -> tuple[Playbook, FetchFromOrigin]:
    """Peers 1..n want a blob that nobody holds; the fetch that follows."""
    play = Playbook()
    play.join(*range(1, peers + 1))
    play.open("." * pieces)
    commands = [command for peer in range(1, peers + 1) for command in play.want(peer)]
    fetches = [command for command in commands if isinstance(command, FetchFromOrigin)]
    assert len(fetches) == 1
    return play, fetches[0]


def test_the_first_want_fetches_every_piece_once_however_many_want_it() -> None:
    _, fetch = cold(peers=5)
    assert (fetch.swarm, fetch.pieces, fetch.fetch_id >> 40) == (SWARM, 0b1111, 1)


def test_nothing_is_fetched_while_nobody_wants_it() -> None:
    play = Playbook()
    play.join(1)
    assert play.open("....") == []
    assert play.hold(1, "*...") == []
    assert play.scheduler.next_wakeup() is None


def test_only_what_no_live_peer_holds_is_asked_for() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("....")
    play.hold(1, "**..")
    assert fetched(play.want(2)) == mask("..**")


def test_a_finished_fetch_is_not_repeated() -> None:
    play, fetch = cold()
    play.seed_gets(0, 1, 2, 3)
    assert fetched(play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, True))) == 0


def test_a_piece_is_fetched_again_alone_when_every_copy_is_gone() -> None:
    play, fetch = cold(peers=2)
    play.seed_gets(0, 1, 2, 3)
    play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, True))
    commands = play.tell(contract.PieceEvicted(SWARM, contract.SEED, mask("..*.")))
    assert fetched(commands) == mask("..*.")


def test_a_piece_of_which_a_peer_holds_a_copy_is_not_fetched_again() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("****")
    play.hold(1, "..*.")
    play.want(2)
    assert fetched(play.tell(contract.PieceEvicted(SWARM, contract.SEED, mask("..*.")))) == 0


def test_losing_the_last_holder_asks_the_origin_for_its_pieces_alone() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("**..")
    play.hold(1, "..**")
    assert fetched(play.want(2)) == 0
    assert fetched(play.tell(contract.PeerLost(1, "gone"))) == mask("..**")


def test_a_failed_fetch_elects_one_wanting_peer_and_then_the_next_and_then_opens_the_origin() -> None:
    play, fetch = cold(peers=5)
    commands = play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, False))
    elected: list[int] = []
    while commands and isinstance(commands[0], TryOrigin):
        assert len(commands) == 1
        elected.append(commands[0].peer)
        commands = play.tell(contract.OriginTried(SWARM, elected[-1], False))
    assert len(set(elected)) == len(elected) == play.scheduler.settings.elections_max
    assert commands == [OpenOrigin(SWARM)]


def test_the_loss_of_the_elected_peer_elects_another() -> None:
    play, fetch = cold(peers=3)
    (first,) = play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, False))
    assert isinstance(first, TryOrigin)
    (second,) = play.tell(contract.PeerLost(first.peer, "gone"))
    assert isinstance(second, TryOrigin)
    assert second.peer != first.peer


def test_an_elected_peer_that_makes_no_headway_is_given_up() -> None:
    play, fetch = cold(peers=3)
    (first,) = play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, False))
    assert isinstance(first, TryOrigin)
    second = play.wake_until(TryOrigin)
    assert isinstance(second, TryOrigin)
    assert second.peer != first.peer
    assert play.now >= play.scheduler.settings.elected_stall_s


def test_what_an_elected_peer_stores_is_passed_on_and_to_the_seed() -> None:
    play, fetch = cold(peers=2, pieces=2)
    (elected,) = play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, False))
    assert isinstance(elected, TryOrigin)
    commands = play.tell(contract.PieceStored(SWARM, elected.peer, 0))
    receivers = {lease.receiver for lease in commands if isinstance(lease, contract.GrantLease)}
    assert receivers <= {contract.SEED, 3 - elected.peer}
    assert receivers


def test_an_elected_peer_that_has_everything_leaves_nothing_for_another_to_try() -> None:
    """It announces so by itself, together with the hashes, before its attempt is reported as ended."""
    play, fetch = cold(peers=2, pieces=2)
    (elected,) = play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, False))
    assert isinstance(elected, TryOrigin)
    commands = play.tell(contract.PeerAnnounced(SWARM, elected.peer, 0b11, False))
    assert [each for each in commands if not isinstance(each, contract.GrantLease)] == []
    assert {each.source for each in commands if isinstance(each, contract.GrantLease)} == {elected.peer}


def test_the_supernode_tries_the_origin_again_after_a_while() -> None:
    play, fetch = cold(peers=1)
    (elected,) = play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, False))
    assert isinstance(elected, TryOrigin)
    assert play.tell(contract.OriginTried(SWARM, 1, False)) == [OpenOrigin(SWARM)]
    again = play.wake_until(FetchFromOrigin)
    assert isinstance(again, FetchFromOrigin)
    assert again.pieces == 0b1111
    assert again.fetch_id != fetch.fetch_id


def test_after_a_restart_nothing_is_asked_for_until_the_peers_of_before_are_back() -> None:
    play = Playbook()
    play.join(1, 2)
    size = 4 * PIECE_BYTES
    play.tell(
        contract.SwarmOpened(SWARM, size, PIECE_BYTES, once_ready=mask("***."), recover_until=5.0, recover_peers=(2, 3))
    )
    assert fetched(play.want(1)) == 0
    play.hold(2, "*...")
    assert fetched(play.tell(contract.RecoveryPeerReturned(SWARM, 2))) == 0
    assert fetched(play.tell(contract.RecoveryPeerReturned(SWARM, 3))) == mask(".***")


def test_what_a_peer_of_before_a_restart_asks_for_by_itself_is_left_to_it() -> None:
    play = Playbook()
    play.join(1, 2)
    play.tell(contract.SwarmOpened(SWARM, 4 * PIECE_BYTES, PIECE_BYTES, recover_until=5.0, recover_peers=(2,)))
    # The one that comes first cannot know what the other is asking for.
    assert fetched(play.want(1)) == 0
    play.tell(contract.PeerOffers(SWARM, 2, 0, mask("..*."), 10.0), after_s=2.0)
    assert fetched(play.want(2)) == 0
    assert fetched(play.tell(contract.RecoveryPeerReturned(SWARM, 2))) == mask("**.*")


def test_the_wait_for_the_peers_of_before_ends_by_itself() -> None:
    play = Playbook()
    play.join(1)
    play.tell(
        contract.SwarmOpened(
            SWARM, 2 * PIECE_BYTES, PIECE_BYTES, once_ready=0b11, recover_until=5.0, recover_peers=(7,)
        )
    )
    assert play.want(1) == []
    fetch = play.wake_until(FetchFromOrigin)
    assert isinstance(fetch, FetchFromOrigin)
    assert (play.now, fetch.pieces) == (5.0, 0b11)


def test_after_a_restart_the_seed_fills_its_gaps_from_the_peers() -> None:
    play = Playbook()
    play.join(1, 2, 3)
    play.open("*...")
    play.hold(1, "****")
    play.hold(3, "****")
    commands = play.want(2, "***.")
    assert fetched(commands) == 0
    assert contract.SEED in {lease.receiver for lease in commands if isinstance(lease, contract.GrantLease)}


def test_a_closed_swarm_leaves_nothing_behind() -> None:
    play, fetch = cold()
    play.seed_gets(0, 1)
    play.tell(contract.SwarmClosed(SWARM), contract.OriginEnded(fetch.fetch_id, SWARM, True))
    state = play.scheduler.inspect()
    assert (state.swarms, state.plans, state.leases, state.fetches) == ({}, {}, {}, 0)
    assert play.scheduler.story(SWARM, 0) == []
    assert play.scheduler.next_wakeup() is None


def test_what_its_only_holder_gives_to_nobody_is_asked_of_the_origin() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("....")
    play.hold(1, "****")
    play.has_served(1)
    commands = play.want(2)
    for _ in range(play.scheduler.settings.faults_given_up):
        lease = only_grant(commands) if grants(commands) else play.wake_until(contract.GrantLease)
        assert isinstance(lease, contract.GrantLease)
        assert not fetched(commands)
        commands = play.tell(contract.FetchFailed(lease.lease_id, contract.FailReason.CONNECTION))
    assert fetched(commands) == mask("****")


def test_an_origin_that_wants_to_be_left_alone_is_and_then_asked_again_by_the_supernode() -> None:
    play, fetch = cold(peers=3)
    assert play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, False, retry_after_s=90.0)) == []
    again = play.wake_until(FetchFromOrigin)
    assert isinstance(again, FetchFromOrigin)
    assert (play.now, again.pieces) == (90.0, 0b1111)


def test_nobody_else_is_elected_where_the_elected_peer_was_told_to_ask_later() -> None:
    play, fetch = cold(peers=3)
    (elected,) = play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, False))
    assert isinstance(elected, TryOrigin)
    assert play.tell(contract.OriginTried(SWARM, elected.peer, False, retry_after_s=20.0)) == []
    assert isinstance(play.wake_until(FetchFromOrigin), FetchFromOrigin)
    assert play.now >= 20.0


def test_the_origin_is_not_asked_for_what_a_peer_fetches_by_itself() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("....")
    play.tell(contract.PeerOffers(SWARM, 1, mask("*..."), mask(".**."), 15.0))
    assert fetched(play.want(1)) == mask("...*")


def test_what_is_offered_is_brought_once_nothing_else_is_on_its_way() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("....")
    play.tell(contract.PeerOffers(SWARM, 1, mask("**.."), mask("..**"), 15.0))
    assert fetched([*play.want(1), *play.want(2)]) == 0
    play.tell(contract.PeerOffers(SWARM, 1, mask("***."), mask("...*"), 15.0), after_s=10.0)
    assert fetched(play.tell(contract.PeerOffers(SWARM, 1, mask("****"), 0, 0.0), after_s=10.0)) == mask("****")


def test_a_peer_that_fetches_and_makes_no_headway_is_waited_for_no_longer() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("....")
    play.tell(contract.PeerOffers(SWARM, 1, 0, mask("****"), 15.0))
    assert fetched(play.want(2)) == 0
    fetch = play.wake_until(FetchFromOrigin)
    assert isinstance(fetch, FetchFromOrigin)
    assert (play.now, fetch.pieces) == (15.0, 0b1111)


def test_what_a_lost_peer_was_fetching_is_asked_for() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("....")
    play.tell(contract.PeerOffers(SWARM, 1, 0, mask("****"), 15.0))
    assert fetched([*play.want(1), *play.want(2)]) == 0
    assert fetched(play.tell(contract.PeerLost(1, "gone"))) == mask("****")


# --- ranges --------------------------------------------------------------------------------------------------------


def fetch_of(play: Playbook, peer: int, asked: str) -> FetchFromOrigin:
    """The fetch that follows when this peer reads ranges."""
    (fetch,) = [command for command in play.read(peer, asked) if isinstance(command, FetchFromOrigin)]
    return fetch


def test_of_what_is_read_by_ranges_nothing_else_is_fetched_and_that_once() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("........")
    assert play.tell(contract.PeerAnnounced(SWARM, 1, 0, True, ranges=True)) == []
    fetch = fetch_of(play, 1, "......**")
    assert fetch.pieces == mask("......**")
    assert fetched(play.read(2, "......**")) == 0
    play.seed_gets(6, 7)
    assert fetched(play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, True))) == 0
    assert fetched(play.read(2, "*......*")) == mask("*.......")


def test_ranges_that_are_asked_for_meanwhile_are_fetched_next() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("........")
    fetch = fetch_of(play, 1, "*.......")
    assert play.read(2, ".......*") == []
    play.seed_gets(0)
    assert fetched(play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, True))) == mask(".......*")


def test_a_fetch_of_the_whole_makes_way_for_ranges_and_goes_on_after_them() -> None:
    play, whole = cold(peers=2, pieces=8)
    play.seed_gets(0)
    play.join(3)
    assert play.read(3, ".......*") == [EndFetch(whole.fetch_id, SWARM)]
    # Once, however many come.
    assert play.tell(contract.PiecesWanted(SWARM, 3, mask("......**"))) == []
    play.seed_gets(1)
    commands = play.tell(contract.OriginEnded(whole.fetch_id, SWARM, False))
    assert not any(isinstance(command, TryOrigin) for command in commands), "it did not fail"
    (urgent,) = [command for command in commands if isinstance(command, FetchFromOrigin)]
    assert urgent.pieces == mask("......**")
    play.seed_gets(6, 7)
    rest = fetched(play.tell(contract.OriginEnded(urgent.fetch_id, SWARM, True)))
    assert rest == mask("..****..")


def test_a_fetch_that_brings_it_next_goes_on() -> None:
    play, _ = cold(peers=2, pieces=8)
    play.seed_gets(0)
    play.join(3)
    assert [command for command in play.read(3, ".**.....") if isinstance(command, EndFetch)] == []


def test_an_origin_that_wants_to_be_left_alone_is_also_by_who_reads_ranges() -> None:
    play, whole = cold(peers=2, pieces=8)
    play.join(3)
    play.read(3, ".......*")
    assert fetched(play.tell(contract.OriginEnded(whole.fetch_id, SWARM, False, retry_after_s=30.0))) == 0
    assert fetched(play.tell(contract.Wakeup(), after_s=29.0)) == 0
    assert fetched(play.tell(contract.Wakeup(), after_s=2.0)) == mask(".......*")


def test_who_waits_for_no_range_is_not_elected() -> None:
    play = Playbook()
    play.join(1, 2)
    play.open("....")
    fetch = fetch_of(play, 1, "*...")
    play.tell(contract.PeerAnnounced(SWARM, 2, 0, True, ranges=True))
    commands = play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, False))
    assert [command.peer for command in commands if isinstance(command, TryOrigin)] == [1]


def test_a_wish_that_is_taken_back_is_fetched_no_more() -> None:
    play = Playbook()
    play.join(1)
    play.open("....")
    fetch = fetch_of(play, 1, "*...")
    play.tell(contract.PiecesWanted(SWARM, 1, mask("**..")), contract.PiecesWanted(SWARM, 1, 0))
    play.seed_gets(0)
    assert fetched(play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, True))) == 0


def by_word(play: Playbook, peer: int, *pieces: int) -> list[contract.Command]:
    """The elected peer has these from the origin, and nobody vouches for them."""
    return play.tell(*(contract.PieceStored(SWARM, peer, piece, unvouched=True) for piece in pieces))


def elected() -> tuple[Playbook, int]:
    """The supernode cannot fetch, and one of three peers tries for all."""
    play, fetch = cold(peers=3)
    [trial] = play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, False))
    assert isinstance(trial, TryOrigin)
    return play, trial.peer


def test_what_an_elected_peer_has_by_its_word_goes_to_other_peers_and_not_to_the_seed() -> None:
    play, peer = elected()
    receivers = {grant.receiver for grant in grants(by_word(play, peer, 0, 1))}
    assert receivers
    assert receivers <= {1, 2, 3} - {peer}


def test_the_seed_brings_all_of_it_once_the_elected_peer_is_done() -> None:
    play, peer = elected()
    assert fetched(by_word(play, peer, 0, 1, 2, 3)) == 0
    assert fetched(play.tell(contract.OriginTried(SWARM, peer, True))) == mask("****")


def test_where_the_seed_cannot_bring_it_nobody_is_elected_for_what_peers_hold() -> None:
    play, peer = elected()
    by_word(play, peer, 0, 1, 2, 3)
    [fetch] = [each for each in play.tell(contract.OriginTried(SWARM, peer, True)) if isinstance(each, FetchFromOrigin)]
    commands = play.tell(contract.OriginEnded(fetch.fetch_id, SWARM, False))
    assert not [each for each in commands if isinstance(each, TryOrigin | OpenOrigin | FetchFromOrigin)]
    again = play.wake_until(FetchFromOrigin)
    assert isinstance(again, FetchFromOrigin)


def test_another_peer_is_elected_for_what_nobody_holds() -> None:
    play, peer = elected()
    by_word(play, peer, 0, 1)
    commands = play.tell(contract.OriginTried(SWARM, peer, False))
    [trial] = [each for each in commands if isinstance(each, TryOrigin)]
    assert trial.pieces == mask("..**")


def test_an_elected_peer_that_ends_without_the_rest_is_followed_by_nobody_where_others_have_it() -> None:
    play, peer = elected()
    by_word(play, peer, 0, 1, 2, 3)
    commands = play.tell(contract.OriginTried(SWARM, peer, False))
    assert not [each for each in commands if isinstance(each, TryOrigin)]
    fetch = play.wake_until(FetchFromOrigin)
    assert isinstance(fetch, FetchFromOrigin)
    assert fetch.pieces == mask("****")
