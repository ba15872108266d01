"""Messages to frames and back: msgpack arrays, checked field by field. It trusts nothing that it decodes. No I/O.

A frame is an array of messages, a message `[tag, field, ...]`. Extra fields and unknown tags are skipped (a newer
peer), missing trailing fields take their default (an older one, or one that left out what is the default anyway),
anything else raises FrameInvalid.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import msgpack

from proto.errors import FrameInvalid
from proto.wire import handshake, messages
from proto.wire.messages import Message, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# Large enough for the hashes and bitfield of 65,536 pieces; a frame beyond it is refused before decoding.
FRAME_BYTES_MAX: Final = 4 * 1024 * 1024
MESSAGES_MAX: Final = 16_384
# A frame is closed beyond these; well below the codec's limits, so that one large message more still fits.
FRAME_WEIGHT_BYTES: Final = 1024 * 1024
FRAME_MESSAGES: Final = 4096
TEXT_BYTES_MAX: Final = 4096
BYTES_MAX: Final = 3 * 1024 * 1024
SOURCES_MAX: Final = 16
LIST_MAX: Final = 4096
INT_MAX: Final = 1 << 62
# Of all arrays of a frame: each counts as ARRAY_WEIGHT and one for each entry. 16,384 announcements with three sources
# each are below it; what would only cost us time is given up after a twentieth of a second.
WEIGHT_MAX: Final = 1 << 20
ARRAY_WEIGHT: Final = 8
# No message of ours has one; a newer release's may.
MAP_WEIGHT: Final = 64

# Wire tags. Append only: a tag is never reused.
TAGS: Final[dict[type, int]] = {
    handshake.Challenge: 1,
    handshake.Hello: 2,
    handshake.Welcome: 3,
    handshake.Refused: 4,
    handshake.Ping: 5,
    handshake.Pong: 6,
    handshake.Clock: 7,
    handshake.CertificateDue: 8,
    messages.Announce: 16,
    messages.Withdraw: 17,
    messages.Stored: 18,
    messages.Failed: 19,
    messages.ReaderMoved: 20,
    messages.BlobChecked: 21,
    messages.OriginTried: 22,
    messages.PiecesWanted: 23,
    messages.PreheatEnded: 24,
    messages.StoreReport: 25,
    messages.NodeKnown: 32,
    messages.SwarmOpened: 33,
    messages.BlobRefused: 34,
    messages.PieceHashes: 35,
    messages.Vouched: 36,
    messages.Voided: 37,
    messages.Grant: 38,
    messages.Cancel: 39,
    messages.InlineBlob: 40,
    messages.Holders: 41,
    messages.OriginStatus: 42,
    messages.TorrentOpened: 43,
    messages.TorrentPeers: 44,
    messages.Doubted: 45,
    messages.Preheat: 46,
    messages.Keep: 47,
}


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    kind: object
    # None for what is required; no field's default is None.
    default: object


def _fields_of(cls: type) -> list[_Field]:
    hints = typing.get_type_hints(cls, vars(messages))
    return [
        _Field(field.name, hints[field.name], None if field.default is dataclasses.MISSING else field.default)
        for field in dataclasses.fields(cls)
    ]


@functools.cache
def _fields() -> dict[type, list[_Field]]:
    """Of every message, found when the first is encoded or decoded."""
    return {cls: _fields_of(cls) for cls in TAGS}


# What goes out as it is.
_PLAIN: Final = frozenset({int, str, bytes, bool, float})
_CLASSES: Final = {tag: cls for cls, tag in TAGS.items()}


def encode(batch: Iterable[Message]) -> bytes:
    """One frame with these messages, in order. Raises FrameInvalid when it would exceed the limits."""
    rows = [_row(message) for message in batch]
    if len(rows) > MESSAGES_MAX:
        raise FrameInvalid(f"frame of {len(rows)} messages: at most {MESSAGES_MAX}")
    frame = cast("bytes", msgpack.packb(rows, use_bin_type=True))
    if len(frame) > FRAME_BYTES_MAX:
        raise FrameInvalid(f"frame of {len(frame)} bytes: at most {FRAME_BYTES_MAX}")
    return frame


def _row(message: Message) -> list[object]:
    cls = type(message)
    fields = _fields()[cls]
    row: list[object] = [TAGS[cls]]
    for field in fields:
        value = getattr(message, field.name)
        row.append(value if type(value) in _PLAIN else _plain(value))
    for field in reversed(fields):
        if field.default is None or row[-1] != field.default:
            break
        row.pop()
    return row


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Source):
        return [value.upstream, value.repository, True] if value.manifest else [value.upstream, value.repository]
    return value


def decode(frame: bytes) -> list[Message]:
    """The messages of a frame, unknown ones left out. Raises FrameInvalid."""
    if len(frame) > FRAME_BYTES_MAX:
        raise FrameInvalid(f"frame of {len(frame)} bytes: at most {FRAME_BYTES_MAX}")
    weight = _Weight()
    try:
        rows = msgpack.unpackb(
            frame,
            raw=False,
            object_hook=weight.add_map,
            list_hook=weight.add_array,
            max_bin_len=BYTES_MAX,
            max_str_len=TEXT_BYTES_MAX,
            max_array_len=MESSAGES_MAX,
            max_map_len=64,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise FrameInvalid(f"frame is not msgpack within our limits: {type(error).__name__}") from None
    if not isinstance(rows, list):
        raise FrameInvalid(f"frame holds {type(rows).__name__}: expected an array of messages")
    decoded = (_message(row) for row in rows)
    return [message for message in decoded if message is not None]


class _Weight:
    """What the arrays and maps of one frame weigh. An empty one takes a byte of a frame, and 60 of memory."""

    def __init__(self) -> None:
        self._left = WEIGHT_MAX

    def add_array(self, array: list[object]) -> list[object]:
        """Raises ValueError beyond WEIGHT_MAX."""
        self._left -= ARRAY_WEIGHT + len(array)
        if self._left < 0:
            raise ValueError("too many arrays")
        return array

    def add_map(self, found: dict[object, object]) -> dict[object, object]:
        """Raises ValueError beyond WEIGHT_MAX."""
        self._left -= MAP_WEIGHT
        if self._left < 0:
            raise ValueError("too many maps")
        return found


def _message(row: object) -> Message | None:
    if not isinstance(row, list) or not row or type(row[0]) is not int:
        raise FrameInvalid("message is not an array that starts with its tag")
    cls = _CLASSES.get(row[0])
    if cls is None:
        return None
    values: list[object] = []
    for position, field in enumerate(_fields()[cls], start=1):
        if position >= len(row):
            if field.default is None:
                raise FrameInvalid(f"{cls.__name__}.{field.name} is missing")
            break
        value = row[position]
        if type(value) is field.kind and (type(value) is not int or abs(value) <= INT_MAX):
            values.append(value)
        else:
            values.append(_check(f"{cls.__name__}.{field.name}", field.kind, value))
    return cast("Message", cls(*values))


def _check(name: str, kind: object, value: object) -> object:
    """The value as the field's type; bool is no int here, an int is a fine float."""
    if isinstance(kind, types.GenericAlias):
        return _check_tuple(name, typing.get_args(kind)[0], value)
    if kind is Source:
        if isinstance(value, list) and len(value) >= 2 and isinstance(value[0], str) and isinstance(value[1], str):
            return Source(value[0], value[1], len(value) > 2 and value[2] is True)
    elif kind is float:
        if type(value) in (int, float):
            return float(cast("float", value))
    elif type(value) is kind and (type(value) is not int or abs(value) <= INT_MAX):
        return value
    raise FrameInvalid(f"{name} has the wrong type {type(value).__name__}")


