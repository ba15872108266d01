"""The small file system is full when it is full, and gone afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.tmpfs import fill, small_tmpfs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


def test_it_holds_what_it_was_made_for_and_no_more(tmp_path: Path) -> None:
    with small_tmpfs(tmp_path / "small", 1 << 20) as folder:
        assert fill(folder) <= 1 << 20
        with pytest.raises(OSError, match="No space left"):
            (folder / "more").write_bytes(bytes(4096))


def test_it_is_unmounted_afterwards(tmp_path: Path) -> None:
    with small_tmpfs(tmp_path / "small", 1 << 20) as folder:
        (folder / "file").write_text("x")
    assert list(folder.iterdir()) == []
