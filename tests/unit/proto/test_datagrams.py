"""Frames by datagram and by WebSocket: each once, in order, whatever is lost, doubled, late or forged."""

from __future__ import annotations

import random

import pytest

from proto.datagrams import (
    KEY_BYTES,
    LOSS_LIMIT,
    LOSS_WEIGHT,
    WEBSOCKET_EVERY_S,
    WINDOW,
    Channel,
    Timing,
    fits,
    is_waited_for,
    session_of,
)
from proto.errors import FrameInvalid
from proto.wire.messages import BlobChecked, Grant, OriginStatus, Stored

KEY = bytes(range(KEY_BYTES))
SESSION = 0x01020304
TIMING = Timing()
# From the probe to its answer in opened(); the first round trip counts three times.
ROUND_TRIP_S = 0.2
PATIENCE_S = 3 * ROUND_TRIP_S


def channel(*, is_supernode: bool, key: bytes = KEY, session: int = SESSION) -> Channel:
    return Channel(key, session, -1.0, is_supernode=is_supernode)


def opened() -> tuple[Channel, Channel]:
    """Supernode and peer, after the peer's probe."""
    supernode, peer = channel(is_supernode=True), channel(is_supernode=False)
    taken = supernode.take_datagram(peer.probe(-1.0), -1.0)
    assert taken is not None
    assert taken.is_probe
    assert peer.take_datagram(supernode.heard(-1.0), -1.0 + ROUND_TRIP_S) is not None
    assert supernode.take_datagram(peer.heard(-1.0 + ROUND_TRIP_S), -1.0 + ROUND_TRIP_S) is not None
    return supernode, peer


def datagram(sender: Channel, frame: bytes, now_s: float = 0.0) -> bytes:
    sent = sender.by_datagram(frame, now_s)
    assert sent is not None
    return sent


def frames(receiver: Channel, sent: bytes, now_s: float = 0.0) -> list[bytes]:
    taken = receiver.take_datagram(sent, now_s)
    assert taken is not None
    return taken.frames


def test_nothing_goes_by_datagram_before_the_other_side_was_heard_to_hear() -> None:
    supernode, peer = channel(is_supernode=True), channel(is_supernode=False)
    assert peer.by_datagram(b"x", 0.0) is None
    supernode.take_datagram(peer.probe(0.0), 0.0)
    assert supernode.by_datagram(b"x", 0.0) is None


def test_a_frame_arrives_once_and_is_said_to_be_heard_by_the_next_frame() -> None:
    supernode, peer = opened()
    sent = datagram(supernode, b"grant", 1.0)
    assert session_of(sent) == SESSION
    assert frames(peer, sent, 1.0) == [b"grant"]
    assert frames(peer, sent, 1.0) == []
    assert supernode.next_s() == pytest.approx(1.0 + PATIENCE_S + TIMING.soon_s)
    assert frames(supernode, datagram(peer, b"stored", 1.2), 1.2) == [b"stored"]
    assert supernode.copies(100.0) == []
    assert supernode.next_s() == 1.2 + TIMING.late_s


def test_what_was_heard_is_said_alone_when_nothing_else_is() -> None:
    supernode, peer = opened()
    frames(peer, datagram(supernode, b"grant", 1.0), 1.0)
    assert peer.next_s() == 1.0 + TIMING.soon_s
    assert not peer.must_say_heard(1.0)
    assert peer.must_say_heard(1.0 + TIMING.soon_s)
    assert frames(supernode, peer.heard(4.0), 4.0) == []
    assert not peer.must_say_heard(100.0)
    assert supernode.next_s() is None


def test_what_answers_or_what_nobody_waits_for_may_be_said_to_be_heard_late() -> None:
    supernode, peer = opened()
    frames(peer, datagram(supernode, b"grant", 1.0), 1.0)
    frames(supernode, datagram(peer, b"stored", 1.1), 1.1)
    assert supernode.next_s() == 1.1 + TIMING.late_s
    assert peer.next_s() == pytest.approx(1.1 + PATIENCE_S + TIMING.late_s)
    unhurried = supernode.by_datagram(b"holders", 1.2, waited_for=False)
    assert unhurried is not None
    frames(peer, unhurried, 1.2)
    assert peer.next_s() == 1.2 + TIMING.late_s


