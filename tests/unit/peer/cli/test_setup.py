"""`layercast setup`: what it prints, and with which exit code it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peer.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

DAEMON = "etc/docker/daemon.json"


def setup(root: Path, *words: str) -> int:
    return main(["setup", *words, "--root", str(root)])


def test_it_shows_a_diff_what_to_restart_and_what_has_no_fallback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup(tmp_path, "docker") == 0
    shown = capsys.readouterr().out
    assert '+  "registry-mirrors": ["http://127.0.0.1:65001"]' in shown
    assert "restart: systemctl daemon-reload && systemctl restart docker\n" in shown
    assert (
        "while the peer is down: docker.io is pulled from Docker Hub directly; with --proxy every pull fails\n" in shown
    )
    assert f"take it back with: layercast setup docker --undo --root {tmp_path}\n" in shown
    assert (tmp_path / DAEMON).exists()


def test_a_second_time_there_is_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup(tmp_path, "docker")
    capsys.readouterr()
    assert setup(tmp_path, "docker") == 0
    assert capsys.readouterr().out.startswith("docker: nothing to do: it is set up\n")


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup(tmp_path, "containerd", "--dry-run") == 0
    assert "containerd: would change" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_it_is_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup(tmp_path, "k3s")
    assert setup(tmp_path, "k3s", "--undo") == 0
    assert "k3s: taken back\n" in capsys.readouterr().out
    assert not (tmp_path / "etc").exists()


def test_what_is_refused_is_one_line_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup(tmp_path, "docker", "--registry", "quay.io") == 1
    assert capsys.readouterr().err.startswith("layercast setup: docker has mirrors for Docker Hub alone")


def test_the_proxy_way_takes_the_peers_certificate_where_the_peer_keeps_it(tmp_path: Path) -> None:
    folder = tmp_path / "var/lib/layercast/peer/interception"
    folder.mkdir(parents=True)
    (folder / "ca.pem").write_text("PEM\n")
    assert setup(tmp_path, "docker", "--proxy", "--registry", "quay.io") == 0
    assert (tmp_path / "etc/docker/layercast-ca.pem").read_text() == "PEM\n"


@pytest.mark.parametrize("words", [["rkt"], ["docker", "--registry", "a/b"], ["docker", "--mirror", "ftp://a"]])
def test_wrong_usage_is_exit_code_2(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        setup(tmp_path, *words)
    assert ended.value.code == 2


def test_a_proxy_for_who_needs_none_is_wrong_usage(tmp_path: Path) -> None:
    assert setup(tmp_path, "podman", "--proxy") == 2
