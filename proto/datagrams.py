"""Frames of a session by datagram where those get through, by its WebSocket where they do not. Pure: no clock, no I/O.

A small frame by TCP is two packets, itself and its acknowledgement; by datagram it is one, and what is said next says
what was heard. Every frame has a number, by whichever way it goes, and is handed on once and in order. A datagram that
nobody says was heard goes once more, and then by the WebSocket; and whatever goes there takes along what is not known
to be heard, so that on the WebSocket alone nothing is ever missing.

An answer soon asks for nothing: a frame says WANTS, "say soon that you heard", unless nobody waits for it, or it is
what says so itself of one that did. If that one is lost, what it answers goes again, and tells that it was not heard.

Datagram: session (4 bytes), number and heard (the low 16 bits of each), WANTS and for how long what is said to be heard
waited (1 byte), the frame, 8 bytes of a keyed hash over all of them and the whole numbers, so that nothing old passes
for new. No frame: "this is what I heard", or PROBE, "do you hear me". On the WebSocket the frame follows number and
heard. The key comes with Welcome: who reads the session's TCP could write into it as well.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proto.errors import FrameInvalid
from proto.round_trip import RoundTrip
from proto.wire.messages import Cancel, Failed, Grant, Holders, NodeKnown, OriginStatus, ReaderMoved, Stored, Vouched

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proto.wire.messages import Message

KEY_BYTES: Final = 16
PROBE: Final = b"\xc1"
# Fits one packet on any path.
DATAGRAM_BYTES_MAX: Final = 1200
# Frames that nobody said were heard; more go by the WebSocket, and more than that early are not kept.
WINDOW: Final = 64
# A frame goes by the WebSocket this often at least: its end must be noticed, and idle connections are forgotten.
WEBSOCKET_EVERY_S: Final = 120.0
# A frame lost twice weighs as much as so many heard; at the limit datagrams are given up: a third lost, or all.
LOSS_WEIGHT: Final = 10
LOSS_LIMIT: Final = 40

# What comes with each piece. The rest is rare, and waits for a lost datagram longer than for a lost segment; and a
# silence that is asked about may be the datagrams' end.
_BY_DATAGRAM: Final = frozenset({Stored, Failed, ReaderMoved, NodeKnown, Vouched, Grant, Cancel, Holders, OriginStatus})
# What somebody or a link waits for. The rest may be missed until the next frame shows the gap.
_WAITED_FOR: Final = frozenset({Stored, Failed, Grant, Cancel})
_HEAD: Final = struct.Struct(">IHHB")
_PREFIX: Final = struct.Struct(">HH")
_WHOLE: Final = struct.Struct(">QQB")
_WANTS: Final = 0x80
_HELD_MAX: Final = 0x7F
_HELD_UNITS_PER_S: Final = 32
_TAG_BYTES: Final = 8
_LOW: Final = 0xFFFF
_FRAME_BYTES_MAX: Final = DATAGRAM_BYTES_MAX - _HEAD.size - _TAG_BYTES


@dataclass(frozen=True, slots=True)
class Timing:
    """How long what was heard may wait for a frame to say so: `soon_s` if that is wanted, else `late_s`.

    A grant and the report of the piece before it are mostly closer than `soon_s`. To the next grant it is the time of a
    piece, two seconds on a slow link: a datagram for each acknowledgement alone would be a third more of them. Behind a
    gap it is said after `gap_s`: what is missing may be on its way.
    """

    soon_s: float = 0.4
    late_s: float = 3.0
    gap_s: float = 0.05


@dataclass(frozen=True, slots=True)
class Taken:
    """An authentic datagram: the frames that are next in order by it. `is_fresh`: it brought a frame that is new.

    `is_whole`: nothing is missing of what was sent before it. Else the WebSocket may be dead, and is as good as silent.
    `round_trip_s`: measured by it, without what the other side let it wait.
    """

    frames: list[bytes]
    is_whole: bool
    is_fresh: bool = False
    is_probe: bool = False
    round_trip_s: float | None = None


@dataclass(slots=True)
class _Unheard:
    """A frame that went by datagram. `sent_s` is of the last time, `is_missed`: the other side spoke without it."""

    frame: bytes
    wants: bool
    sent_s: float
    is_copied: bool = False
    is_missed: bool = False


def fits(batch: Iterable[Message]) -> bool:
    """Whether a frame of these messages may go by datagram."""
    return all(type(message) in _BY_DATAGRAM for message in batch)


def is_waited_for(batch: Iterable[Message]) -> bool:
    """Whether the loss of a frame of these messages would hold anything up."""
    return any(type(message) in _WAITED_FOR for message in batch)


def session_of(datagram: bytes) -> int:
    """The session that a datagram says it is of; 0, which none is, for what is no datagram of ours."""
    return int(_HEAD.unpack_from(datagram)[0]) if len(datagram) >= _HEAD.size + _TAG_BYTES else 0


class Channel:
    """One side of one session. Nothing goes by datagram before the other side was heard to hear us."""

    def __init__(
        self, key: bytes, session: int, now_s: float, *, is_supernode: bool, timing: Timing | None = None
    ) -> None:
        self._key = key
        self._session = session
        self._timing = timing or Timing()
        self._ours, self._theirs = (b"down", b"up") if is_supernode else (b"up", b"down")
        self._round_trip = RoundTrip()
        self._sent = 0
        self._heard = 0
        # When it last grew.
        self._heard_at_s = now_s
        # By number, in order.
        self._unheard: dict[int, _Unheard] = {}
        self._early: dict[int, bytes] = {}
        # The last number that went by the WebSocket and the last one that the other side said it heard.
        self._by_websocket = 0
        self._said_heard = 0
        # When it has to be said what was heard, and whether that is wanted.
        self._owing_until_s: float | None = None
        self._is_wanted = False
        # Sent before the other side was heard to hear us, the last when: one and its answer are a round trip.
        self._asked = 0
        self._asked_s = now_s
        # The last number that a gap was said to be before.
        self._gap_before = 0
        self._websocket_s = now_s
        self._losses = 0
        self._given_up = False
        self.is_open = False

    # --- sending ---------------------------------------------------------------------------------------------------

    def by_datagram(self, frame: bytes, now_s: float, *, waited_for: bool = True) -> bytes | None:
        """The frame as a datagram, or None where it has to go by the WebSocket. `waited_for`: see is_waited_for."""
        if (
            not self.is_open
            or len(frame) > _FRAME_BYTES_MAX
            or len(self._unheard) >= WINDOW
            or now_s - self._websocket_s >= WEBSOCKET_EVERY_S
        ):
            return None
        self._sent += 1
        wants = waited_for and not self._is_wanted
        self._unheard[self._sent] = _Unheard(frame, wants, now_s)
        return self._sealed(self._sent, frame, now_s, wants=wants)

    def by_websocket(self, frame: bytes, now_s: float) -> list[bytes]:
        """What to send in its place, in order."""
        self._websocket_s = now_s
        sent = self._again()
        self._sent += 1
        sent.append(self._prefixed(self._sent, frame))
        self._by_websocket = self._sent
        return sent

    def heard(self, now_s: float) -> bytes:
        """A datagram that says what was heard and no more."""
        return self._sealed(self._sent, b"", now_s)

    def probe(self, now_s: float) -> bytes:
        """A datagram that asks whether it is heard."""
        return self._sealed(self._sent, PROBE, now_s)

    # --- time ------------------------------------------------------------------------------------------------------

    def next_s(self) -> float | None:
        """When must_say_heard(), copies() or lost() will have something, if nothing is sent or heard before."""
        due_s = [self._missed_s(one) for one in self._unheard.values()]
        if self._owing_until_s is not None:
            due_s.append(self._owing_until_s)
        return min(due_s, default=None)

    def must_say_heard(self, now_s: float) -> bool:
        """Whether heard() is due."""
        return self._owing_until_s is not None and now_s >= self._owing_until_s

    def copies(self, now_s: float) -> list[bytes]:
        """What to send once more by datagram now."""
        due = [
            (number, one) for number, one in self._unheard.items() if not one.is_copied and now_s >= self._missed_s(one)
        ]
        if any(not one.is_missed for _, one in due):
            self._round_trip.missed()
        for _, one in due:
            one.wants = one.is_copied = True
            one.is_missed = False
            one.sent_s = now_s
        return [self._sealed(number, one.frame, now_s, wants=True) for number, one in due]

    def has_lost(self, now_s: float) -> bool:
        """Whether something has to go again by the WebSocket: a second copy was not said to be heard in time either."""
        return any(one.is_copied and now_s >= self._missed_s(one) for one in self._unheard.values())

    def lost(self, now_s: float) -> list[bytes]:
        """What to send again by the WebSocket now."""
        if not self.has_lost(now_s):
            return []
        self._round_trip.missed()
        self._losses += LOSS_WEIGHT
        if self._losses >= LOSS_LIMIT:
            self.is_open, self._given_up = False, True
        self._websocket_s = now_s
        return self._again()

    # --- receiving -------------------------------------------------------------------------------------------------

    def take_datagram(self, datagram: bytes, now_s: float) -> Taken | None:
        """None for what the other side did not send in this session."""
        if len(datagram) < _HEAD.size + _TAG_BYTES:
            return None
        session, low_number, low_heard, flags = _HEAD.unpack_from(datagram)
        number = _near(low_number, self._heard)
        heard = self._sent - ((self._sent - low_heard) & _LOW)
        body, tag = datagram[_HEAD.size : -_TAG_BYTES], datagram[-_TAG_BYTES:]
        if session != self._session or min(number, heard) < 0:
            return None
        if not hmac.compare_digest(tag, self._tag(self._theirs, number, heard, flags, body)):
            return None
        round_trip_s = None if body == PROBE else self._measured(heard, flags & _HELD_MAX, now_s)
        self._take_heard(heard)
        self._take_missed(now_s)
        if body == PROBE:
            return Taken([], number <= self._heard, is_probe=True)
        self.is_open = not self._given_up
        if not body:
            if number > max(self._heard, self._gap_before):
                # There was a frame. Once, for the other side may find as much missing, and so on.
                self._owe(now_s, wanted=False, at_once=True)
            self._gap_before = max(self._gap_before, number)
            return Taken([], number <= self._heard, round_trip_s=round_trip_s)
        frames, is_fresh = self._take_numbered(number, body, now_s)
        # Others that waited for it may have wanted it.
        self._owe(now_s, wanted=bool(flags & _WANTS) or len(frames) > 1, at_once=not frames)
        return Taken(frames, number <= self._heard, is_fresh, round_trip_s=round_trip_s)

    def take_websocket(self, data: bytes, now_s: float) -> list[bytes]:
        """The frames that are next in order by it. Raises FrameInvalid."""
        if len(data) < _PREFIX.size:
            raise FrameInvalid("frame without its number")
        low_number, low_heard = _PREFIX.unpack_from(data)
        number = _near(low_number, self._heard)
        self._take_heard(self._sent - ((self._sent - low_heard) & _LOW))
        if number <= self._heard:
            return []
        if number != self._heard + 1:
            raise FrameInvalid(f"frame {number} came after frame {self._heard}")
        self._heard, self._heard_at_s = number, now_s
        waited = self._in_order(now_s)
        if waited:
            # It was a gap that is none any more.
            self._owing_until_s = None
            self._owe(now_s, wanted=True)
        return [data[_PREFIX.size :], *waited]

    # --- parts -----------------------------------------------------------------------------------------------------

    def _again(self) -> list[bytes]:
        sent = [self._prefixed(number, one.frame) for number, one in self._unheard.items()]
        self._by_websocket = max(self._unheard, default=self._by_websocket)
        self._unheard.clear()
        return sent

    def _missed_s(self, one: _Unheard) -> float:
        """When this frame counts as lost."""
        if one.is_missed:
            return one.sent_s
        ack_s = self._timing.soon_s if one.wants and not self._overtakes() else self._timing.late_s
        return one.sent_s + self._round_trip.patience_s + ack_s

    def _overtakes(self) -> bool:
        """Whether datagrams may wait at the other side for a frame that the WebSocket still carries."""
        return self._said_heard < self._by_websocket

    def _take_numbered(self, number: int, body: bytes, now_s: float) -> tuple[list[bytes], bool]:
        """The frames that are next in order, and whether this one is new."""
        if not self._heard < number <= self._heard + WINDOW or number in self._early:
            return [], False
        self._early[number] = body
        return self._in_order(now_s), True

    def _in_order(self, now_s: float) -> list[bytes]:
        frames = []
        while (frame := self._early.pop(self._heard + 1, None)) is not None:
            self._heard += 1
            self._heard_at_s = now_s
            frames.append(frame)
        return frames

    def _owe(self, now_s: float, *, wanted: bool, at_once: bool = False) -> None:
        """A frame came, and it has to be said what was heard. `at_once`: behind a gap, or once more."""
        timing = self._timing
        until_s = now_s + (timing.gap_s if at_once else timing.soon_s if wanted else timing.late_s)
        self._owing_until_s = until_s if self._owing_until_s is None else min(self._owing_until_s, until_s)
        self._is_wanted = self._is_wanted or (wanted and not self._early)

    def _measured(self, heard: int, held: int, now_s: float) -> float | None:
        """The round trip of what is now said to be heard, if that went once and did not wait long."""
        if not self.is_open and self._asked == 1:
            return self._sample(now_s - self._asked_s)
        newly = [one for number, one in self._unheard.items() if number <= heard]
        if heard not in self._unheard or held == _HELD_MAX or self._overtakes() or any(one.is_copied for one in newly):
            return None
        return self._sample(now_s - newly[-1].sent_s - held / _HELD_UNITS_PER_S)

    def _sample(self, round_trip_s: float) -> float:
        self._round_trip.measure(max(0.0, round_trip_s))
        return max(0.0, round_trip_s)

    def _take_heard(self, heard: int) -> None:
        self._said_heard = max(self._said_heard, heard)
        for number in [number for number in self._unheard if number <= heard]:
            del self._unheard[number]
            self._losses = max(0, self._losses - 1)

    def _take_missed(self, now_s: float) -> None:
        """The other side spoke: what should have been heard by then, and was not, never will be."""
        if self._overtakes():
            return
        for one in self._unheard.values():
            one.is_missed = one.is_missed or now_s >= one.sent_s + self._round_trip.patience_s

    def _prefixed(self, number: int, frame: bytes) -> bytes:
        self._owing_until_s, self._is_wanted = None, False
        return _PREFIX.pack(number & _LOW, self._heard & _LOW) + frame

    def _sealed(self, number: int, body: bytes, now_s: float, *, wants: bool = False) -> bytes:
        self._owing_until_s, self._is_wanted = None, False
        if not self.is_open:
            self._asked += 1
            self._asked_s = now_s
        held = min(int((now_s - self._heard_at_s) * _HELD_UNITS_PER_S), _HELD_MAX)
        flags = held | (_WANTS if wants else 0)
        head = _HEAD.pack(self._session, number & _LOW, self._heard & _LOW, flags)
        return head + body + self._tag(self._ours, number, self._heard, flags, body)

    def _tag(self, way: bytes, number: int, heard: int, flags: int, body: bytes) -> bytes:
        whole = _WHOLE.pack(number, heard, flags)
        return hashlib.blake2s(whole + body, digest_size=_TAG_BYTES, key=self._key, person=way).digest()


def _near(low: int, whole: int) -> int:
    """The number with these low 16 bits that is nearest."""
    ahead = (low - whole) & _LOW
    return whole + (ahead if ahead <= _LOW // 2 else ahead - _LOW - 1)
