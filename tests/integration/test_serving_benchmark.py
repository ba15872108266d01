"""`layercast-bench serving`: a small run of every way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.client("nginx")


def test_a_small_run_measures_every_way(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "figures.json"
    assert main(["serving", "--size", "3MiB", "--rounds", "1", "--json", str(kept)]) == 0
    figures = json.loads(kept.read_text())
    names = ["nginx, sendfile", "store hit, plain", "bare loop of preadv and TLS", "store hit, intercepted"]
    assert [way["name"] for way in figures["ways"]] == names
    assert len(figures["ratios"]) == 4
    assert all(figure > 0 for figure in figures["ratios"].values())
    assert "CPU of store hit, intercepted / the TLS loop, at most 1.25" in capfd.readouterr().out