def _check_tuple(name: str, item_kind: object, value: object) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise FrameInvalid(f"{name} has the wrong type {type(value).__name__}")
    limit = SOURCES_MAX if item_kind is Source else LIST_MAX
    if len(value) > limit:
        raise FrameInvalid(f"{name} has {len(value)} entries: at most {limit}")
    return tuple(_check(name, item_kind, item) for item in value)


# --- what waits for the other side ------------------------------------------------------------------------------


class Outbox:
    """Messages that wait for one session. `bytes_waiting` is their weight, until they are taken."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self.bytes_waiting = 0

    def add(self, message: Message) -> None:
        """Append in order."""
        self._messages.append(message)
        self.bytes_waiting += weight(message)

    def take(self) -> list[Message]:
        """Everything, in order."""
        taken, self._messages = self._messages, []
        self.bytes_waiting = 0
        return taken


def frames(batch: list[Message]) -> Iterator[bytes]:
    """The batch as frames within the codec's limits, in order."""
    part: list[Message] = []
    part_bytes = 0
    for message in batch:
        part.append(message)
        part_bytes += weight(message)
        if part_bytes >= FRAME_WEIGHT_BYTES or len(part) >= FRAME_MESSAGES:
            yield encode(part)
            part, part_bytes = [], 0
    if part:
        yield encode(part)


def weight(message: Message) -> int:
    """About how many bytes the message takes on the wire and in memory; never less than on the wire."""
    own = _WEIGHTS.get(type(message))
    return 128 if own is None else own(message)


# Of messages that may be long.
_WEIGHTS: Final[dict[type, Callable[[Any], int]]] = {
    messages.Announce: lambda said: 160 + 64 * len(said.sources) + len(said.held) + len(said.hashes),
    messages.PieceHashes: lambda said: 160 + len(said.hashes),
    messages.InlineBlob: lambda said: 64 + len(said.content),
    messages.SwarmOpened: lambda said: 512,
    messages.TorrentOpened: lambda said: 64 + len(said.metainfo),
    messages.Holders: lambda said: 64 + 9 * len(said.nodes),
    messages.TorrentPeers: lambda said: 64 + 9 * len(said.nodes),
}
