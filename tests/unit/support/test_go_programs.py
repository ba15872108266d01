"""Programs that are built from the Go module proxy, by a Go that a script stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import go_programs
from tests.support.go_programs import BuildFailed, GoProgram, OutOfReach, workshop
from tests.support.missing import skip_or_fail

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = GoProgram("thing", "example.com/thing", "v1.0.0")
UNREACHABLE = "dial tcp 192.0.2.1:443: i/o timeout"


class Go:
    """Fails so many builds with these words, then builds."""

    def __init__(self, folder: Path, failures: int, words: str) -> None:
        self.path = folder / "go"
        self._builds = folder / "builds"
        self._builds.touch()
        self.path.write_text(
            f"""#!/bin/sh
[ "$1" = version ] && exec echo "go version go1.25.0 linux/amd64"
echo >>{self._builds}
[ "$(wc -l <{self._builds})" -gt {failures} ] || {{ printf '%s\\n' 'go: first line' '{words}' >&2; exit 1; }}
[ "$2" = -mod=mod ] && echo built >"$4"
"""
        )
        self.path.chmod(0o755)

    @property
    def builds(self) -> int:
        return len(self._builds.read_text())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(go_programs, "PAUSES_S", (0.0, 0.0))


def use(go: Go, monkeypatch: pytest.MonkeyPatch) -> Go:
    monkeypatch.setattr(go_programs, "program", lambda name: str(go.path))
    return go


def test_a_proxy_that_does_not_answer_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, said = use(Go(tmp_path, 2, UNREACHABLE), monkeypatch), list[str]()
    assert PROGRAM.built(said.append).read_text() == "built\n"
    assert PROGRAM.built(said.append).read_text() == "built\n"
    assert (go.builds, len(said)) == (3, 3)


def test_a_proxy_that_never_answers_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = use(Go(tmp_path, 99, UNREACHABLE), monkeypatch)
    with pytest.raises(OutOfReach, match=r"^example.com/thing@v1.0.0 cannot be built: .*GOPROXY.*i/o timeout$"):
        PROGRAM.built()
    assert go.builds == 3


def test_what_does_not_build_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = use(Go(tmp_path, 99, "undefined: x"), monkeypatch)
    with pytest.raises(BuildFailed, match="undefined: x") as failed:
        PROGRAM.built()
    assert (go.builds, isinstance(failed.value, OutOfReach)) == (1, False)


def test_what_is_made_of_files_of_ours_is_built_anew_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, folder = use(Go(tmp_path, 0, ""), monkeypatch), tmp_path / "sources"
    folder.mkdir()
    (folder / "main.go").write_text("package main")
    ours = GoProgram("thing", "example.com/thing", "v1.0.0", folder=folder, also=(("example.com/other", "v2.0.0"),))
    with workshop() as place:
        first = ours.built(place=place)
        assert "example.com/other v2.0.0" in (place / "thing" / "go.mod").read_text()
        assert (place / "thing" / "main.go").read_text() == "package main"
    assert ours.built() == first
    (folder / "main.go").write_text("package main // other")
    assert ours.built() != first
    assert go.builds == 2


@pytest.mark.parametrize(
    ("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)], ids=["in CI", "elsewhere"]
)
def test_what_is_missing_fails_in_ci_alone(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no module proxy"):
        skip_or_fail("no module proxy")
