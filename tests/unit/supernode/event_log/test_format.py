"""The event log's format: what goes in comes out, a log that was cut off ends cleanly, what is damaged is refused."""

from __future__ import annotations

import io
import types
import typing
from enum import Enum
from typing import cast

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto.errors import LocalError
from supernode.event_log import format
from supernode.event_log.format import (
    MAGIC,
    VERSION,
    CommandsDigest,
    Encoder,
    Entry,
    Handled,
    Reader,
    SchedulerParameters,
)
from supernode.scheduler import contract
from supernode.scheduler.contract import Command, Event, GrantLease, PeerJoined, PieceStored, Wakeup
from supernode.scheduler.settings import SchedulerSettings
from tests.support.event_logs import HEADER

EVENTS = cast("tuple[type[Event], ...]", typing.get_args(Event))
COMMANDS = cast("tuple[type[Command], ...]", typing.get_args(Command))


def values(hint: object) -> st.SearchStrategy[object]:
    """Anything that a field of this type may hold."""
    if isinstance(hint, types.UnionType):
        return st.one_of(*(values(kind) for kind in typing.get_args(hint)))
    if isinstance(hint, types.GenericAlias):
        return st.lists(values(typing.get_args(hint)[0])).map(tuple)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(list(hint))
    known: dict[object, st.SearchStrategy[object]] = {
        int: st.integers() | st.integers(0, 1 << 4096),
        float: st.floats(allow_nan=False),
        str: st.text(),
        bool: st.booleans(),
        types.NoneType: st.none(),
    }
    return known[hint]


def objects(cls: type) -> st.SearchStrategy[object]:
    hints = typing.get_type_hints(cls, vars(contract))
    return st.builds(cls, **{name: values(hint) for name, hint in hints.items()})


def read(raw: bytes) -> tuple[Reader, list[Entry]]:
    reader = Reader(io.BytesIO(raw), "a.log")
    return reader, [entry for record in reader for entry in record.entries]


def a_log() -> tuple[bytes, list[int]]:
    """A log of three records and its end, and where each of its frames ends."""
    encoder = Encoder()
    records = [encoder.record([Handled(float(number), PieceStored(1, 2, number), [])]) for number in range(3)]
    frames = [Encoder().begin(HEADER), *records, encoder.end("done")]
    ends = [sum(map(len, frames[: count + 1])) for count in range(len(frames))]
    return b"".join(frames), ends


@pytest.mark.parametrize("cls", EVENTS)
@settings(max_examples=30)
@given(data=st.data())
def test_every_event_comes_out_as_it_went_in(cls: type[Event], data: st.DataObject) -> None:
    event = cast("Event", data.draw(objects(cls)))
    now = data.draw(st.floats(min_value=0, allow_nan=False))
    encoder = Encoder()
    _, entries = read(encoder.begin(HEADER) + encoder.record([Handled(now, event, [])]))
    assert entries == [Handled(now, event, [])]
    (entry,) = entries
    assert entry is not None
    assert repr(entry.event) == repr(event)


@pytest.mark.parametrize("cls", COMMANDS)
@settings(max_examples=30)
@given(data=st.data())
def test_every_command_comes_out_as_it_went_in(cls: type[Command], data: st.DataObject) -> None:
    command = cast("Command", data.draw(objects(cls)))
    encoder = Encoder()
    _, entries = read(encoder.begin(HEADER) + encoder.record([Handled(0.0, Wakeup(), [command, command])]))
    assert entries == [Handled(0.0, Wakeup(), [command, command])]


def test_times_turns_and_a_machine_that_broke_come_out_as_they_went_in() -> None:
    entries: list[Entry] = [
        None,
        Handled(1.5, Wakeup(), []),
        Handled(1.5, PeerJoined(1, "eu/a/r1", 4, 4), [GrantLease(1 << 40, 1, 2, 3, 0, 5.0, True, 0, False)]),
        None,
        Handled(0.1 + 0.2, Wakeup(), None),
    ]
    encoder = Encoder()
    assert read(encoder.begin(HEADER) + encoder.record(entries))[1] == entries


def test_the_header_names_the_machine_with_all_its_settings() -> None:
    tuned = SchedulerSettings(reaction_s=0.5, story_length=7)
    parameters = SchedulerParameters(2**64 - 1, 9, tuned, 3, 4, 1.25e8)
    header = type(HEADER)(parameters, "1.2.3", "3.11.9", 17.5)
    assert read(Encoder().begin(header))[0].header == header


