"""What an event log looks like: every event the scheduler took, when, and the commands it gave. Bytes in, bytes out.

A file is MAGIC, one byte of format version, then frames: length of the content, its CRC-32, the CRC-32 of these 8 bytes
(4 bytes each, little endian), and the content, msgpack. The first frame is the header, a map. Each further one is a
record, an array of `[entries, commands, digest]`, until a text says why the log ends. An entry is `[now, event]`,
`now` nil where it is the same as before, or nil where a turn of the loop ended (next_wakeup() was asked). `commands`
is packed msgpack, as it goes into the digest: an array of commands an event, nil where the machine broke. `digest` is
the BLAKE2b of all `commands` so far. Events and commands are `[tag, field, ...]`, their classes and fields named in
the header.

A file that was cut off ends at its last whole frame. Nothing here opens a file or knows a thread.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
import types
import typing
import zlib
from dataclasses import dataclass, field
from enum import Enum
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

import msgpack

from proto.errors import LocalError
from supernode.scheduler import contract
from supernode.scheduler.contract import Command, Event
from supernode.scheduler.machine import Scheduler
from supernode.scheduler.settings import SchedulerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

T = TypeVar("T")

MAGIC: Final = b"layercast-events"
VERSION: Final = 1
# Far above a record of the largest blobs; what claims to be longer is no frame of ours.
FRAME_BYTES_MAX: Final = 256 * 1024 * 1024
DIGEST_BYTES: Final = 16
_FRAME: Final = struct.Struct("<II")
_SETTINGS: Final = frozenset(known.name for known in dataclasses.fields(SchedulerSettings))
_CHECK: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class SchedulerParameters:
    """What a scheduler is made with; see Scheduler. Equal parameters and equal events give equal commands."""

    seed: int
    epoch: int
    settings: SchedulerSettings = field(default_factory=SchedulerSettings)
    seed_upload_slots: int = 8
    seed_download_slots: int = 8
    seed_upload_rate_bytes_s: float | None = None

    def build(self) -> Scheduler:
        """A fresh one."""
        return Scheduler(
            seed=self.seed,
            epoch=self.epoch,
            settings=self.settings,
            seed_upload_slots=self.seed_upload_slots,
            seed_download_slots=self.seed_download_slots,
            seed_upload_rate_bytes_s=self.seed_upload_rate_bytes_s,
        )


@dataclass(frozen=True, slots=True)
class Header:
    """Who recorded, when (Unix seconds), and the machine that was recorded."""

    parameters: SchedulerParameters
    program: str
    python: str
    began_unix_s: float


@dataclass(slots=True)
class Handled:
    """One handle(). `commands` None: it raised. Not to be changed; not frozen, for one is made an event."""

    now: float
    event: Event
    commands: list[Command] | None


# What a record is made of; None: the turn ended.
Entry = Handled | None


@dataclass(frozen=True, slots=True)
class Record:
    """What was written at a time. `number` counts from 1; `digest` covers the commands from the first record on."""

    number: int
    entries: list[Entry]
    digest: bytes


# --- classes and rows ----------------------------------------------------------------------------------------------


def _fields_getter(names: Sequence[str]) -> Callable[[object], tuple[object, ...]]:
    if len(names) > 1:
        return cast("Callable[[object], tuple[object, ...]]", attrgetter(*names))
    return lambda what: tuple(getattr(what, name) for name in names)


def _converter(hint: object) -> Callable[[object], object]:
    """What makes a decoded value what it was, or raises ValueError; as this does for a type that cannot be kept."""
    if hint is int:
        return _whole
    if isinstance(hint, types.UnionType):
        (inner,) = (_converter(kind) for kind in typing.get_args(hint) if kind is not types.NoneType)
        return lambda raw: None if raw is None else inner(raw)
    if isinstance(hint, types.GenericAlias) and hint.__origin__ is tuple:
        item = _converter(typing.get_args(hint)[0])
        return lambda raw: tuple(item(value) for value in _of(list, raw))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    kinds = {float: (float, int), bool: (bool,), str: (str,)}.get(cast("type", hint))
    if kinds is None:
        raise ValueError(f"a contract's field of type {hint}: the event log does not know how to keep it")
    return lambda raw: _of(kinds, raw)


def _of(kinds: type[T] | tuple[type, ...], raw: object) -> T:
    if type(raw) not in (kinds if isinstance(kinds, tuple) else (kinds,)):
        raise ValueError(f"unexpected {type(raw).__name__}")
    return cast("T", raw)


def _whole(raw: object) -> int:
    # A mask of many pieces exceeds msgpack's 64 bits and travels as bytes.
    return int.from_bytes(raw, "little", signed=True) if type(raw) is bytes else _of(int, raw)


def _beyond_msgpack(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, int):
        return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    raise TypeError(f"{type(value).__name__} in an event")


def _pack(value: object) -> bytes:
    return cast("bytes", msgpack.packb(value, default=_beyond_msgpack))


def _unpack(packed: bytes) -> object:
    """Raises ValueError."""
    try:
        return msgpack.unpackb(packed, strict_map_key=True)
    except (TypeError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"not msgpack: {type(error).__name__}") from None


class _Kinds(Generic[T]):
    """The classes of one union and their rows."""

    def __init__(self, union: object) -> None:
        self.classes: Final = cast("tuple[type, ...]", typing.get_args(union))
        self.schema: Final = [[cls.__name__, *(f.name for f in dataclasses.fields(cls))] for cls in self.classes]
        self._writers: Final = {
            cls: (tag, _fields_getter(row[1:]))
            for tag, (cls, row) in enumerate(zip(self.classes, self.schema, strict=True))
        }
        self._converters: Final = {cls: self._converters_of(cls) for cls in self.classes}

    @staticmethod
    def _converters_of(cls: type) -> list[Callable[[object], object]]:
        hints = typing.get_type_hints(cls, vars(contract))
        return [_converter(hints[f.name]) for f in dataclasses.fields(cls)]

    def row(self, what: T) -> tuple[object, ...]:
        tag, fields = self._writers[type(what)]
        return (tag, *fields(what))

    def readers(self, schema: object) -> list[Callable[[list[object]], T]]:
        """For each tag of a file what makes the object of a row. Raises ValueError for classes that are not ours."""
        ours = {cls.__name__: cls for cls in self.classes}
        return [self._reader(ours, _of(list, row)) for row in cast("list[object]", _of(list, schema))]

    def _reader(self, ours: dict[str, type], row: list[object]) -> Callable[[list[object]], T]:
        name, *names = row
        cls = ours.get(str(name))
        known = [] if cls is None else dataclasses.fields(cls)
        added = known[len(names) :]
        if (
            cls is None
            or [f.name for f in known[: len(names)]] != names
            or any(f.default is dataclasses.MISSING for f in added)
        ):
            raise ValueError(f"{name}({', '.join(map(str, names))}) is not what this program knows")
        converters = self._converters[cls][: len(names)]

        def make(fields: list[object]) -> T:
            return cast("T", cls(*(convert(raw) for convert, raw in zip(converters, fields, strict=True))))

        return make


_EVENTS: Final[_Kinds[Event]] = _Kinds(Event)
_COMMANDS: Final[_Kinds[Command]] = _Kinds(Command)


# --- writing -------------------------------------------------------------------------------------------------------


class CommandsDigest:
    """The running digest of all commands given; equal for two runs that gave the same."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)

    def add(self, commands_an_event: Sequence[list[Command] | None]) -> bytes:
        """Take the commands of a record in; returns them as they stand in a file."""
        rows = [None if given is None else [_COMMANDS.row(command) for command in given] for given in commands_an_event]
        packed = _pack(rows)
        self._hash.update(packed)
        return packed

    def digest(self) -> bytes:
        """Of everything taken in so far, DIGEST_BYTES."""
        return self._hash.digest()


