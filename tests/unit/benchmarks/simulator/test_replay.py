"""`layercast-bench sim --replay`: the same commands again, or where they differ; and what the log says happened."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import main
from benchmarks.simulator.replay import Past, Replay, Replayer
from proto.errors import LocalError
from supernode.event_log.format import Encoder, Handled, Reader, SchedulerParameters
from supernode.scheduler.contract import (
    SEED,
    PeerAnnounced,
    PeerJoined,
    PeerLost,
    PieceEvicted,
    PieceStored,
    SwarmOpened,
    SwarmVoided,
    Wakeup,
)
from supernode.scheduler.machine import Scheduler
from tests.support.event_logs import HEADER, PARAMETERS, PEERS, PIECES, record_cold_swarm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from supernode.scheduler.contract import Command, Event


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "a.log"
    record_cold_swarm(path)
    return path


def replay(
    path: Path,
    *,
    check_every: int = 0,
    story: tuple[int, int] | None = None,
    make_scheduler: Callable[[SchedulerParameters], Scheduler] = SchedulerParameters.build,
) -> Replay:
    with path.open("rb") as file:
        reader = Reader(file, str(path))
        return Replayer(reader, check_every=check_every, story=story, make_scheduler=make_scheduler).run()


def another_seed(parameters: SchedulerParameters) -> Scheduler:
    return replace(parameters, seed=1).build()


class Stubborn(Scheduler):
    """Grants nothing more once it has handled 60 events."""

    handled = 0

    def handle(self, event: Event, now: float) -> list[Command]:
        self.handled += 1
        commands = super().handle(event, now)
        return commands if self.handled <= 60 else []


class Broken(Scheduler):
    """Raises at the first announcement."""

    def handle(self, event: Event, now: float) -> list[Command]:
        if isinstance(event, PeerAnnounced):
            raise ZeroDivisionError("no peers")
        return super().handle(event, now)


class Unsound(Scheduler):
    """Leaves commands behind, which no machine may."""

    def handle(self, event: Event, now: float) -> list[Command]:
        commands = super().handle(event, now)
        self.inspect().commands = list(commands)
        return commands


def made_by(cls: type[Scheduler], parameters: SchedulerParameters) -> Scheduler:
    return cls(seed=parameters.seed, epoch=parameters.epoch, settings=parameters.settings)


def test_a_recorded_run_gives_the_same_commands_again(log: Path) -> None:
    found = replay(log, check_every=1)
    assert found.difference is None
    assert found.broken == ""
    assert found.checks == found.events > 2 * PEERS * PIECES
    assert found.ended == "the supernode stopped"
    assert found.counters["granted"] >= PEERS * PIECES


def test_a_log_that_was_cut_off_replays_to_its_last_whole_record(log: Path) -> None:
    raw = log.read_bytes()
    log.write_bytes(raw[:-30])
    found = replay(log)
    assert found.difference is None
    assert found.ended == ""


def test_another_seed_is_found_out_with_both_lists_of_commands(log: Path) -> None:
    difference = replay(log, make_scheduler=another_seed).difference
    assert difference is not None
    assert difference.handled is not None
    assert difference.recorded != difference.replayed


def test_a_changed_scheduler_is_found_out_at_its_first_different_event(log: Path) -> None:
    found = replay(log, make_scheduler=lambda parameters: made_by(Stubborn, parameters))
    assert found.difference is not None
    # How many events are in a record is the writing thread's to say: it takes what has come.
    assert found.events > 60
    assert found.difference.recorded
    assert found.difference.replayed == []


def test_a_machine_that_breaks_where_the_recorded_one_did_not_is_a_difference(log: Path) -> None:
    difference = replay(log, make_scheduler=lambda parameters: made_by(Broken, parameters)).difference
    assert difference is not None
    assert difference.handled is not None
    assert isinstance(difference.handled.event, PeerAnnounced)
    assert difference.replayed is None
    assert difference.error == "ZeroDivisionError: no peers"


def test_a_machine_that_breaks_as_the_recorded_one_did_is_told_with_its_event(tmp_path: Path) -> None:
    encoder = Encoder()
    announced = PeerAnnounced(1, 1, 0, True)
    raw = encoder.begin(HEADER) + encoder.record([Handled(1.0, Wakeup(), []), Handled(2.0, announced, None)])
    (tmp_path / "a.log").write_bytes(raw)
    found = replay(tmp_path / "a.log", make_scheduler=lambda parameters: made_by(Broken, parameters))
    assert found.difference is None
    assert found.broken == f"record 1, event 2 {announced}: the machine broke: ZeroDivisionError: no peers"


def test_a_broken_invariant_is_told_with_its_event(log: Path) -> None:
    found = replay(log, check_every=1, make_scheduler=lambda parameters: made_by(Unsound, parameters))
    assert found.broken.startswith("record 1, event ")
    assert "commands left behind" in found.broken


def test_a_story_says_from_where_each_node_had_a_piece(log: Path) -> None:
    story = replay(log, story=(1, 5)).story
    assert any("piece 5: stored at 0" in line for line in story)
    assert sum("piece 5: lease" in line for line in story) >= PEERS
    assert not any("piece 6" in line for line in story)


def test_a_story_is_told_of_a_swarm_that_was_closed_too(tmp_path: Path) -> None:
    record_cold_swarm(tmp_path / "a.log", closed=True)
    found = replay(tmp_path / "a.log", story=(1, 5))
    assert found.difference is None
    assert any("piece 5: stored at 0" in line for line in found.story)


def test_a_node_completes_a_swarm_with_its_last_piece_and_not_again() -> None:
    past = Past()
    events: list[Event] = [
        SwarmOpened(1, 2048, 1024),
        PeerJoined(1, "", 4, 4),
        PeerAnnounced(1, 1, 0, True),
        PieceStored(1, SEED, 0),
        PieceStored(1, 1, 0),
        PieceEvicted(1, 1, 1),
        PieceStored(1, 1, 1),
        PieceStored(1, 1, 0),
        PieceStored(1, 1, 0),
    ]
    for now, event in enumerate(events):
        past.follow(event, float(now))
    assert past.swarms[1].completed_s == [7.0]
    assert past.stored_pieces == 3


@pytest.mark.parametrize("end", [PeerLost(1, "gone"), SwarmVoided(1), PeerAnnounced(1, 1, 1, False)])
def test_a_node_that_left_completes_nothing(end: Event) -> None:
    past = Past()
    for event in (SwarmOpened(1, 2048, 1024), PeerAnnounced(1, 1, 1, True), end, PieceStored(1, 1, 1)):
        past.follow(event, 0.0)
    assert past.swarms[1].completed_s == []


def test_the_command_prints_and_keeps_what_happened(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "figures.json"
    arguments = ["sim", "--replay", str(log), "--check-every", "10", "--story", "1:5", "--json", str(kept)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "commands: the same as recorded, digest " in out
    assert "the story of piece 5 of swarm 1" in out
    figures = json.loads(kept.read_text())
    assert figures["same"] is True
    assert figures["peers"] == PEERS
    assert 0 < figures["handle_p50_us"] <= figures["handle_p99_us"]
    assert figures["by_swarm"][0]["pieces"] == PIECES


def test_the_command_fails_and_prints_both_lists_where_the_commands_differ(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = log.read_bytes()
    with log.open("rb") as file:
        records = list(Reader(file, "a.log"))
    encoder = Encoder()
    other = replace(HEADER, parameters=replace(PARAMETERS, seed=1))
    log.write_bytes(encoder.begin(other) + b"".join(encoder.record(record.entries) for record in records))
    assert len(log.read_bytes()) < len(raw)
    assert main(["sim", "--replay", str(log)]) == 1
    out = capsys.readouterr().out
    assert "DIFFERENT first at record 1, event " in out
    assert "  recorded: " in out
    assert "  replayed: " in out


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--story", "1"], "--story 1: SWARM:PIECE expected"),
        (["--story", "2:0"], "--story 2:0: no swarm of that number in this log"),
        (["--story", f"1:{PIECES}"], f"--story 1:{PIECES}: swarm 1 has pieces 0 to {PIECES - 1}"),
        (["--check-every", "often"], "--check-every often: expected a whole number"),
    ],
)
def test_arguments_that_make_no_sense_get_one_line(
    log: Path, capsys: pytest.CaptureFixture[str], more: list[str], complaint: str
) -> None:
    assert main(["sim", "--replay", str(log), *more]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_a_file_that_is_not_there_or_is_damaged_gets_one_line(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = bytearray(log.read_bytes())
    raw[-200] ^= 1
    log.write_bytes(raw)
    assert main(["sim", "--replay", str(log)]) == 1
    assert main(["sim", "--replay", str(log.with_name("none"))]) == 1
    damaged, absent = capsys.readouterr().err.splitlines()
    assert "a.log: damaged at byte" in damaged
    assert "none: No such file or directory" in absent


def test_a_damaged_log_raises_where_it_is_damaged(log: Path) -> None:
    log.write_bytes(log.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(LocalError, match="damaged"):
        replay(log)
