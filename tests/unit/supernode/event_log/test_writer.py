"""Recording: what the loop hands over is in the file, and nothing that goes wrong with the file reaches the service."""

from __future__ import annotations

import errno
import logging
import os
import threading
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from proto.errors import ConfigError
from supernode import config
from supernode.event_log import writer
from supernode.event_log.format import MAGIC, Entry, Handled, Reader
from supernode.event_log.writer import EventLogWriter, RecordedScheduler
from supernode.scheduler.contract import Command, Event, PeerAnnounced, PeerJoined, PieceStored, SwarmOpened, Wakeup
from tests.support.event_logs import HEADER, LIMIT_BYTES, PARAMETERS, record_cold_swarm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STORED = PieceStored(1, 2, 3, 4, 0.5)


def read(path: Path) -> tuple[str, list[Entry]]:
    with path.open("rb") as file:
        reader = Reader(file, str(path))
        entries = [entry for record in reader for entry in record.entries]
        return reader.ended, entries


def log_writer(
    path: Path, *, limit_bytes: int = LIMIT_BYTES, write: Callable[[int, bytes], int] = os.write
) -> EventLogWriter:
    return EventLogWriter(path, HEADER, size_limit_bytes=limit_bytes, write=write, flush_interval_s=0.01)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_recorded_scheduler_answers_as_it_would_and_its_log_has_it_all(tmp_path: Path) -> None:
    events: list[Event] = [
        PeerJoined(1, "eu/a/r1", 4, 4),
        SwarmOpened(1, 1 << 30, 4 << 20),
        PeerAnnounced(1, 1, 0, True),
    ]
    plain = PARAMETERS.build()
    answers = [plain.handle(event, 1.5) for event in events]
    log = log_writer(tmp_path / "a.log")
    recorded = RecordedScheduler(PARAMETERS.build(), log)
    assert [recorded.handle(event, 1.5) for event in events] == answers
    assert recorded.next_wakeup() == plain.next_wakeup()
    log.close()
    expected: list[Entry] = [Handled(1.5, *pair) for pair in zip(events, answers, strict=True)]
    assert read(tmp_path / "a.log") == ("the supernode stopped", [*expected, None])


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    log_writer(tmp_path / "a.log").close()
    assert (tmp_path / "a.log").stat().st_mode & 0o777 == 0o600


def test_what_was_handed_over_is_on_disk_soon_and_not_only_at_the_end(tmp_path: Path) -> None:
    log = log_writer(tmp_path / "a.log")
    log.add(1.0, STORED, [])
    wait_until(lambda: len(read(tmp_path / "a.log")[1]) == 1, "the entry in the file")
    assert read(tmp_path / "a.log")[0] == ""
    log.close()


def test_the_event_that_breaks_the_machine_is_recorded(tmp_path: Path) -> None:
    class Broken:
        def handle(self, event: Event, now: float) -> list[Command]:
            raise ZeroDivisionError

        def next_wakeup(self) -> float | None:
            return None

    log = log_writer(tmp_path / "a.log")
    with pytest.raises(ZeroDivisionError):
        RecordedScheduler(Broken(), log).handle(Wakeup(), 2.0)
    log.close()
    assert read(tmp_path / "a.log")[1] == [Handled(2.0, Wakeup(), None)]


def test_at_the_size_limit_recording_stops_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = log_writer(tmp_path / "a.log", limit_bytes=64 << 10)
    for number in range(20_000):
        log.add(float(number), STORED, [])
    wait_until(lambda: log.stopped, "the end of the recording")
    log.add(1e9, STORED, [])
    log.turn_ended()
    log.close()
    ended, entries = read(tmp_path / "a.log")
    assert ended == "size limit"
    assert 0 < len(entries) < 20_000
    assert (tmp_path / "a.log").stat().st_size <= 64 << 10
    (warning,) = warnings(caplog)
    assert "its size limit of 65536 bytes" in warning


def test_on_a_full_disk_recording_stops_with_one_warning_and_what_was_whole_can_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    room = 20_000

    def write(descriptor: int, raw: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = os.write(descriptor, raw[:room])
        room -= taken
        return taken

    log = log_writer(tmp_path / "a.log", write=write)
    for number in range(5000):
        log.add(float(number), STORED, [])
    wait_until(lambda: log.stopped, "the end of the recording")
    log.add(1e9, STORED, [])
    log.close()
    ended, entries = read(tmp_path / "a.log")
    assert ended == ""
    assert entries == [Handled(float(number), STORED, []) for number in range(len(entries))]
    (warning,) = warnings(caplog)
    assert "No space left on device; the service goes on" in warning


def test_a_disk_that_hangs_ends_the_recording_before_it_fills_the_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "WAITING_MAX", 50)
    awake = threading.Event()
    awake.set()

    def write(descriptor: int, raw: bytes) -> int:
        assert awake.wait(WAIT_S)
        return os.write(descriptor, raw)

    log = log_writer(tmp_path / "a.log", write=write)
    awake.clear()
    for number in range(2000):
        log.add(float(number), STORED, [])
        if log.stopped:
            break
    assert log.stopped
    awake.set()
    log.close()
    (warning,) = warnings(caplog)
    assert "50 events wait for the disk" in warning


def test_an_event_that_cannot_be_kept_ends_the_recording_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = log_writer(tmp_path / "a.log")
    log.add(1.0, PeerJoined(1, "\ud800", 4, 4), [])
    wait_until(lambda: log.stopped, "the end of the recording")
    log.close()
    (warning,) = warnings(caplog)
    assert "an event cannot be kept" in warning


def test_the_log_of_an_earlier_start_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    for count in (1, 2, 3):
        log = log_writer(path)
        for _ in range(count):
            log.add(1.0, STORED, [])
        log.close()
    assert len(read(path)[1]) == 3
    assert len(read(tmp_path / "a.log.1")[1]) == 2
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["a.log", "a.log.1"])
def test_a_file_that_is_not_an_event_log_is_never_replaced(tmp_path: Path, name: str) -> None:
    record_cold_swarm(tmp_path / "a.log")
    (tmp_path / name).write_text("precious")
    with pytest.raises(ConfigError, match="exists and is not an event log; name another file"):
        log_writer(tmp_path / "a.log")
    assert (tmp_path / name).read_text() == "precious"


def test_a_link_to_a_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(MAGIC)
    (tmp_path / "a.log").symlink_to(tmp_path / "other")
    with pytest.raises(ConfigError, match="not an event log"):
        log_writer(tmp_path / "a.log")


def test_an_empty_file_that_is_there_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "a.log").touch()
    log_writer(tmp_path / "a.log").close()
    assert read(tmp_path / "a.log") == ("the supernode stopped", [])


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--event-log .*/none/a\.log: No such file or directory"):
        log_writer(tmp_path / "none" / "a.log")


def test_a_limit_that_leaves_no_room_is_refused_by_its_flag() -> None:
    with pytest.raises(ConfigError, match=r"--event-log-size: .1KiB.: expected at least 64KiB"):
        config.load(["--event-log-size", "1KiB"], {})


def test_nothing_is_recorded_unless_it_is_asked_for() -> None:
    loaded = config.load([], {})
    assert loaded.event_log is None
    assert loaded.event_log_size_bytes == 256 << 20