class Encoder:
    """Makes the bytes of one file, in order: begin(), record()..., end()."""

    def __init__(self) -> None:
        self._digest = CommandsDigest()

    def begin(self, header: Header) -> bytes:
        """Magic, version and header."""
        document = dataclasses.asdict(header) | {"events": _EVENTS.schema, "commands": _COMMANDS.schema}
        return MAGIC + bytes([VERSION]) + _frame(_pack(document))

    def record(self, entries: Sequence[Entry]) -> bytes:
        """One frame with these entries."""
        rows: list[object] = []
        commands: list[list[Command] | None] = []
        before: float | None = None
        for entry in entries:
            if entry is None:
                rows.append(None)
                continue
            rows.append((None if entry.now == before else entry.now, _EVENTS.row(entry.event)))
            before = entry.now
            commands.append(entry.commands)
        packed = self._digest.add(commands)
        return _frame(_pack((rows, packed, self._digest.digest())))

    def end(self, reason: str) -> bytes:
        """Why the log ends."""
        return _frame(_pack(reason))


def _frame(payload: bytes) -> bytes:
    start = _FRAME.pack(len(payload), zlib.crc32(payload))
    return start + _CHECK.pack(zlib.crc32(start)) + payload


# --- reading -------------------------------------------------------------------------------------------------------