def test_a_lost_datagram_goes_again_as_one_and_then_by_the_websocket_and_those_behind_it_wait() -> None:
    supernode, peer = opened()
    datagram(supernode, b"one", 0.0)
    assert frames(peer, datagram(supernode, b"two", 0.1), 0.1) == []
    assert supernode.copies(0.5) == []
    first_s = PATIENCE_S + TIMING.soon_s + 0.01
    (again,) = supernode.copies(first_s)
    assert not supernode.has_lost(first_s)
    second_s = first_s + 2 * PATIENCE_S + TIMING.soon_s + 0.01
    assert not supernode.has_lost(second_s - 0.02)
    assert supernode.has_lost(second_s)
    assert supernode.copies(first_s + 0.01) == [], "once"
    by_websocket = supernode.lost(second_s)
    assert [peer.take_websocket(frame, second_s) for frame in by_websocket] == [[b"one", b"two"], []]
    assert frames(peer, again, second_s) == []
    assert supernode.lost(100.0) == []


def test_a_copy_arrives_as_the_first_would_have() -> None:
    supernode, peer = opened()
    datagram(supernode, b"one", 0.0)
    assert frames(peer, datagram(supernode, b"two", 0.1), 0.1) == []
    (again,) = supernode.copies(1.05)
    assert frames(peer, again, 1.1) == [b"one", b"two"]
    supernode.take_datagram(peer.heard(1.1), 1.1)
    assert supernode.next_s() is None


def test_who_answers_without_having_heard_never_will() -> None:
    supernode, peer = opened()
    datagram(supernode, b"one", 0.0)
    frames(supernode, datagram(peer, b"a", PATIENCE_S - 0.01), PATIENCE_S - 0.01)
    assert supernode.copies(PATIENCE_S - 0.01) == []
    frames(supernode, datagram(peer, b"b", PATIENCE_S + 0.01), PATIENCE_S + 0.01)
    (again,) = supernode.copies(PATIENCE_S + 0.01)
    assert frames(peer, again, 0.7) == [b"one"]


def test_a_lost_answer_goes_again_when_what_it_answers_does() -> None:
    supernode, peer = opened()
    settle(supernode, peer, 0.02)
    frames(peer, datagram(supernode, b"grant", 101.0), 101.01)
    datagram(peer, b"stored, lost", 101.1)
    due_s = supernode.next_s()
    assert due_s is not None
    assert due_s < 101.0 + TIMING.soon_s + 0.15
    (again,) = supernode.copies(due_s)
    assert frames(peer, again, due_s + 0.01) == []
    (stored,) = peer.copies(due_s + 0.01)
    assert frames(supernode, stored, due_s + 0.02) == [b"stored, lost"]
    assert supernode.copies(110.0) == [], "the report said that the grant was heard"


def test_a_gap_is_said_at_once() -> None:
    supernode, peer = opened()
    settle(supernode, peer, 0.02)
    datagram(peer, b"lost", 101.0)
    frames(supernode, datagram(peer, b"stored", 101.2), 101.21)
    due_s = supernode.next_s()
    assert due_s == 101.21 + TIMING.gap_s
    peer.take_datagram(supernode.heard(due_s), due_s)
    first, *_ = peer.copies(due_s)
    assert frames(supernode, first, due_s + 0.01) == [b"lost", b"stored"]


def test_what_says_no_more_than_what_was_heard_shows_a_gap_too_and_that_is_said_once() -> None:
    supernode, peer = opened()
    datagram(peer, b"lost", 1.0)
    supernode.take_datagram(peer.heard(1.1), 1.1)
    assert supernode.next_s() == 1.1 + TIMING.gap_s
    peer.take_datagram(supernode.heard(1.15), 1.15)
    supernode.take_datagram(peer.heard(1.2), 1.2)
    assert supernode.next_s() is None


def test_patience_follows_the_round_trip_and_not_what_waited_at_the_other_side() -> None:
    supernode, peer = opened()
    settle(supernode, peer, 0.05, held_s=0.3)
    datagram(supernode, b"grant", 100.0)
    due_s = supernode.next_s()
    assert due_s is not None
    assert 0.14 < due_s - 100.0 - TIMING.soon_s < 0.2


def test_the_answer_to_one_of_two_copies_measures_nothing() -> None:
    supernode, peer = opened()
    settle(supernode, peer, 0.05)
    first = datagram(supernode, b"grant", 100.0)
    (again,) = supernode.copies(101.0)
    for sent in (first, again):
        frames(peer, sent, 110.0)
    taken = supernode.take_datagram(peer.heard(110.0), 110.0)
    assert taken is not None
    assert taken.round_trip_s is None


