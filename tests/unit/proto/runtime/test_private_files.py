"""Files for one user alone: whose they are."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from proto.runtime.private_files import write_private

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_what_root_writes_beside_another_user_s_service_is_that_user_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda descriptor, user, group: given.append((user, group)))
    write_private(tmp_path / "key", b"secret")
    assert given == [(tmp_path.stat().st_uid, tmp_path.stat().st_gid)]
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
