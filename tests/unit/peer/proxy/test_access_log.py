"""The access log: a line a request, what it says, what it never says, and who may move it away."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from peer.proxy.access_log import AccessLog, middleware
from proto.errors import ConfigError
from proto.ids import Digest
from tests.support.fake_origin import fake_origin
from tests.unit.peer.proxy.harness import running_mirror

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.peer.proxy.harness import Mirror

CONTENT = b"c" * 70_001
PATH = f"/v2/name/blobs/{Digest.of(CONTENT)}"
SECRET = "hunter2hunter2"


@contextlib.contextmanager
def logging_mirror(file: Path) -> Iterator[Mirror]:
    log = AccessLog(str(file))
    try:
        watchers = [middleware(log, frozenset({"/healthz"}))]
        with fake_origin() as origin, running_mirror(origin.upstream, first=watchers) as mirror:
            origin.add(CONTENT)
            yield mirror
    finally:
        log.close()


def line_of(file: Path, number: int = 0) -> str:
    wait_until(lambda: file.exists() and file.read_text().count("\n") > number, "the line")
    return file.read_text().splitlines()[number]


def test_a_line_has_who_asked_for_what_and_what_came_of_it(tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    with logging_mirror(file) as mirror:
        assert mirror.request(PATH, headers=[("User-Agent", "containerd/1.7")])[1] == CONTENT
        line = line_of(file)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 client=127\.0\.0\.1 method=GET upstream=", line)
    told = f" path={PATH} kind=blob status=200 bytes={len(CONTENT)} from=passthrough seconds="
    assert re.match(r"\d+\.\d{3} ", line.partition(told)[2])
    assert line.endswith(" agent=containerd/1.7")


def test_it_has_no_query_no_credential_and_no_line_but_ours(tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    headers = [("Authorization", f"Bearer {SECRET}"), ("Cookie", SECRET), ("User-Agent", 'a "b" status=200')]
    with logging_mirror(file) as mirror:
        lines: list[str] = []
        mirror.request("/healthz")
        # A line is written when its client may have the answer already.
        for method, target in (
            ("GET", f"{PATH}?sig={SECRET}"),
            ("GET", f"http://me:{SECRET}@nowhere.example/v2/"),
            ("GET", "/v2/name/blobs/%0anonsense"),
            ("CONNECT", f"me:{SECRET}@nowhere.example:443"),
        ):
            mirror.request(target, method=method, headers=headers)
            lines.append(line_of(file, len(lines)))
    assert SECRET not in file.read_text()
    assert lines[0].endswith(""" agent="a 'b' status=200\"""")
    assert "nonsense" in lines[2]
    assert " path=nowhere.example:443 " in lines[3]
    assert len(file.read_text().splitlines()) == 4


def test_who_rotates_it_moves_it_away(tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    with logging_mirror(file) as mirror:
        mirror.request(PATH)
        line_of(file)
        file.rename(tmp_path / "access.log.1")
        mirror.request("/v2/")
        assert "kind=ping" in line_of(file)


def test_a_folder_that_is_missing_is_told_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make its folder"):
        AccessLog(str(tmp_path / "none" / "access.log"))


def test_lines_come_again_once_a_file_can_be_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "folder" / "access.log"
    file.parent.mkdir()
    with contextlib.closing(AccessLog(str(file))) as log:
        file.unlink()
        file.parent.rmdir()
        log.write("lost")
        wait_until(lambda: "access_log_failed" in caplog.text, "the warning")
        file.parent.mkdir()
        log.write("kept")
        assert line_of(file) == "kept"


def test_a_disk_that_fails_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "access.log"
    file.parent.mkdir()
    with logging_mirror(file) as mirror:
        file.unlink()
        file.parent.rmdir()
        assert mirror.request(PATH)[1] == CONTENT
        file.parent.mkdir()
        assert mirror.request(PATH)[1] == CONTENT
        assert "status=200" in line_of(file)