class Reader:
    """Reads one file. Raises LocalError, here and while it is iterated, for what is damaged or not ours.

    `ended` says after the last record why the log ends; empty: it was cut off there.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self.ended = ""
        start = file.read(len(MAGIC) + 1)
        if not start.startswith(MAGIC) or len(start) <= len(MAGIC):
            raise LocalError(f"{name}: not an event log of layercast-supernode")
        if start[-1] != VERSION:
            raise LocalError(f"{name}: an event log of format {start[-1]}, this program reads format {VERSION}")
        payload = self._payload()
        if payload is None:
            raise LocalError(f"{name}: the event log was cut off before its first record")
        try:
            document = _of(dict, _unpack(payload))
            self._events = _EVENTS.readers(document["events"])
            self._commands = _COMMANDS.readers(document["commands"])
            self.header = _header(document)
        except (ValueError, KeyError, TypeError) as error:
            raise LocalError(f"{name}: recorded by a different version: {error}; replay it with that one") from None

    def __iter__(self) -> Iterator[Record]:
        number = 0
        while (payload := self._payload()) is not None:
            number += 1
            try:
                document = _unpack(payload)
                if isinstance(document, str):
                    self.ended = document
                    return
                yield self._record(number, _of(list, document))
            except (ValueError, TypeError, IndexError) as error:
                raise LocalError(f"{self._name}: record {number} makes no sense: {error}") from None

    def _record(self, number: int, document: list[object]) -> Record:
        rows, packed, digest = document
        commands = iter(_of(list, _unpack(_of(bytes, packed))))
        entries: list[Entry] = []
        now = 0.0
        for row in _of(list, rows):
            if row is None:
                entries.append(None)
                continue
            when, (tag, *fields) = row
            now = now if when is None else _of((float, int), when)
            event = self._events[tag](fields)
            given = next(commands, None)
            entries.append(Handled(now, event, None if given is None else [self._command(item) for item in given]))
        return Record(number, entries, _of(bytes, digest))

    def _command(self, row: list[object]) -> Command:
        tag, *fields = row
        return self._commands[_whole(tag)](fields)

    def _payload(self) -> bytes | None:
        """The next frame's; None at the end of the file, be it in the middle of a frame."""
        at = self._file.tell()
        start, check = self._file.read(_FRAME.size), self._file.read(_CHECK.size)
        if len(check) < _CHECK.size:
            return None
        length, checksum = _FRAME.unpack(start)
        if _CHECK.unpack(check)[0] != zlib.crc32(start) or length > FRAME_BYTES_MAX:
            raise self._damaged(at)
        payload = self._file.read(length)
        if len(payload) < length:
            return None
        if zlib.crc32(payload) != checksum:
            raise self._damaged(at)
        return payload

    def _damaged(self, at: int) -> LocalError:
        if at == len(MAGIC) + 1:
            return LocalError(f"{self._name}: its header is damaged: nothing of it can be replayed")
        return LocalError(f"{self._name}: damaged at byte {at}; what is before it (head -c {at}) can be replayed")


def _header(document: dict[str, object]) -> Header:
    """Raises ValueError, KeyError or TypeError."""
    parameters = dict(_of(dict, document["parameters"]))
    recorded = _of(dict, parameters.pop("settings"))
    # A log of a version with rules that this one lacks can be read, and replayed up to the first decision that differs.
    settings = SchedulerSettings(**{name: value for name, value in recorded.items() if name in _SETTINGS})
    return Header(
        parameters=SchedulerParameters(seed=_whole(parameters.pop("seed")), settings=settings, **parameters),
        program=_of(str, document["program"]),
        python=_of(str, document["python"]),
        began_unix_s=_of(float, document["began_unix_s"]),
    )