def settle(supernode: Channel, peer: Channel, round_trip_s: float, *, held_s: float = 0.0) -> None:
    """Let both measure this round trip, before 100.0 s."""
    now_s = 0.0
    for one, other in ((supernode, peer), (peer, supernode)) * 100:
        frames(other, datagram(one, b"x", now_s), now_s + round_trip_s / 2)
        heard = other.heard(now_s + round_trip_s / 2 + held_s)
        now_s += round_trip_s + held_s
        assert one.take_datagram(heard, now_s)


def test_the_websocket_takes_along_what_is_not_known_to_be_heard() -> None:
    supernode, peer = opened()
    datagram(supernode, b"one")
    frames(peer, datagram(supernode, b"two"))
    sent = supernode.by_websocket(b"three", 0.0)
    assert [peer.take_websocket(frame, 0.0) for frame in sent] == [[b"one", b"two"], [], [b"three"]]


def test_a_datagram_that_overtakes_the_websocket_waits_for_it() -> None:
    supernode, peer = opened()
    (slow,) = supernode.by_websocket(b"hashes", 0.0)
    assert frames(peer, datagram(supernode, b"grant")) == []
    assert peer.take_websocket(slow, 0.0) == [b"hashes", b"grant"]


def test_who_is_heard_behind_a_gap_counts_as_silent() -> None:
    supernode, peer = opened()
    (slow,) = supernode.by_websocket(b"never", 0.0)
    for sent in (supernode.heard(0.0), datagram(supernode, b"grant"), supernode.heard(0.0)):
        taken = peer.take_datagram(sent, 0.0)
        assert taken is not None
        assert not taken.is_whole
    peer.take_websocket(slow, 1.0)
    taken = peer.take_datagram(supernode.heard(0.0), 1.0)
    assert taken is not None
    assert taken.is_whole


def test_a_frame_missing_on_the_websocket_is_against_the_protocol() -> None:
    supernode, peer = opened()
    supernode.by_websocket(b"one", 0.0)
    (second,) = supernode.by_websocket(b"two", 0.0)
    with pytest.raises(FrameInvalid, match="frame 2 came after frame 0"):
        peer.take_websocket(second, 0.0)
    with pytest.raises(FrameInvalid, match="without its number"):
        peer.take_websocket(b"\0", 0.0)


def test_what_is_not_the_other_sides_is_dropped() -> None:
    supernode, peer = opened()
    good = datagram(supernode, b"grant")
    for position in range(len(good)):
        changed = bytearray(good)
        changed[position] ^= 1
        assert peer.take_datagram(bytes(changed), 0.0) is None
    assert peer.take_datagram(good[:15], 0.0) is None
    assert session_of(good[:15]) == 0
    assert supernode.take_datagram(good, 0.0) is None, "its own, sent back"
    for stranger in (channel(is_supernode=True, key=bytes(KEY_BYTES)), channel(is_supernode=True, session=7)):
        assert peer.take_datagram(stranger.heard(0.0), 0.0) is None
    assert frames(peer, good) == [b"grant"]


def test_an_old_datagram_does_not_pass_for_a_new_one_when_numbers_come_round() -> None:
    supernode, peer = opened()
    old = datagram(supernode, b"old")
    frames(peer, old)
    for _ in range(0x10000 - 1):
        for frame in supernode.by_websocket(b"x", 0.0):
            peer.take_websocket(frame, 0.0)
    assert peer.take_datagram(old, 0.0) is None
    assert frames(peer, datagram(supernode, b"new")) == [b"new"]


def test_large_frames_and_those_beyond_the_window_go_by_the_websocket() -> None:
    supernode, _ = opened()
    assert supernode.by_datagram(bytes(1200), 0.0) is None
    for _ in range(WINDOW):
        datagram(supernode, b"x")
    assert supernode.by_datagram(b"x", 0.0) is None
    assert len(supernode.by_websocket(b"x", 0.0)) == WINDOW + 1


def test_now_and_then_a_frame_goes_by_the_websocket() -> None:
    supernode, _ = opened()
    assert supernode.by_datagram(b"x", WEBSOCKET_EVERY_S) is None
    supernode.by_websocket(b"x", WEBSOCKET_EVERY_S)
    assert supernode.by_datagram(b"x", WEBSOCKET_EVERY_S + 1) is not None


