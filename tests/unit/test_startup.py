"""What a program imports before it is ready: each of these costs every start 5 to 200 ms of CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

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


@pytest.mark.parametrize("words", [["setup", "--help"], ["doctor", "--help"], ["version"]])
def test_an_operator_s_command_imports_no_more_than_it_needs(words: list[str]) -> None:
    code = f"import sys; sys.argv = ['layercast', *{words!r}]; from peer.cli.main import main; main()"
    assert not imported_by(code) & (HEAVY | {"tomlkit", "yaml"})


@pytest.mark.parametrize("program", ["peer", "supernode"])
def test_a_service_imports_nothing_that_it_may_never_use(program: str, tmp_path: Path) -> None:
    argv = ["--listen", "127.0.0.1:0", "--upload-listen", "127.0.0.1:0", "--data-dir", str(tmp_path)]
    service = program.title()
    code = (
        f"import os, signal; from {program} import app; from {program}.__main__ import run\n"
        f"begin = app.{service}.start\n"
        "async def start(self):\n"
        "    words = await begin(self)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return words\n"
        f"app.{service}.start = start\n"
        f"assert run({argv!r}) == 0"
    )
    assert not imported_by(code) & {"benchmarks", "grpc", "importlib.metadata", "libtorrent", "rich", "urllib3"}


def test_aiohttp_is_imported_without_reading_certificates() -> None:
    code = (
        "import os, ssl; os.environ['SSL_CERT_FILE'] = 'as it was'; seen = []; make = ssl.create_default_context\n"
        "ssl.create_default_context = lambda: seen.append(os.environ['SSL_CERT_FILE']) or make()\n"
        "from proto.runtime.service import import_aiohttp; import_aiohttp()\n"
        "assert seen == [os.devnull], seen\n"
        "assert os.environ['SSL_CERT_FILE'] == 'as it was'"
    )
    assert "aiohttp" in imported_by(code)


def test_aiohttp_is_imported_without_reading_tables_of_file_types() -> None:
    code = (
        "import mimetypes; seen = []; known = mimetypes.knownfiles = ['/dev/null']\n"
        "mimetypes.MimeTypes.read = lambda self, file, strict=True: seen.append(file)\n"
        "from proto.runtime.service import import_aiohttp; import_aiohttp()\n"
        "assert mimetypes.inited and seen == [], seen\n"
        "assert mimetypes.knownfiles is known"
    )
    assert "aiohttp.web" in imported_by(code)
