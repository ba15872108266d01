"""Frames: what goes in comes out, newer and older sides understand each other, nonsense is refused by name."""

from __future__ import annotations

import dataclasses
import typing

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.errors import FrameInvalid
from proto.wire import codec, handshake, messages

_VALUES = {
    int: st.integers(-codec.INT_MAX, codec.INT_MAX),
    str: st.text(max_size=60),
    bytes: st.binary(max_size=200),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    messages.Source: st.builds(messages.Source, st.text(max_size=20), st.text(max_size=20)),
}


def _any_message() -> st.SearchStrategy[messages.Message]:
    builders = []
    for cls in codec.TAGS:
        hints = typing.get_type_hints(cls, vars(messages))
        arguments: dict[str, st.SearchStrategy[object]] = {}
        for field in dataclasses.fields(cls):
            kind = hints[field.name]
            if typing.get_origin(kind) is tuple:
                arguments[field.name] = st.lists(_VALUES[typing.get_args(kind)[0]], max_size=8).map(tuple)
            else:
                arguments[field.name] = _VALUES[kind]
        builders.append(st.builds(cls, **arguments))
    return st.one_of(builders)


@given(st.lists(_any_message(), max_size=10))
def test_a_batch_of_any_messages_survives_the_wire(batch: list[messages.Message]) -> None:
    assert codec.decode(codec.encode(batch)) == batch


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_decoded_but_never_crash(frame: bytes) -> None:
    try:
        codec.decode(frame)
    except FrameInvalid:
        return


@given(st.lists(_any_message(), min_size=1, max_size=4), st.data())
def test_a_truncated_frame_is_refused(batch: list[messages.Message], data: st.DataObject) -> None:
    frame = codec.encode(batch)
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(FrameInvalid):
        codec.decode(frame[:cut])


def test_a_field_we_do_not_know_is_ignored() -> None:
    frame = msgpack.packb([[codec.TAGS[handshake.Ping], 7, "from a newer version", {"a": 1}]])
    assert codec.decode(frame) == [handshake.Ping(7)]


def test_a_message_we_do_not_know_is_skipped() -> None:
    frame = msgpack.packb([[9999, 1, 2], [codec.TAGS[handshake.Pong], 3]])
    assert codec.decode(frame) == [handshake.Pong(3)]


def test_a_missing_trailing_field_takes_its_default() -> None:
    frame = msgpack.packb([[codec.TAGS[messages.Grant], 1, 2, 3, 4, 5000]])
    assert codec.decode(frame) == [messages.Grant(1, 2, 3, 4, 5000, ahead=False)]


def test_what_is_the_default_anyway_is_not_sent() -> None:
    short, whole = messages.Grant(1, 2, 3, 4, 5000), messages.Grant(1, 2, 3, 4, 5000, ahead=False, behind=7)
    assert msgpack.unpackb(codec.encode([short])) == [[codec.TAGS[messages.Grant], 1, 2, 3, 4, 5000]]
    assert msgpack.unpackb(codec.encode([whole])) == [[codec.TAGS[messages.Grant], 1, 2, 3, 4, 5000, False, 7]]
    assert codec.decode(codec.encode([short, whole])) == [short, whole]


def test_a_missing_required_field_is_named() -> None:
    with pytest.raises(FrameInvalid, match=r"Grant\.expires_ms is missing"):
        codec.decode(msgpack.packb([[codec.TAGS[messages.Grant], 1, 2, 3, 4]]))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ([codec.TAGS[handshake.Ping], "7"], r"Ping\.number has the wrong type str"),
        ([codec.TAGS[handshake.Ping], True], r"Ping\.number has the wrong type bool"),
        ([codec.TAGS[handshake.Ping], 1 << 63], r"Ping\.number has the wrong type int"),
        ([codec.TAGS[messages.Withdraw], b"x"], r"Withdraw\.digest has the wrong type bytes"),
        ([codec.TAGS[messages.Holders], 1, 5], r"Holders\.nodes has the wrong type int"),
        ([codec.TAGS[messages.Holders], 1, list(range(5000))], r"Holders\.nodes has 5000 entries: at most 4096"),
        (["Ping", 1], "starts with its tag"),
        ([], "starts with its tag"),
    ],
)
def test_a_wrong_type_is_named(row: list[object], complaint: str) -> None:
    with pytest.raises(FrameInvalid, match=complaint):
        codec.decode(msgpack.packb([row]))


def test_a_frame_over_the_limit_is_refused_before_decoding() -> None:
    with pytest.raises(FrameInvalid, match="at most 4194304"):
        codec.decode(b"\x00" * (codec.FRAME_BYTES_MAX + 1))


def test_a_frame_over_the_limit_is_not_sent() -> None:
    with pytest.raises(FrameInvalid, match="at most"):
        codec.encode([messages.InlineBlob(1, 1, b"x" * codec.FRAME_BYTES_MAX)])


def test_a_deep_nest_is_refused() -> None:
    with pytest.raises(FrameInvalid):
        codec.decode(b"\x91" * 100_000)


def messages_a_frame(batch: list[messages.Message]) -> list[int]:
    return [len(codec.decode(frame)) for frame in codec.frames(batch)]


def test_a_large_batch_is_cut_into_frames() -> None:
    announce = messages.Announce("sha256:" + "0" * 64, (), False, 1, 1, bytes(codec.FRAME_WEIGHT_BYTES // 2))
    assert messages_a_frame([announce] * 5) == [2, 2, 1]
    assert messages_a_frame([messages.Vouched(number) for number in range(5000)]) == [4096, 904]
    assert messages_a_frame([]) == []


def test_bytes_wait_until_they_are_taken() -> None:
    outbox = codec.Outbox()
    outbox.add(messages.Announce("sha256:" + "0" * 64, (), False, 1, 1, b"held", b"hashes"))
    outbox.add(messages.Vouched(1))
    assert outbox.bytes_waiting > 10
    assert len(outbox.take()) == 2
    assert (outbox.bytes_waiting, outbox.take()) == (0, [])


@pytest.mark.parametrize("item", [b"\x80", b"\x90", b"\x01"], ids=["maps", "arrays", "numbers"])
def test_a_frame_that_would_only_cost_time_is_given_up(item: bytes) -> None:
    array = b"\xdc\x40\x00" + item * 16_384
    frame = b"\xdc\x00\xfa" + array * 250
    assert len(frame) < codec.FRAME_BYTES_MAX
    with pytest.raises(FrameInvalid, match="not msgpack within our limits: ValueError"):
        codec.decode(frame)


def test_a_source_of_a_manifest_is_told_from_one_of_a_blob() -> None:
    sources = (messages.Source("a.example", "b"), messages.Source("a.example", "b", manifest=True))
    announce = messages.Announce("sha256:" + "0" * 64, sources, True, 0, 0, b"")
    assert codec.decode(codec.encode([announce])) == [announce]


def test_the_most_announcements_that_a_frame_takes_are_read() -> None:
    sources = tuple(messages.Source("a.example", "b") for _ in range(3))
    announce = messages.Announce("sha256:" + "0" * 64, sources, True, 0, 0, b"")
    assert len(codec.decode(codec.encode([announce] * codec.MESSAGES_MAX))) == codec.MESSAGES_MAX
