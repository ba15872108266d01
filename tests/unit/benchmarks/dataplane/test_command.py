"""`layercast-bench dataplane`: a small run of every way, and arguments that make no sense."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path


def test_a_small_run_measures_every_way_and_leaves_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = tmp_path / "files"
    files.mkdir()
    kept = tmp_path / "figures.json"
    arguments = ["--size", "3MiB", "--rounds", "1", "--dir", str(files), "--json", str(kept)]
    assert main(["dataplane", *arguments]) == 0
    figures = json.loads(kept.read_text())
    assert [size["size_bytes"] for size in figures["sizes"]] == [3 << 20]
    parts = ["layercast", "libtorrent"]
    for size in figures["sizes"]:
        names = [way["name"].split()[0].rstrip(",") for way in size["ways"]]
        public = ["floor", "layercast", "layercast", "aiohttp", "libtorrent"]
        assert names == [*public, "layercast", "floor", *parts, *["floor"] * 3]
        assert all(way["cpu_s_per_gib"] > 0 and way["gib_per_s"] > 0 for way in size["ways"])
        assert size["ratios"]["layercast / floor"]["is"] > 0
    assert list(files.iterdir()) == []
    shown = capfd.readouterr()
    assert "3 MiB: layercast / aiohttp" in shown.out
    assert "round 1/1: libtorrent" in shown.err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--size 5x", "expected a size"),
        ("--size 0", "at least 1MiB"),
        ("--size 1MiB,5x", "expected a size"),
        ("--size 999999999GiB", "too few for three blobs"),
        ("--rounds 0", "at least 1"),
        ("--rounds 101", "at most 100"),
        ("--parallel many", "expected a whole number"),
        ("--dir /nowhere/at/all", "name a folder"),
        ("--json /nowhere/at/all", "its folder must exist"),
    ],
)
def test_what_cannot_work_is_said_in_one_line_before_measuring(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["dataplane", "--dir", str(tmp_path), *words.split()]) == 1
    shown = capsys.readouterr().err
    assert complaint in shown
    assert shown.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_flag_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dataplane", "--what"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "layercast-bench: unrecognized arguments: --what\n"


def test_a_benchmark_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "BENCHMARK" in capsys.readouterr().err
