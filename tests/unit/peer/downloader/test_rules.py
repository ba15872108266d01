"""Any order of events keeps the invariants, ends what it starts, and gives the same commands for the same seed."""

from __future__ import annotations

from collections import deque
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from peer.downloader import contract, invariants
from peer.downloader.machine import Downloader
from proto.ids import Digest
from proto.oci.ranges import ByteRange
from proto.pieces import KIB, PieceLayout
from proto.wire.messages import (
    Announce,
    BlobRefused,
    Cancel,
    Failed,
    Grant,
    Holders,
    NodeKnown,
    OriginStatus,
    Source,
    Stored,
    SwarmOpened,
    Voided,
)
from tests.unit.peer.downloader.script import peer_id

DIGESTS = [Digest.of(bytes([number])) for number in range(3)]
SOURCES = [Source("docker.io", "a/b"), Source("quay.io", "c/d")]
PIECE = 256 * KIB
LAYOUTS = [PieceLayout(5 * PIECE - 1, PIECE), PieceLayout(100, PIECE), PieceLayout(0, PIECE)]
REASONS = ["busy", "connection", "timeout", "corrupt", "not_held", "ticket", "protocol", "local"]


class World:
    """Answers the machine's commands in an order, and with the outcomes, that a seed decides."""

    def __init__(self, seed: int, steps: int) -> None:
        self.rng = Random(seed)
        self.machine = Downloader(Random(seed + 1), peer_id(9))
        self.now = 0.0
        self.steps = steps
        self.log: list[contract.Command] = []
        self.started: deque[contract.Command] = deque()
        self.outcomes: dict[int, int] = {}
        self.readers: dict[int, str] = {}
        self.leases: dict[int, str] = {}
        self.swarms: dict[int, Digest] = {}
        self.connected = False
        self.last = 0
        self.store = dict.fromkeys(DIGESTS, 0)

    def run(self) -> None:
        for _ in range(self.steps):
            self.now += self.rng.choice([0.0, 0.001, 0.1, 1.0, 5.0])
            self.wake()
            self.feed(self.next_event())
        self.drain()

    def wake(self) -> None:
        due = self.machine.next_wakeup()
        if due is not None and due <= self.now:
            self.feed(contract.Wakeup())

    def feed(self, event: contract.Event) -> None:
        commands = self.machine.handle(event, self.now)
        invariants.check(self.machine)
        self.log += commands
        for command in commands:
            self.take(command)

    def take(self, command: contract.Command) -> None:
        match command:
            case contract.AnswerReader(reader) | contract.RefuseReader(reader):
                assert self.readers[reader] == "waiting", "one answer a reader"
                self.readers[reader] = "answered"
            case contract.Send(Stored(lease=lease)) | contract.Send(Failed(lease=lease)):
                assert self.connected
                if lease:
                    assert self.leases.pop(lease) == "open", "one end a lease"
            case contract.Send(Announce()):
                self.started.append(command)
            case contract.PieceHeld() | contract.BlobComplete() | contract.CloseInStore() | contract.ForgetBlob():
                pass
            case contract.VoidInStore(digest):
                self.store[digest] = 0
            case contract.Send() | contract.SourcePublic() | contract.FailReaders():
                pass
            case contract.CancelFetch() | contract.CancelUpstream() | contract.Withhold():
                pass
            case _:
                self.started.append(command)

    # --- what happens next -------------------------------------------------------------------------------------

    def next_event(self) -> contract.Event:
        if self.started and self.rng.random() < 0.6:
            position = self.rng.randrange(len(self.started))
            command = self.started[position]
            del self.started[position]
            event = self.outcome(command)
            if event is not None:
                return event
        return self.surprise()

    def outcome(self, command: contract.Command) -> contract.Event | None:
        chance = self.rng.random()
        match command:
            case contract.OpenInStore(digest):
                if chance < 0.1:
                    return contract.StoreRefused(digest, "full")
                full = LAYOUTS[DIGESTS.index(digest)].full_mask
                return contract.StoreOpened(digest, self.store[digest], self.rng.getrandbits(5) & full, False)
            case contract.StartFetch(fetch) | contract.StoreContent(fetch):
                return self.fetch_outcome(fetch, chance)
            case contract.FetchUpstream(fetch, _, _, pieces):
                if pieces and chance < 0.6:
                    self.started.append(contract.FetchUpstream(fetch, DIGESTS[0], SOURCES[0], pieces & (pieces - 1), 0))
                    return contract.UpstreamPiece(fetch, (pieces & -pieces).bit_length() - 1)
                reason = "" if not pieces else self.rng.choice(["unavailable", "content", "local", "cancelled"])
                return contract.UpstreamEnded(fetch, reason)
            case contract.CheckPublic(check, digest):
                size = LAYOUTS[DIGESTS.index(digest)].size_bytes
                return contract.PublicChecked(check, size, "" if chance < 0.7 else "private", "")
            case contract.CheckDigest(check):
                return contract.DigestChecked(check, chance < 0.8, "disk" if chance > 0.95 else "")
            case contract.AskHoldings(query):
                return contract.HoldingsKnown(query, None if chance < 0.3 else self.rng.getrandbits(5))
            case contract.Send(Announce(digest=text)):
                return self.answer(text, chance) if self.connected else None
        raise AssertionError(f"no outcome for {command}")

    def fetch_outcome(self, fetch: int, chance: float) -> contract.Event:
        return contract.FetchEnded(fetch, "" if chance < 0.6 else self.rng.choice(REASONS), 0.1)

    def answer(self, text: str, chance: float) -> contract.Event:
        digest = Digest.parse(text)
        if chance < 0.15:
            return contract.Received(BlobRefused(text, "private", ""))
        swarm = DIGESTS.index(digest) + 1
        self.swarms[swarm] = digest
        layout = LAYOUTS[swarm - 1]
        return contract.Received(SwarmOpened(swarm, text, layout.size_bytes, layout.piece_size_bytes, b"t"))

    def surprise(self) -> contract.Event:
        kind = self.rng.randrange(16)
        if kind < 3:
            self.last += 1
            self.readers[self.last] = "waiting"
            ranges = self.rng.choice([(), (ByteRange(None, None, 9),), (ByteRange(PIECE, PIECE), ByteRange(0, 3))])
            whole = not ranges or self.rng.random() < 0.3
            digest, source = self.rng.choice(DIGESTS), self.rng.choice(SOURCES)
            background = not ranges and self.rng.random() < 0.3
            return contract.BlobWanted(self.last, digest, source, ranges=ranges, whole=whole, background=background)
        if kind == 3 and self.readers:
            return contract.ReaderAt(self.rng.choice(list(self.readers)), self.rng.randrange(5))
        if kind == 4 and self.readers:
            reader = self.rng.choice(list(self.readers))
            self.readers[reader] = "answered"
            return contract.ReaderClosed(reader)
        if kind == 5:
            return self.flip_link()
        if kind == 6:
            return contract.HashesLearned(self.rng.choice(DIGESTS), self.rng.getrandbits(5))
        if kind == 7:
            return contract.SharingSwitched(self.rng.random() < 0.7)
        if kind == 8:
            return contract.PayloadCame(self.rng.choice(DIGESTS))
        if kind == 9:
            digest, pieces = self.rng.choice(DIGESTS), self.rng.getrandbits(5)
            self.store[digest] &= ~pieces
            return contract.PiecesRotten(digest, pieces)
        if kind == 10:
            return contract.BackgroundDropped(self.rng.choice(DIGESTS))
        return self.supernode_says() if self.connected else contract.Wakeup()

    def flip_link(self) -> contract.Event:
        self.connected = not self.connected
        self.leases.clear()
        self.swarms.clear()
        return contract.SupernodeConnected() if self.connected else contract.SupernodeLost()

    def supernode_says(self) -> contract.Event:
        swarm = self.rng.choice(list(self.swarms) or [99])
        kind = self.rng.randrange(7)
        if kind < 3:
            self.last += 1
            self.leases[self.last] = "open"
            claim = self.rng.choice([b"", b"c" * 32])
            piece, node = self.rng.randrange(6), self.rng.randrange(4)
            return contract.Received(Grant(self.last, swarm, piece, node, 5000, claim=claim))
        if kind == 3:
            node = self.rng.randrange(4)
            return contract.Received(NodeKnown(node, peer_id(node + 1), f"10.0.0.{node + 1}:65002"))
        if kind == 4 and self.leases:
            lease = self.rng.choice(list(self.leases))
            del self.leases[lease]
            return contract.Received(Cancel(lease))
        if kind == 5:
            return contract.Received(Holders(swarm, (1, 2, 3)))
        if self.rng.random() < 0.1:
            self.swarms.pop(swarm, None)
            return contract.Received(Voided(swarm, "bad"))
        state = self.rng.choice(["fetching", "unreachable", "open", "sharing", "not invented yet"])
        return contract.Received(OriginStatus(swarm, state, self.rng.random() < 0.5))

    def drain(self) -> None:
        """Everything that was started ends; nobody is left without an answer."""
        for _ in range(5000):
            if not self.started and all(state == "answered" for state in self.readers.values()):
                break
            if self.started:
                event = self.outcome(self.started.popleft())
                if event is not None:
                    self.feed(event)
            self.now += 0.5
            self.wake()
        else:
            raise AssertionError("something never ends")
        assert not [state for state in self.readers.values() if state == "waiting"]


@settings(max_examples=150)
@given(st.integers(0, 1 << 32), st.integers(10, 250))
def test_invariants_hold_in_any_order(seed: int, steps: int) -> None:
    World(seed, steps).run()


@settings(max_examples=10)
@given(st.integers(0, 1 << 32))
def test_two_runs_of_one_seed_are_equal(seed: int) -> None:
    first, second = World(seed, 150), World(seed, 150)
    first.run()
    second.run()
    assert first.log == second.log
