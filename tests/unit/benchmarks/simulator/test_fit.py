"""`layercast-bench fit`: where a lease's time went, as an event log has it, and the profile of it."""

from __future__ import annotations

import io
import json
import random
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import main
from benchmarks.simulator.fit import Log, read_log
from benchmarks.simulator.profile import Delay, Profile, profile_document, read_profile
from proto.errors import ConfigError, LocalError
from proto.pieces import KIB
from supernode.event_log.format import Encoder, Handled, Reader
from supernode.scheduler.contract import GrantLease, PieceStored, SwarmOpened, Wakeup
from tests.support.event_logs import HEADER, record_cold_swarm

if TYPE_CHECKING:
    from pathlib import Path

PIECE = 256 * KIB
A, B, C = 1, 2, 3


def grant(lease: int, piece: int, receiver: int, source: int, *, behind: int = 0) -> GrantLease:
    return GrantLease(lease, 1, piece, receiver, source, 30.0, False, behind, False)


def log_of(*entries: Handled) -> Log:
    opened = Handled(0.0, SwarmOpened(1, 8 * PIECE, PIECE), [])
    encoder = Encoder()
    raw = encoder.begin(HEADER) + encoder.record([opened, *entries]) + encoder.end("done")
    return read_log(Reader(io.BytesIO(raw), "log"))


def stored(lease: int, piece: int, peer: int, waited_s: float, answered_s: float, elapsed_s: float) -> PieceStored:
    return PieceStored(1, peer, piece, lease, elapsed_s, waited_s, answered_s)


def test_what_no_step_of_a_lease_took_was_its_messages() -> None:
    log = log_of(Handled(1.0, Wakeup(), [grant(1, 0, B, A)]), Handled(1.5, stored(1, 0, B, 0.1, 0.05, 0.25), []))
    (lease,) = log.leases
    assert lease.control_s == pytest.approx(0.1)
    assert lease.first_s == pytest.approx(1.2)
    assert lease.last_s == pytest.approx(1.45)
    assert lease.connects


def test_a_link_is_idle_between_two_transfers_and_shared_while_two_run() -> None:
    log = log_of(
        Handled(1.0, Wakeup(), [grant(1, 0, B, A)]),
        Handled(2.0, stored(1, 0, B, 0.0, 0.0, 1.0), [grant(2, 1, B, A)]),
        Handled(4.0, stored(2, 1, B, 0.0, 1.0, 1.0), [grant(3, 2, B, A)]),
        Handled(4.5, Wakeup(), [grant(4, 0, C, A)]),
        Handled(5.0, stored(3, 2, B, 0.0, 0.0, 1.0), []),
        Handled(5.0, stored(4, 0, C, 0.0, 0.0, 0.5), []),
    )
    assert log.up[A].idle_part == pytest.approx(1 / 4)
    assert log.up[A].shared_part == pytest.approx(0.5 / 4)
    assert [one.alone for one in log.leases] == [True, True, False, False]
    assert log.down[C].idle_part == 0.0


def test_a_request_is_held_up_while_one_of_its_links_carries_another() -> None:
    log = log_of(
        Handled(0.0, Wakeup(), [grant(1, 0, C, A), grant(2, 0, B, A)]),
        Handled(1.0, stored(1, 0, C, 0.0, 0.0, 1.0), []),
        Handled(2.0, stored(2, 0, B, 0.0, 0.0, 1.0), [grant(3, 1, B, C)]),
        Handled(2.5, Wakeup(), [grant(4, 1, C, A)]),
        Handled(3.0, stored(3, 1, B, 0.0, 0.0, 1.0), [grant(5, 2, B, A)]),
        Handled(4.5, stored(4, 1, C, 0.0, 1.0, 1.0), []),
        Handled(5.5, stored(5, 2, B, 0.0, 1.5, 1.0), []),
    )
    by_lease = {(one.source, one.receiver, one.granted_s): one.held_up_s for one in log.leases}
    assert by_lease[A, C, 2.5] == 0.0
    assert by_lease[A, B, 3.0] == pytest.approx(1.0)


def test_a_profile_has_what_waits_for_no_other_transfer() -> None:
    log = log_of(
        Handled(1.0, Wakeup(), [grant(1, 0, B, A), grant(2, 0, C, A)]),
        Handled(2.0, stored(1, 0, B, 0.5, 0.1, 0.2), [grant(3, 1, B, A)]),
        Handled(2.0, stored(2, 0, C, 0.4, 0.1, 0.2), [grant(4, 1, C, A, behind=3)]),
        Handled(3.0, stored(3, 1, B, 0.01, 0.02, 0.3), []),
        Handled(4.0, stored(4, 1, C, 0.8, 0.02, 0.3), []),
    )
    profile = log.profile(PIECE / 0.3)
    assert profile.wake.quantiles_s[0] == profile.wake.quantiles_s[-1] == 0.01
    assert profile.request.mean_s == pytest.approx(0.02)
    assert (profile.connect.quantiles_s[0], profile.connect.quantiles_s[-1]) == (0.4, 0.5)


def test_a_log_without_such_leases_says_what_to_record() -> None:
    with pytest.raises(LocalError, match="record a longer run"):
        log_of().profile(None)


def test_a_delay_is_drawn_from_between_its_quantiles() -> None:
    delay = Delay.of([0.01 * number for number in range(1, 101)], 4)
    assert delay.mean_s == pytest.approx(0.505, abs=0.01)
    rng = random.Random(1)
    assert all(delay.quantiles_s[0] <= delay.draw(rng) <= delay.quantiles_s[-1] for _ in range(100))


def test_a_profile_is_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    profile = Profile(Delay((0.001, 0.002)), Delay((0.003,)), Delay((0.0,)), Delay((0.1,)), 0.9)
    path.write_text(json.dumps(profile_document(profile)))
    assert read_profile(path) == profile


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"control": [2, 1], "wake": [0], "connect": [0], "request": [0], "share": 1}']
)
def test_what_is_no_profile_gets_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="profile"):
        read_profile(path)


def test_the_command_prints_steps_and_links_and_writes_the_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "a.log"
    record_cold_swarm(log)
    assert main(["fit", str(log), "--goodput", "20mbit", "--profile", str(tmp_path / "profile.json")]) == 0
    printed = capsys.readouterr().out
    assert "nodes' uplinks" in printed
    assert "waits for nothing" in printed
    assert read_profile(tmp_path / "profile.json").share <= 1.0
