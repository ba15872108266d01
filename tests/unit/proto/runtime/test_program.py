"""What both services do alike: settings, signals, reload, exit codes, one line where the operator must act."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
import uvloop

from proto.errors import ConfigError, StoreFull
from proto.runtime import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


@dataclass(frozen=True)
class Config:
    log_level: str = "info"
    log_json: bool = False
    warnings: tuple[str, ...] = ()


class FakeService:
    """Ready at once; then it sends its own process `signals`, a moment apart."""

    def __init__(self, *signals: int, refuses: Exception | None = None, fails: bool = False) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.calls: list[str] = []
        self._signals = signals
        self._refuses = refuses
        self._fails = fails

    def open(self) -> None:
        self.calls.append("open")
        if self._refuses is not None:
            raise self._refuses

    async def start(self) -> str:
        self.calls.append("start")
        if self._fails:
            self.failed.set_result(None)
        for after, number in enumerate(self._signals):
            asyncio.get_running_loop().call_later(0.05 * (after + 1), os.kill, os.getpid(), number)
        return "service on=nothing"

    async def reload(self, config: Config) -> None:
        self.calls.append(f"reload {config.log_level}")

    async def stop(self) -> bool:
        self.calls.append("stop")
        return True


@pytest.fixture(scope="module", autouse=True)
def _pipe_of_libuv() -> None:
    """With the first signal handler of a process, libuv opens a pipe that it keeps."""

    async def handle_one() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: None)

    uvloop.run(handle_one())


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def run(make: Callable[[], FakeService], *configs: Config | ConfigError) -> tuple[int, list[str]]:
    """The exit code and what the service was asked; `configs` are what each reading of the settings finds."""
    made: list[FakeService] = []
    remaining = list(configs or [Config()])

    def load(argv: Sequence[str], environ: Mapping[str, str]) -> Config:
        found = remaining.pop(0)
        if isinstance(found, ConfigError):
            raise found
        return found

    def make_one(config: Config) -> FakeService:
        made.append(make())
        return made[0]

    code = program.run("layercast-test", [], load, make_one)
    return code, made[0].calls if made else []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: FakeService(number)) == (0, ["open", "start", "stop"])
    assert capsys.readouterr().out == "ready service on=nothing\n"


def test_sighup_reloads_the_settings() -> None:
    changed = replace(Config(), log_level="debug")
    code, calls = run(lambda: FakeService(signal.SIGHUP, signal.SIGTERM), Config(), changed)
    assert (code, calls) == (0, ["open", "start", "reload debug", "stop"])


def test_settings_that_became_wrong_are_refused_and_the_service_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ConfigError("--zone: too long")
    code, calls = run(lambda: FakeService(signal.SIGHUP, signal.SIGTERM), Config(), wrong)
    assert (code, calls) == (0, ["open", "start", "stop"])
    assert "reload_refused: --zone: too long" in capsys.readouterr().err


def test_a_service_that_cannot_go_on_ends_with_status_1() -> None:
    assert run(lambda: FakeService(fails=True)) == (1, ["open", "start", "stop"])


@pytest.mark.parametrize(("refuses", "expected"), [(ConfigError("--listen: taken"), 2), (StoreFull("no room"), 1)])
def test_a_start_that_fails_says_why_in_one_line(
    refuses: Exception, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda: FakeService(refuses=refuses)) == (expected, ["open", "stop"])
    assert capsys.readouterr().err == f"layercast-test: {refuses}\n"


def test_wrong_settings_make_no_service(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FakeService, ConfigError("--zone: too long")) == (2, [])
    assert capsys.readouterr().err == "layercast-test: --zone: too long\n"


def test_a_setting_that_does_nothing_any_more_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    given = Config(warnings=("--datagrams: gone; delete it",))
    assert run(lambda: FakeService(signal.SIGTERM), given)[0] == 0
    assert "warning proto.runtime.program setting_ignored --datagrams: gone; delete it" in capsys.readouterr().err
