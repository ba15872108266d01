"""What a program imports before it is ready: each of these costs every start 5 to 200 ms of CPU."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# The event loop and all that is made for it, and what only a running service needs.
HEAVY = {
    "aiohttp", "asyncio", "cryptography", "email", "http", "importlib.metadata", "libtorrent", "msgpack",
    "prometheus_client", "rich", "sqlite3", "ssl", "urllib3", "uvloop",
}  # fmt: skip

_SAY_MODULES = "import atexit, json, sys; atexit.register(lambda: print(json.dumps(sorted(sys.modules)))); "


def imported_by(code: str) -> set[str]:
    """The modules that were imported when a process that runs this ended."""
    ended = subprocess.run([sys.executable, "-c", _SAY_MODULES + code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return set(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.parametrize("program", ["peer", "supernode"])
@pytest.mark.parametrize("flag", ["--version", "--help", "--print-config"])
def test_what_only_a_running_service_needs_is_imported_by_nothing_else(program: str, flag: str) -> None:
    code = f"import sys; sys.argv = ['layercast-{program}', '{flag}']; from {program}.__main__ import main; main()"
    assert not imported_by(code) & HEAVY
