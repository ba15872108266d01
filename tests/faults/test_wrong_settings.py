"""Settings that cannot be used: one line that says what is wrong and right, and the programs end with status 2.

Which line, the programs' own `load` says; that a program ends with it is shown by a process for each way to give a
setting, and for what only shows when it starts to work.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

import peer.config
import supernode.config
from benchmarks.cluster.processes import run
from benchmarks.cluster.programs import clean_environment
from benchmarks.cluster.services import LOOPBACK, script
from proto.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PROGRAMS = ("layercast-peer", "layercast-supernode")
LOADS = {"layercast-peer": peer.config.load, "layercast-supernode": supernode.config.load}
FREE = f"{LOOPBACK}:0"


def words(data_dir: Path, flags: Sequence[str]) -> list[str]:
    return ["--listen", FREE, "--upload-listen", FREE, *flags, "--data-dir", str(data_dir)]


def not_loaded(program: str, data_dir: Path, flags: Sequence[str]) -> str:
    """What is wrong with the flags."""
    with pytest.raises(ConfigError) as refusal:
        LOADS[program](words(data_dir, flags), {})
    line = str(refusal.value)
    assert line.isprintable()
    return line


def refused(program: str, data_dir: Path, flags: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """The one line that the program ends with."""
    argv: list[str | Path] = [script(program), *words(data_dir, flags)]
    ended = run(argv, env=clean_environment(**(env or {})), check=False)
    assert ended.returncode == 2, ended
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{program}: ")
    return line


# Of either program.
WRONG_FLAGS = [
    (["--listen", "nowhere"], ["--listen", "nowhere", "HOST:PORT"]),
    (["--store-size", "plenty"], ["--store-size", "plenty", "10GiB"]),
    (["--store-size", "0"], ["--store-size", "0", "at least 1"]),
    (["--upload-slots", "0"], ["--upload-slots", "0", "1"]),
    (["--insecure-upstream", "http://x/"], ["--insecure-upstream", "http://x/", "HOST:PORT"]),
    (["--config", "/nonexistent/layercast.toml"], ["/nonexistent/layercast.toml"]),
    (["--no-such-flag", "1"], ["--no-such-flag"]),
]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("flags", "named"), WRONG_FLAGS, ids=[" ".join(flags) for flags, _ in WRONG_FLAGS])
def test_a_wrong_flag(tmp_path: Path, program: str, flags: list[str], named: list[str]) -> None:
    line = not_loaded(program, tmp_path / "data", flags)
    assert [text for text in named if text not in line] == [], line


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--listen", "127.0.0.1:99999"], ["--listen", "99999", "HOST:PORT"]),
        (["--upload-listen", "127.0.0.1:http"], ["--upload-listen", "http", "HOST:PORT"]),
        (["--upload-rate", "fast"], ["--upload-rate", "fast", "100Mbit"]),
        (["--p2p", "perhaps"], ["--p2p", "perhaps", "true or false"]),
        (["--log-level", "loud"], ["--log-level", "loud", "debug, info"]),
        (["--allow-upstream", "a b"], ["--allow-upstream", "a b", "HOST"]),
        (["--advertise", "127.0.0.1:0"], ["--advertise", "127.0.0.1:0", "expected"]),
        (["--supernode", "host:1"], ["--supernode", "host:1", "http://"]),
        (["--zone", "a/b/c/d"], ["--zone", "a/b/c/d", "REGION/ZONE/RACK"]),
        (["--default-upstream", "ftp://x"], ["--default-upstream", "ftp://x", "http"]),
    ],
)
def test_a_wrong_flag_of_a_peer(tmp_path: Path, flags: list[str], named: list[str]) -> None:
    line = not_loaded("layercast-peer", tmp_path / "data", flags)
    assert [text for text in named if text not in line] == [], line


def test_a_wrong_flag_of_a_supernode(tmp_path: Path) -> None:
    line = not_loaded("layercast-supernode", tmp_path / "data", ["--ping-interval", "never"])
    assert [text for text in ("--ping-interval", "never") if text not in line] == [], line


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("flags", [["--store-size", "plenty"], ["--no-such-flag", "1"]], ids=["value", "name"])
def test_a_program_ends_with_the_line_about_its_flags(tmp_path: Path, program: str, flags: list[str]) -> None:
    line = refused(program, tmp_path / "data", flags)
    assert line == f"{program}: {not_loaded(program, tmp_path / 'data', flags)}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_wrong_value_in_the_environment(tmp_path: Path, program: str) -> None:
    line = refused(program, tmp_path / "data", [], {"LAYERCAST_STORE_SIZE": "plenty"})
    assert "LAYERCAST_STORE_SIZE" in line
    assert "plenty" in line
    assert "10GiB" in line


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('store_size = "plenty"', ["layercast.toml", "store_size", "plenty", "10GiB"]),
        ('stroe_size = "10GiB"', ["layercast.toml", "stroe_size"]),
        ("store_size = ", ["layercast.toml", "line 1"]),
        ("p2p = 3.5", ["layercast.toml", "p2p", "3.5"]),
        ('[upstream."registry.example.com"]\nurl = "gopher://x"', ["registry.example.com", "gopher://x", "https"]),
        ('[upstream."registry.example.com"]\nurll = "https://x"', ["registry.example.com", "urll"]),
        (
            '[upstream."r.example"]\ndirectory = "/nonexistent/x"',
            ["r.example", "/nonexistent/x", "No such file", "OCI"],
        ),
        ('[upstream."r.example"]\ndirectory = "/proc"', ["r.example", "'/proc'", "rootdirectory", "OCI layout"]),
        ('[upstream."r.example"]\ndirectory = "/proc"\nurl = "https://x"', ["r.example", "no other key"]),
    ],
)
def test_a_wrong_line_in_the_file(tmp_path: Path, text: str, named: list[str]) -> None:
    file = tmp_path / "layercast.toml"
    file.write_text(text + "\n")
    line = not_loaded("layercast-peer", tmp_path / "data", ["--config", str(file)])
    assert [part for part in named if part not in line] == [], line


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_ends_with_the_line_about_its_file(tmp_path: Path, program: str) -> None:
    file = tmp_path / "layercast.toml"
    file.write_text("store_size = \n")
    line = refused(program, tmp_path / "data", ["--config", str(file)])
    assert [part for part in (str(file), "line 1") if part not in line] == [], line


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_data_folder_that_is_a_file(tmp_path: Path, program: str) -> None:
    (tmp_path / "data").write_text("")
    line = refused(program, tmp_path / "data", [])
    assert "--data-dir" in line
    assert str(tmp_path / "data") in line


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("flag", ["--listen", "--upload-listen"])
def test_an_address_in_use(tmp_path: Path, program: str, flag: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        address = f"{LOOPBACK}:{taken.getsockname()[1]}"
        line = refused(program, tmp_path / "data", [flag, address])
    assert flag in line
    assert address in line


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_folder_of_another_schema(tmp_path: Path, program: str) -> None:
    (tmp_path / "data" / "store").mkdir(parents=True)
    (tmp_path / "data" / "store" / "schema").write_text("999\n")
    line = refused(program, tmp_path / "data", [])
    assert "999" in line
    assert "newer" in line
