"""The command line itself: help, version, status, and what `up` would start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from peer.cli import up
from peer.cli.contract import CommandError
from peer.cli.main import build_parser, main
from proto import VERSION
from tests.unit.peer.proxy.harness import Reply, Seen, scripted_origin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

METRICS = b"""# TYPE layercast_bytes_total counter
layercast_bytes_total{source="peer"} 5368709120
layercast_sessions_open 3
process_cpu_seconds_total 1
"""


def service(health: int, words: bytes) -> Callable[[Seen], Reply]:
    answers = {
        "/healthz": Reply(health, body=words),
        "/metrics": Reply(200, body=METRICS),
        "/v1/status": Reply(200, body=b'{"epoch": 12, "swarms": []}'),
    }
    return lambda seen: answers[seen.target]


@pytest.mark.parametrize("words", [["--help"], ["up", "--help"], ["pull", "--help"], ["status", "--help"]])
def test_help_explains(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert "usage: layercast" in capsys.readouterr().out


def test_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.strip() == f"layercast {VERSION}"


@pytest.mark.parametrize(
    "words", [[], ["fly"], ["pull"], ["pull", "a", "--via", "ftp://x"], ["up", "--listen", "nowhere"]]
)
def test_wrong_usage_is_exit_code_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


def test_status_shows_what_a_service_says(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_origin(service(200, b"ready\n")) as supernode:
        assert main(["status", "--supernode", f"http://{supernode.authority}"]) == 0
    shown = capsys.readouterr().out
    assert "ready" in shown
    assert "5.0 GiB" in shown
    assert "epoch" in shown
    assert "process_cpu" not in shown


def test_status_of_a_service_that_is_not_ready_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_origin(service(503, b"store is being read\n")) as peer:
        assert main(["status", "--peer", f"http://{peer.authority}"]) == 1
    assert "store is being read" in capsys.readouterr().out


def test_status_of_nothing_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_origin(service(200, b"")) as gone:
        url = f"http://{gone.authority}"
    assert main(["status", "--peer", url]) == 1
    assert capsys.readouterr().err.startswith(f"layercast status: peer {url}: does not answer")


STATUS = {
    "sessions": 2,
    "swarms_open": 1,
    "quarantined": [],
    "swarms": [
        {"digest": "sha256:" + "a" * 64, "size_bytes": 3 << 20, "pieces": 12, "seed_pieces": 6, "members": 2}
        | {"wanted_by": 2, "origin": "fetching"}
    ],
}
NODE = {"node": 1, "peer": "ab12", "address": "10.0.0.7:65002", "zone": "eu", "agent": "layercast/1"} | {
    "blobs_wanted": 3,
    "blobs_announced": 4,
    "quarantine": None,
}


def busy_supernode(seen: Seen) -> Reply:
    answers: dict[str, bytes] = {
        "/healthz": b"ready\n",
        "/metrics": METRICS,
        "/v1/status": json.dumps(STATUS).encode(),
        "/v1/nodes": json.dumps({"nodes": [NODE]}).encode(),
    }
    return Reply(200, body=answers[seen.target])


def test_status_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_origin(busy_supernode) as supernode:
        url = f"http://{supernode.authority}"
        assert main(["status", "--json", "--supernode", url]) == 0
    said = json.loads(capsys.readouterr().out)["supernode"]
    assert (said["ready"], said["details"]["sessions"], said["error"]) == (True, 2, "")
    assert said["samples"]["layercast_bytes_total source=peer"] == 5368709120
    assert main(["status", "--json", "--supernode", url]) == 1
    assert "does not answer" in json.loads(capsys.readouterr().out)["supernode"]["error"]


def test_nodes_are_listed_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_origin(busy_supernode) as supernode:
        url = f"http://{supernode.authority}"
        assert main(["nodes", "--supernode", url]) == 0
        assert f"1 nodes at {url}" in capsys.readouterr().out
        assert main(["nodes", "--json", "--supernode", url]) == 0
    assert json.loads(capsys.readouterr().out) == {"nodes": [NODE]}


@pytest.mark.parametrize("said", [{"trouble": "its store had no room"}, {"quarantine": "its store had no room"}])
def test_nodes_says_what_is_wrong_with_one(said: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_origin(lambda _: Reply(200, body=json.dumps({"nodes": [{**NODE, **said}]}).encode())) as origin:
        assert main(["nodes", "--supernode", f"http://{origin.authority}"]) == 0
    assert "its store had no room" in capsys.readouterr().out


def test_what_is_no_terminal_has_room_for_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    long = {**NODE, "address": "[2001:db8:1234:5678:9abc:def0:1234:5678]:65002", "zone": "europe/eu-west-1/rack-17"}
    with scripted_origin(lambda _: Reply(200, body=json.dumps({"nodes": [long]}).encode())) as origin:
        assert main(["nodes", "--supernode", f"http://{origin.authority}"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "ab12" in line)
    assert all(str(long[column]) in row for column in ("address", "zone", "agent"))


def test_top_looks_again_and_again(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_origin(busy_supernode) as supernode:
        words = ["top", "--supernode", f"http://{supernode.authority}", "--interval", "0.2s", "--count", "2"]
        assert main([*words, "--json"]) == 0
        looks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(look["sessions"], look["origin_bytes_s"]) for look in looks] == [(2, 0.0), (2, 0.0)]
        assert main(words) == 0
    assert "6/12" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["nodes", "top"])
def test_a_supernode_that_does_not_answer_is_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_origin(busy_supernode) as gone:
        url = f"http://{gone.authority}"
    assert main([command, "--supernode", url]) == 1
    assert capsys.readouterr().err.startswith(f"layercast {command}: supernode {url}: does not answer")


def test_a_node_that_does_not_run_is_not_drained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drain", "--data-dir", str(tmp_path)]) == 1
    assert "no peer runs with it" in capsys.readouterr().err


def test_up_tells_each_program_its_registries_and_the_peer_its_supernode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "join_file", lambda folder: folder / "token")
    words = ["up", "--registry", "https://reg.example", "--registry", "http://10.0.0.1:5000"]
    words += ["--default-upstream", "http://10.0.0.1:5000", "--supernode-listen", "0.0.0.0:0", "--data-dir", "/tmp/x"]
    supernode, peer = up.programs(build_parser().parse_args(words))
    upstreams = ["--allow-upstream", "reg.example", "--insecure-upstream", "10.0.0.1:5000"]
    assert list(supernode.arguments({})) == [
        "supernode", "--listen", "0.0.0.0:0", "--upload-listen", "127.0.0.1:65003", "--data-dir", "/tmp/x/supernode",
        *upstreams, "--insecure-upstream", "10.0.0.1:5000",
    ]  # fmt: skip
    told = list(peer.arguments({"supernode.api": "0.0.0.0:4321", "peer.proxy": "127.0.0.1:99"}))
    assert told[told.index("--supernode") + 1] == "https://127.0.0.1:4321"
    assert told[told.index("--join-file") + 1] == "/tmp/x/token"
    assert told[told.index("--listen") + 1] == "127.0.0.1:99"
    assert told[told.index("--default-upstream") + 1] == "http://10.0.0.1:5000"


def test_up_refuses_a_registry_that_is_no_registry() -> None:
    with pytest.raises(CommandError):
        up.upstream_flags(["https://user@reg.example"])


def test_a_reader_that_has_enough_is_no_failure_of_ours() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    argv = [sys.executable, "-m", "peer.cli.main", "version"]
    ended = subprocess.run(argv, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")
