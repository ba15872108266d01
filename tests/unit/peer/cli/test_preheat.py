"""`layercast preheat`, `jobs` and `keeps` against a scripted supernode: what is sent, shown, and the exit codes."""

from __future__ import annotations

import io
import json
import time
from datetime import datetime
from typing import Any

import pytest

from peer.cli import preheat
from peer.cli.main import main
from peer.cli.preheat import parse_time
from tests.unit.peer.proxy.harness import Reply, Seen, scripted_origin

NODE = "ab" * 32


def job(number: int = 1, state: str = "running", done: int = 0, **more: object) -> dict[str, Any]:
    return {
        "number": number, "image": "quay.io/org/app:1", "platforms": [], "to": "all", "by": None,
        "after": None, "keep": False, "kept": False, "state": state,
        "attempts": 1, "error": "", "digest": "", "size_bytes": 100, "created": "2026-01-01T00:00:00+00:00",
        "retried": None, "ended": "2026-01-01T00:01:00+00:00" if state in ("done", "failed", "cancelled") else None,
        "nodes_count": 2, "nodes_done": done, "nodes": [], **more,
    }  # fmt: skip


class Supernode:
    """Answers an order with job 1, and each look with the next of its `looks`."""

    def __init__(self, *looks: dict[str, Any]) -> None:
        self.looks = list(looks)
        self.orders: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str]] = []

    def __call__(self, seen: Seen) -> Reply:
        self.asked.append((seen.method, seen.target))
        if seen.method == "POST":
            self.orders.append(json.loads(seen.body))
            return Reply(201, body=json.dumps(job(len(self.orders), "resolving")).encode())
        if seen.target == "/api/v1/jobs":
            return Reply(200, body=json.dumps({"jobs": self.looks}).encode())
        return Reply(200, body=json.dumps(self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]).encode())


def run(supernode: Supernode, *words: str) -> int:
    with scripted_origin(supernode) as running:
        return main([*words, "--supernode", f"http://{running.authority}"])


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preheat, "_LOOK_S", 0.0)


def test_images_are_submitted_by_their_whole_names() -> None:
    supernode = Supernode()
    words = ["preheat", "alpine", "quay.io/org/app:1", "--platform", "linux/amd64", "--to", "zone=eu"]
    assert run(supernode, *words) == 0
    assert [order["image"] for order in supernode.orders] == ["library/alpine:latest", "quay.io/org/app:1"]
    assert supernode.orders[0] | {"image": ""} == {
        "image": "", "platforms": ["linux/amd64"], "to": "zone=eu", "by": None, "after": None, "keep": False,
    }  # fmt: skip


def test_a_time_is_sent_with_its_zone() -> None:
    supernode = Supernode()
    assert run(supernode, "preheat", "alpine", "--by", "2h") == 0
    by = datetime.fromisoformat(supernode.orders[0]["by"])
    assert 7000 < by.timestamp() - time.time() <= 7200


@pytest.mark.parametrize("text", ["yesterday", "2001-01-01T00:00", ""])
def test_what_is_no_time_to_come_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_time(text)


def test_watching_ends_with_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [{"node": NODE, "state": "running", "held_bytes": 5, "error": ""}]
    supernode = Supernode(job(nodes=nodes), job(done=1, nodes=nodes), job(state="done", done=2))
    assert run(supernode, "preheat", "app", "--watch") == 0
    shown = capsys.readouterr()
    assert "job 1: done, 2 of 2 nodes have it" in shown.out
    assert "job 1: running, 1 of 2 nodes" in shown.err


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_job_that_failed_is_exit_code_1(state: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Supernode(job(state=state, error="no such image")), "preheat", "app", "--watch", "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"] == "no such image"


def test_bars_show_who_is_the_furthest_behind() -> None:
    from rich.console import Console
    from rich.progress import Progress

    held = [{"node": f"{n:02x}" * 32, "state": "running", "held_bytes": n, "error": ""} for n in range(40)]
    progress = Progress(console=Console(quiet=True))
    bars: dict[Any, Any] = {}
    preheat._draw(progress, bars, [job(nodes=held)])
    assert len(progress.tasks) == 31
    preheat._draw(progress, bars, [job(nodes=[*held[:2], held[2] | {"state": "done"}])])
    assert [task.completed for task in progress.tasks] == [0, 0, 1]


