"""What the scheduler's commands come to: messages to peers, work for the seed, or the failure of a lease at once."""

from __future__ import annotations

from proto.wire.messages import Cancel, Grant, InlineBlob, NodeKnown, OriginStatus, PieceHashes
from supernode.scheduler.contract import (
    ID_BITS,
    SEED,
    CancelLease,
    FailReason,
    FetchFailed,
    FetchFromOrigin,
    GrantLease,
    OpenOrigin,
    TryOrigin,
)
from tests.unit.supernode.control.bench import Bench

EPOCH = 3 << ID_BITS
HASH = b"h" * 32


class Granting(Bench):
    """Two peers in one swarm of four pieces, whose hashes are known."""

    def __init__(self) -> None:
        super().__init__()
        self.swarm = self.open(b"blob", pieces=4)
        self.one, self.two = self.join(), self.join()
        for session in (self.one, self.two):
            self.enter(session, self.swarm)
        self.control.participation.learn_hashes(self.swarm, 0, HASH * 4)
        for ears in self.ears.values():
            ears.heard.clear()
        self.events.clear()

    def grant(self, receiver: int, source: int, *, piece: int = 0, behind: int = 0, inline: bool = False) -> None:
        command = GrantLease(EPOCH + 7, self.swarm.number, piece, receiver, source, 2.0, False, behind, inline)
        self.control.commands.carry_out(command)

    def failures(self) -> list[FailReason]:
        return [event.reason for event in self.events if isinstance(event, FetchFailed)]


def test_a_grant_is_sent_without_the_epoch_and_after_who_the_source_is() -> None:
    bench = Granting()
    bench.grant(bench.one.node, SEED, behind=EPOCH + 5)
    grant = Grant(7, bench.swarm.number, 0, SEED, 2000, False, 5)
    assert bench.heard(bench.one).heard[-1] == grant
    bench.grant(bench.one.node, bench.two.node, piece=1)
    assert [known.node for known in bench.heard(bench.one).of(NodeKnown)][-1:] in ([], [bench.two.node])


def test_a_hash_is_sent_only_where_the_source_cannot_send_it() -> None:
    bench = Granting()
    bench.grant(bench.one.node, SEED)
    assert bench.heard(bench.one).of(PieceHashes) == []
    bench.grant(bench.one.node, bench.two.node, piece=2)
    assert [sent.first for sent in bench.heard(bench.one).of(PieceHashes)] == [2]
    bench.swarm.members[bench.one.node].hash_came_with(3)
    bench.grant(bench.two.node, bench.one.node, piece=3)
    assert bench.heard(bench.two).of(PieceHashes) == []


def test_a_tiny_blob_goes_whole_while_that_takes_little_of_the_uplink() -> None:
    bench = Granting()
    bench.swarm.content = b"blob"
    bench.grant(bench.one.node, SEED, inline=True)
    assert bench.heard(bench.one).of(InlineBlob) == [InlineBlob(7, bench.swarm.number, b"blob")]
    for _ in range(20):
        bench.enter(bench.join(), bench.swarm)
    bench.grant(bench.two.node, SEED, inline=True)
    assert bench.heard(bench.two).of(InlineBlob) == []
    assert len(bench.heard(bench.two).of(Grant)) == 1


def test_a_lease_from_who_left_or_is_quarantined_fails_at_once() -> None:
    bench = Granting()
    bench.control.participation.quarantine(bench.two.info.peer, "served corrupt bytes")
    bench.grant(bench.one.node, bench.two.node)
    bench.handler.lost(bench.two, "gone")
    bench.grant(bench.one.node, bench.two.node)
    assert bench.failures() == [FailReason.CANCELLED] * 2


def test_the_seed_fetches_from_a_peer_by_the_hash_that_is_known() -> None:
    bench = Granting()
    bench.grant(SEED, bench.one.node)
    assert bench.seed.calls[-1] == ("fetch_from_peer", EPOCH + 7, 0, "10.0.0.1:1")
    bench.swarm.hashes.clear()
    bench.grant(SEED, bench.one.node)
    assert bench.failures() == [FailReason.CANCELLED]


def test_a_cancelled_lease_is_told_once() -> None:
    bench = Granting()
    bench.grant(bench.one.node, SEED)
    for _ in range(2):
        bench.control.commands.carry_out(CancelLease(EPOCH + 7, bench.one.node, "expired"))
    assert bench.heard(bench.one).of(Cancel) == [Cancel(7)]
    bench.control.commands.carry_out(CancelLease(EPOCH + 8, SEED, "cancelled"))
    assert bench.seed.calls[-1] == ("cancel_fetch", EPOCH + 8)


def test_members_hear_at_once_of_an_election_and_its_end_but_not_of_a_fetch() -> None:
    bench = Granting()
    number = bench.swarm.number
    bench.control.commands.carry_out(FetchFromOrigin(EPOCH + 1, number, 0b11))
    assert bench.seed.calls[-1] == ("fetch_from_origin", EPOCH + 1, 0b11)
    assert bench.heard(bench.one).of(OriginStatus) == []
    bench.control.commands.carry_out(TryOrigin(number, bench.one.node, bench.swarm.layout.full_mask))
    assert bench.heard(bench.one).of(OriginStatus) == [OriginStatus(number, "unreachable", True)]
    bench.control.commands.carry_out(OpenOrigin(number))
    assert bench.heard(bench.two).of(OriginStatus)[-1] == OriginStatus(number, "open", False)
