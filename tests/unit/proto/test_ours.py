"""A foreign package of the name `proto` is noticed at start-up and named."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("module", ["peer.__main__", "supernode.__main__", "peer.cli.main"])
def test_a_foreign_proto_package_is_named_in_one_line(tmp_path: Path, module: str) -> None:
    (tmp_path / "proto").mkdir()
    (tmp_path / "proto" / "__init__.py").write_text("")
    words = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {module}"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "install Layercast in an environment of its own" in ended.stderr