def test_jobs_are_listed_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    supernode = Supernode(job(), job(2, "failed", error="no such image"))
    assert run(supernode, "jobs", "--json") == 0
    assert [one["number"] for one in json.loads(capsys.readouterr().out)["jobs"]] == [1, 2]
    assert run(supernode, "jobs") == 0
    assert "2 jobs at" in capsys.readouterr().out


def test_a_registry_s_words_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    said = "manifest [/v2/app]: see [bold] and :warning: of the registry"
    assert run(Supernode(job(1, "failed", error=said), job(2, "done")), "jobs") == 0
    assert said in capsys.readouterr().out


def test_a_bar_shows_them_as_they_are_too() -> None:
    from rich.console import Console
    from rich.progress import Progress

    screen = Console(width=120, file=io.StringIO(), record=True)
    progress = Progress(*preheat._columns(), console=screen)
    progress.add_task("job 1 failed: [/v2/app]", amount="")
    screen.print(progress.get_renderable())
    assert "job 1 failed: [/v2/app]" in screen.export_text()


def test_one_job_is_shown_with_its_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [{"node": NODE, "state": "failed", "held_bytes": 5, "error": "full"}]
    assert run(Supernode(job(state="failed", nodes=nodes)), "jobs", "1") == 1
    assert NODE[:16] in capsys.readouterr().out


def test_a_job_is_cancelled() -> None:
    supernode = Supernode(job(state="cancelled"))
    assert run(supernode, "jobs", "1", "--cancel") == 0
    assert supernode.asked == [("DELETE", "/api/v1/jobs/1")]


def test_a_job_that_failed_is_submitted_anew() -> None:
    supernode = Supernode(job(7, "failed", to="5", by="2026-01-01T00:00:00+00:00"))
    assert run(supernode, "jobs", "7", "--retry") == 0
    assert supernode.orders == [{"image": "quay.io/org/app:1", "platforms": [], "to": "5", "keep": False}]


@pytest.mark.parametrize(
    "words",
    [["jobs", "--cancel"], ["jobs", "--retry"], ["jobs", "1", "--cancel", "--retry"], ["preheat", "UPPER/case"]],
)
def test_wrong_usage_is_exit_code_2(words: list[str]) -> None:
    assert run(Supernode(job()), *words) == 2


def test_a_refusal_is_in_the_supernode_s_words(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(seen: Seen) -> Reply:
        return Reply(403, body=b'{"error": "for operators"}')

    with scripted_origin(refuse) as running:
        assert main(["preheat", "app", "--supernode", f"http://{running.authority}"]) == 1
    assert "for operators" in capsys.readouterr().err


def test_what_is_kept_is_listed_and_dropped_by_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    kept = job(3, "done", keep=True, kept=True)
    supernode = Supernode(kept, job(2, "done"))
    assert run(supernode, "preheat", "alpine", "--keep") == 0
    assert supernode.orders[0]["keep"] is True
    capsys.readouterr()
    assert run(supernode, "keeps", "--json") == 0
    assert [one["number"] for one in json.loads(capsys.readouterr().out)["jobs"]] == [3]
    # It is looked at, told as the answer, and gone.
    supernode = Supernode(kept, kept, job(2, "done"))
    assert run(supernode, "keeps", "--drop", "3") == 0
    assert ("DELETE", "/api/v1/jobs/3") in supernode.asked
    assert "0 kept by nodes" in capsys.readouterr().out


def test_a_preheat_that_keeps_nothing_is_not_ended_by_dropping_it(capsys: pytest.CaptureFixture[str]) -> None:
    supernode = Supernode(job(3))
    assert run(supernode, "keeps", "--drop", "3") == 1
    assert [method for method, _ in supernode.asked] == ["GET"]
    assert "job 3 keeps nothing" in capsys.readouterr().err
