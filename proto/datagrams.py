"""Frames of a session by datagram where those get through, by its WebSocket where they do not. Pure: no clock, no I/O.

A small frame by TCP is two packets, itself and its acknowledgement; by datagram it is one, and what is said next says
what was heard. Every frame has a number, by whichever way it goes, and is handed on once and in order. A datagram that
nobody says was heard goes again by the WebSocket; and whatever goes there takes along what is not known to be heard, so
that on the WebSocket alone nothing is ever missing.

Datagram: session (4 bytes), number and heard (the low 16 bits of each), the frame, 8 bytes of a keyed hash over all of
them and the whole numbers, so that nothing old passes for new. No frame: "this is what I heard", or PROBE, "do you
hear me". On the WebSocket the frame follows number and heard. The key comes with Welcome: who reads the session's TCP
could write into it as well.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proto.errors import FrameInvalid
from proto.messages import (
    Cancel,
    Failed,
    Grant,
    Holders,
    NodeKnown,
    OriginStatus,
    ReaderMoved,
    Stored,
    Vouched,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proto.messages import Message

KEY_BYTES: Final = 16
PROBE: Final = b"\xc1"
# Fits one packet on any path.
DATAGRAM_BYTES_MAX: Final = 1200
# Frames that nobody said were heard; more go by the WebSocket, and more than that early are not kept.
WINDOW: Final = 64
# A frame goes by the WebSocket this often at least: its end must be noticed, and idle connections are forgotten.
WEBSOCKET_EVERY_S: Final = 120.0
AGAIN_AFTER_MAX_S: Final = 8.0
# A frame sent again weighs as much as so many heard; at the limit datagrams are given up: one in ten lost, or all.
LOSS_WEIGHT: Final = 10
LOSS_LIMIT: Final = 40

# What comes with each piece. The rest is rare, and waits for a lost datagram longer than for a lost segment; and a
# silence that is asked about may be the datagrams' end.
_BY_DATAGRAM: Final = frozenset({Stored, Failed, ReaderMoved, NodeKnown, Vouched, Grant, Cancel, Holders, OriginStatus})
_HEAD: Final = struct.Struct(">IHH")
_PREFIX: Final = struct.Struct(">HH")
_WHOLE: Final = struct.Struct(">QQ")
_TAG_BYTES: Final = 8
_LOW: Final = 0xFFFF
_FRAME_BYTES_MAX: Final = DATAGRAM_BYTES_MAX - _HEAD.size - _TAG_BYTES


@dataclass(frozen=True, slots=True)
class Timing:
    """`ack_after_s`: so long what was heard may wait for a frame to say so; `again_after_s`: then it counts as lost.

    On a slow link a piece takes two seconds, and with it what is said next: a datagram for the acknowledgement alone
    would be a third more of them. Who says something without having heard what was sent `skipped_after_s` ago never
    will.
    """

    ack_after_s: float = 3.0
    again_after_s: float = 4.0
    skipped_after_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Taken:
    """An authentic datagram: the frames that are next in order by it. `is_fresh`: it brought a frame that is new.

    `is_whole`: nothing is missing of what was sent before it. Else the WebSocket may be dead, and is as good as silent.
    """

    frames: list[bytes]
    is_whole: bool
    is_fresh: bool = False
    is_probe: bool = False


def fits(batch: Iterable[Message]) -> bool:
    """Whether a frame of these messages may go by datagram."""
    return all(type(message) in _BY_DATAGRAM for message in batch)


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
        self._sent = 0
        self._heard = 0
        # By number, in order: when it was sent, and the frame.
        self._unheard: dict[int, tuple[float, bytes]] = {}
        self._early: dict[int, bytes] = {}
        # Since when a datagram waits to be said heard.
        self._owing_since_s: float | None = None
        self._again_after_s = self._timing.again_after_s
        self._skipped = False
        self._websocket_s = now_s
        self._losses = 0
        self._given_up = False
        self.is_open = False

    # --- sending ---------------------------------------------------------------------------------------------------

    def by_datagram(self, frame: bytes, now_s: float) -> bytes | None:
        """The frame as a datagram, or None where it has to go by the WebSocket."""
        if (
            not self.is_open
            or len(frame) > _FRAME_BYTES_MAX
            or len(self._unheard) >= WINDOW
            or now_s - self._websocket_s >= WEBSOCKET_EVERY_S
        ):
            return None
        self._sent += 1
        self._unheard[self._sent] = (now_s, frame)
        return self._sealed(frame)

    def by_websocket(self, frame: bytes, now_s: float) -> list[bytes]:
        """What to send in its place, in order."""
        self._websocket_s = now_s
        sent = self._again()
        self._sent += 1
        sent.append(self._prefixed(self._sent, frame))
        return sent

    def heard(self) -> bytes:
        """A datagram that says what was heard and no more."""
        return self._sealed(b"")

    def probe(self) -> bytes:
        """A datagram that asks whether it is heard."""
        return self._sealed(PROBE)

    # --- time ------------------------------------------------------------------------------------------------------

    def next_s(self) -> float | None:
        """When must_say_heard() or lost() will have something, if nothing is sent or heard before."""
        due_s = None if self._owing_since_s is None else self._owing_since_s + self._timing.ack_after_s
        if not self._unheard:
            return due_s
        again_s = self._oldest_s() + self._again_after_s
        return again_s if due_s is None else min(due_s, again_s)

    def must_say_heard(self, now_s: float) -> bool:
        """Whether heard() is due."""
        return self._owing_since_s is not None and now_s >= self._owing_since_s + self._timing.ack_after_s

    def has_lost(self, now_s: float) -> bool:
        """Whether a datagram was not said to be heard in time, or something else was."""
        return self._skipped or now_s >= self._oldest_s() + self._again_after_s

    def lost(self, now_s: float) -> list[bytes]:
        """What to send again by the WebSocket now."""
        if not self.has_lost(now_s):
            return []
        self._again_after_s = min(2 * self._again_after_s, AGAIN_AFTER_MAX_S)
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
        session, low_number, low_heard = _HEAD.unpack_from(datagram)
        number = _near(low_number, self._heard)
        heard = self._sent - ((self._sent - low_heard) & _LOW)
        body, tag = datagram[_HEAD.size : -_TAG_BYTES], datagram[-_TAG_BYTES:]
        if session != self._session or min(number, heard) < 0:
            return None
        if not hmac.compare_digest(tag, self._tag(self._theirs, number, heard, body)):
            return None
        self._said_heard(heard, now_s)
        if body == PROBE:
            return Taken([], number <= self._heard, is_probe=True)
        self.is_open = not self._given_up
        if not body:
            return Taken([], number <= self._heard)
        if self._owing_since_s is None:
            self._owing_since_s = now_s
        if not self._heard < number <= self._heard + WINDOW or number in self._early:
            return Taken([], number <= self._heard)
        self._early[number] = body
        frames = self._in_order()
        return Taken(frames, number <= self._heard, is_fresh=True)

    def take_websocket(self, data: bytes, now_s: float) -> list[bytes]:
        """The frames that are next in order by it. Raises FrameInvalid."""
        if len(data) < _PREFIX.size:
            raise FrameInvalid("frame without its number")
        low_number, low_heard = _PREFIX.unpack_from(data)
        number = _near(low_number, self._heard)
        self._said_heard(self._sent - ((self._sent - low_heard) & _LOW), now_s)
        if number <= self._heard:
            return []
        if number != self._heard + 1:
            raise FrameInvalid(f"frame {number} came after frame {self._heard}")
        self._heard = number
        return [data[_PREFIX.size :], *self._in_order()]

    # --- parts -----------------------------------------------------------------------------------------------------

    def _again(self) -> list[bytes]:
        sent = [self._prefixed(number, frame) for number, (_, frame) in self._unheard.items()]
        self._unheard.clear()
        self._skipped = False
        return sent

    def _oldest_s(self) -> float:
        """When the first of those that nobody said were heard was sent."""
        return next((sent_s for sent_s, _ in self._unheard.values()), math.inf)

    def _in_order(self) -> list[bytes]:
        frames = []
        while (frame := self._early.pop(self._heard + 1, None)) is not None:
            self._heard += 1
            frames.append(frame)
        return frames

    def _said_heard(self, heard: int, now_s: float) -> None:
        for number in [number for number in self._unheard if number <= heard]:
            sent_s, _ = self._unheard.pop(number)
            self._losses = max(0, self._losses - 1)
            # Behind a filled queue an answer takes longer: as long as it last took and half as long again, at least.
            slowly_s = min(1.5 * (now_s - sent_s), AGAIN_AFTER_MAX_S)
            self._again_after_s = max(self._timing.again_after_s, slowly_s, 0.9 * self._again_after_s)
        self._skipped = now_s >= self._oldest_s() + self._timing.skipped_after_s

    def _prefixed(self, number: int, frame: bytes) -> bytes:
        self._owing_since_s = None
        return _PREFIX.pack(number & _LOW, self._heard & _LOW) + frame

    def _sealed(self, body: bytes) -> bytes:
        self._owing_since_s = None
        head = _HEAD.pack(self._session, self._sent & _LOW, self._heard & _LOW)
        return head + body + self._tag(self._ours, self._sent, self._heard, body)

    def _tag(self, way: bytes, number: int, heard: int, body: bytes) -> bytes:
        whole = _WHOLE.pack(number, heard)
        return hashlib.blake2s(whole + body, digest_size=_TAG_BYTES, key=self._key, person=way).digest()


def _near(low: int, whole: int) -> int:
    """The number with these low 16 bits that is nearest."""
    ahead = (low - whole) & _LOW
    return whole + (ahead if ahead <= _LOW // 2 else ahead - _LOW - 1)