def lose_twice(sender: Channel, now_s: float) -> list[bytes]:
    """Nothing arrives any more; what then goes by the WebSocket."""
    assert len(sender.copies(now_s + 10.0)) == 1
    return sender.lost(now_s + 20.0)


def test_datagrams_that_get_lost_again_and_again_are_given_up() -> None:
    supernode, peer = opened()
    now_s = 0.0
    for _ in range(LOSS_LIMIT // LOSS_WEIGHT):
        datagram(supernode, b"x", now_s)
        assert len(lose_twice(supernode, now_s)) == 1
        now_s += 20.0
    assert supernode.by_datagram(b"x", now_s) is None
    supernode.take_datagram(peer.heard(now_s), now_s)
    assert not supernode.is_open


def test_a_few_losses_among_many_are_borne() -> None:
    supernode, peer = opened()
    now_s = 0.0
    for round_ in range(60):
        for frame in supernode.by_websocket(b"y", now_s):
            peer.take_websocket(frame, now_s)
        if round_ % 10 == 9:
            datagram(supernode, b"lost", now_s)
            for frame in lose_twice(supernode, now_s):
                peer.take_websocket(frame, now_s)
            now_s += 20.0
        frames(peer, datagram(supernode, b"x", now_s), now_s)
        supernode.take_datagram(peer.heard(now_s), now_s)
        now_s += 0.1
    assert supernode.is_open


class Network:
    """Both sides, between them datagrams that get lost, doubled and delayed, and a WebSocket that is only late."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.loss = self.rng.choice((0.0, 0.05, 0.5, 1.0))
        self.sides = opened()
        self.now_s = 0.0
        self.flying: list[tuple[float, int, bytes]] = []
        self.streams: tuple[list[tuple[float, bytes]], list[tuple[float, bytes]]] = ([], [])
        self.got: tuple[list[bytes], list[bytes]] = ([], [])
        self.sent = [0, 0]

    def fly(self, to: int, datagram: bytes) -> None:
        for _ in range(self.rng.choice((1, 1, 1, 2))):
            if self.rng.random() >= self.loss:
                self.flying.append((self.now_s + self.rng.uniform(0.0, 0.3), to, datagram))

    def stream(self, to: int, data: list[bytes]) -> None:
        self.streams[to].extend((self.now_s + 0.2, frame) for frame in data)

    def say(self, side: int) -> None:
        self.sent[side] += 1
        frame = b"%d" % self.sent[side]
        wired = None
        if self.rng.random() < 0.9:
            waited_for = self.rng.random() < 0.7
            wired = self.sides[side].by_datagram(frame, self.now_s, waited_for=waited_for)
        if wired is not None:
            self.fly(1 - side, wired)
        else:
            self.stream(1 - side, self.sides[side].by_websocket(frame, self.now_s))

    def turn(self, side: int) -> None:
        channel, stream = self.sides[side], self.streams[side]
        for copy in channel.copies(self.now_s):
            self.fly(1 - side, copy)
        self.stream(1 - side, channel.lost(self.now_s))
        if channel.must_say_heard(self.now_s):
            self.fly(1 - side, channel.heard(self.now_s))
        while stream and stream[0][0] <= self.now_s:
            self.got[side].extend(channel.take_websocket(stream.pop(0)[1], self.now_s))
        for arrival in sorted(item for item in self.flying if item[0] <= self.now_s and item[1] == side):
            self.flying.remove(arrival)
            self.got[side].extend(frames(channel, arrival[2], self.now_s))


@pytest.mark.parametrize("seed", range(20))
def test_every_frame_arrives_once_and_in_order(seed: int) -> None:
    network = Network(seed)
    for step in range(3000):
        network.now_s += 0.05
        for side in (0, 1):
            if step < 2500 and network.rng.random() < 0.1:
                network.say(side)
            network.turn(side)
    for side in (0, 1):
        assert network.got[side] == [b"%d" % number for number in range(1, network.sent[1 - side] + 1)]


def test_only_what_comes_with_each_piece_may_go_by_datagram() -> None:
    assert fits([Stored(1, 1, 1, 1), Grant(1, 1, 1, 1, 1)])
    assert not fits([Stored(1, 1, 1, 1), BlobChecked(1, True)])


def test_what_is_waited_for_makes_its_whole_frame_so() -> None:
    unhurried = OriginStatus(1, "fetching", False)
    assert is_waited_for([unhurried, Grant(1, 1, 1, 1, 1)])
    assert not is_waited_for([unhurried])
