"""What waits for a session leaves in frames that the codec takes, in order."""

from __future__ import annotations

from proto.wire import codec
from proto.wire.messages import Announce, Message, Vouched
from proto.wire.outbox import FRAME_WEIGHT_BYTES, Outbox, frames


def messages_a_frame(batch: list[Message]) -> list[int]:
    return [len(codec.decode(frame)) for frame in frames(batch)]


def test_a_large_batch_is_cut_into_frames() -> None:
    announce = Announce("sha256:" + "0" * 64, (), False, 1, 1, bytes(FRAME_WEIGHT_BYTES // 2))
    assert messages_a_frame([announce] * 5) == [2, 2, 1]
    assert messages_a_frame([Vouched(number) for number in range(5000)]) == [4096, 904]
    assert messages_a_frame([]) == []


def test_bytes_wait_until_they_are_taken() -> None:
    outbox = Outbox()
    outbox.add(Announce("sha256:" + "0" * 64, (), False, 1, 1, b"held", b"hashes"))
    outbox.add(Vouched(1))
    assert outbox.bytes_waiting > 10
    assert len(outbox.take()) == 2
    assert (outbox.bytes_waiting, outbox.take()) == (0, [])