def test_a_log_of_a_version_with_more_settings_is_read_without_them() -> None:
    begun = Encoder().begin(HEADER)
    document = msgpack.unpackb(begun[len(MAGIC) + 1 + 12 :])
    document["parameters"]["settings"]["many_nodes"] = 2000
    older = begun[: len(MAGIC) + 1] + format._frame(msgpack.packb(document))
    assert read(older)[0].header == HEADER


def test_the_digest_covers_all_commands_so_far() -> None:
    grant, digest = GrantLease(1, 1, 2, 3, 0, 5.0, False, 0, False), CommandsDigest()
    encoder = Encoder()
    raw = encoder.begin(HEADER) + b"".join(encoder.record([Handled(1.0, Wakeup(), [grant])]) for _ in range(2))
    first, second = Reader(io.BytesIO(raw), "a.log")
    digest.add([[grant]])
    assert first.digest == digest.digest()
    digest.add([[grant]])
    assert second.digest == digest.digest() != first.digest


def test_a_log_that_was_cut_off_anywhere_ends_at_its_last_whole_record() -> None:
    raw, ends = a_log()
    for length in range(ends[0], len(raw)):
        reader, entries = read(raw[:length])
        assert len(entries) == sum(end <= length for end in ends[1:])
        assert reader.ended == ""
    assert read(raw)[0].ended == "done"


@pytest.mark.parametrize("length", [len(MAGIC) + 1, len(MAGIC) + 10, 200])
def test_a_log_without_a_whole_header_is_refused(length: int) -> None:
    with pytest.raises(LocalError, match=r"a\.log: the event log was cut off before its first record"):
        read(a_log()[0][:length])


def test_a_changed_byte_anywhere_is_noticed() -> None:
    raw, ends = a_log()
    # The header is long: some of its bytes, and all of the records'.
    for at in [*range(len(MAGIC), ends[0], 29), *range(ends[0], ends[-1])]:
        broken = bytearray(raw)
        broken[at] ^= 0x40
        with pytest.raises(LocalError, match=r"a\.log: (damaged at byte|its header is damaged|an event log of)"):
            read(bytes(broken))


@pytest.mark.parametrize("raw", [b"", b"x", MAGIC, b"\x7fELF" + bytes(100), b"layercast, but no log"])
def test_what_is_no_event_log_is_refused(raw: bytes) -> None:
    with pytest.raises(LocalError, match=r"a\.log: not an event log of layercast-supernode"):
        read(raw)


def test_another_version_of_the_format_is_refused() -> None:
    raw = MAGIC + bytes([VERSION + 1]) + a_log()[0][len(MAGIC) + 1 :]
    with pytest.raises(LocalError, match=f"format {VERSION + 1}, this program reads format {VERSION}"):
        read(raw)


def test_a_log_whose_events_had_other_fields_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = [["PieceStored", "swarm", "colour"]]
    monkeypatch.setattr(format._EVENTS, "schema", schema)
    raw = Encoder().begin(HEADER)
    with pytest.raises(LocalError, match=r"recorded by a different version: PieceStored\(swarm, colour\)"):
        read(raw)


def test_a_log_from_before_a_field_was_added_is_read_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["PieceStored", "swarm", "peer", "piece"] if row[0] == "PieceStored" else row for row in
            format._EVENTS.schema]  # fmt: skip
    monkeypatch.setattr(format._EVENTS, "schema", rows)
    encoder = Encoder()
    raw = encoder.begin(HEADER)
    tag = [row[0] for row in rows].index("PieceStored")
    packed = msgpack.packb([[]])
    raw += format._frame(msgpack.packb([[[1.0, [tag, 1, 2, 3]]], packed, b"digest"]))
    assert read(raw)[1] == [Handled(1.0, PieceStored(1, 2, 3), [])]


@pytest.mark.parametrize(
    "record",
    [7, [], [[], b"", b""], [[[1.0, [999]]], b"\x90", b""], [[[1.0, [0, "x"]]], b"\x90", b""], [[5], b"\x90", b""]],
)
def test_a_sound_frame_that_makes_no_sense_is_refused_by_number(record: object) -> None:
    raw = Encoder().begin(HEADER) + format._frame(msgpack.packb(record))
    with pytest.raises(LocalError, match=r"a\.log: record 1 makes no sense"):
        read(raw)
