"""`layercast events` against a scripted supernode: what is asked, shown, and the exit codes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from peer.cli.main import main
from tests.unit.peer.proxy.harness import Reply, Seen, scripted_origin

DEAD = {
    "number": 7, "image": "r.example/app:1", "state": "dead", "received": "2026-01-01T00:00:00+00:00", "job": 3,
    "error": "no such tag",
}  # fmt: skip
SCAN = {"ended": "2026-01-01T00:00:00+00:00", "repositories": 2, "found": 1, "problems": {"r.example/b": "it is down"}}


class Supernode:
    """Has these dead events."""

    def __init__(self, *dead: dict[str, Any]) -> None:
        self.dead = dead
        self.changes: list[tuple[str, Any]] = []

    def __call__(self, seen: Seen) -> Reply:
        if seen.method == "GET":
            found = {"waiting": 0, "working": 0, "dead": len(self.dead), "events": self.dead}
            return Reply(200, body=json.dumps({**found, "scan": {"running": False, "last": SCAN}}).encode())
        document = json.loads(seen.body)
        self.changes.append((seen.target, document))
        numbers = document.get("numbers", [event["number"] for event in self.dead])
        count = sum(event["number"] in numbers for event in self.dead)
        return Reply(202 if seen.target.endswith("scan") else 200, body=json.dumps({"changed": count}).encode())


def run(supernode: Supernode, *words: str) -> int:
    with scripted_origin(supernode) as running:
        return main(["events", *words, "--supernode", f"http://{running.authority}"])


def test_dead_events_are_shown_with_why_and_the_exit_code_says_that_there_are_some(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(Supernode(DEAD)) == 1
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("1 dead", "no such tag", "it is down"))
    assert run(Supernode()) == 0


def test_programs_get_what_the_supernode_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Supernode(DEAD), "--json") == 1
    assert json.loads(capsys.readouterr().out)["events"] == [DEAD]


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (["--retry"], ("/api/v1/events/again", {})),
        (["--retry", "7"], ("/api/v1/events/again", {"numbers": [7]})),
        (["--drop", "7", "8"], ("/api/v1/events/drop", {"numbers": [7, 8]})),
        (["--scan"], ("/api/v1/events/scan", {})),
    ],
)
def test_what_is_changed_is_asked_for(words: list[str], change: tuple[str, Any]) -> None:
    supernode = Supernode(DEAD)
    run(supernode, *words)
    assert supernode.changes == [change]


def test_numbers_of_no_dead_event_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Supernode(DEAD), "--drop", "8") == 1
    assert "none of these is dead: 8" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--retry"]])
@pytest.mark.parametrize("body", [b"[" * 100_000, b"[]", b"<html>"])
def test_what_no_supernode_would_answer_is_one_line(
    words: list[str], body: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_origin(lambda _: Reply(200, body=body)) as running:
        assert main(["events", *words, "--supernode", f"http://{running.authority}"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "answers" in error
