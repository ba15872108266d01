"""Torrents are one delivery among others: nothing outside their packages names them, nothing loads them unasked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("peer/torrent", "supernode/torrent")
# The option and its port, who makes the delivery, and the vocabulary of the wire.
NAMED_IN = {
    "peer/app.py",
    "peer/config.py",
    "supernode/app.py",
    "supernode/config.py",
    "proto/wire/codec.py",
    "proto/wire/handshake.py",
    "proto/wire/messages.py",
}


def test_no_other_module_names_torrents() -> None:
    modules = [path for part in ("peer", "supernode", "proto") for path in (ROOT / part).rglob("*.py")]
    naming = {str(path.relative_to(ROOT)) for path in modules if "torrent" in path.read_text().lower()}
    assert {name for name in naming if not name.startswith(ROOMS)} == NAMED_IN


def test_services_start_without_them() -> None:
    loaded = "import sys, peer.app, supernode.app; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", loaded], cwd=ROOT, text=True).split()
    assert [name for name in modules if "torrent" in name] == []
