"""Settings: rising layers, known origins, and refusals that say what would be right."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from proto.config.settings import Settings, default_data_dir, load, option, reloaded
from proto.config.values import (
    HostPort,
    one_of,
    parse_bool,
    parse_duration,
    parse_host_port,
    parse_int,
    parse_path,
    parse_rate,
    parse_size,
    parse_text,
)
from proto.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Program(Settings):
    listen: HostPort = option(parse_host_port, HostPort("127.0.0.1", 65001), "where clients connect")
    size_limit_bytes: int = option(parse_size, 10, "bytes", reloadable=True)
    allow_upstream: tuple[str, ...] = option(parse_text, (), "https registries", multiple=True)
    p2p: bool = option(parse_bool, True, "share pieces", reloadable=True)


def _load(*argv: str, environ: dict[str, str] | None = None) -> Program:
    return load("prog", "A program.", Program, argv, environ or {})


def test_flags_win_over_the_environment_over_the_file_over_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.toml"
    file.write_text('listen = "127.0.0.1:1"\nsize_limit = "1MiB"\np2p = false\n')
    argv, environ = ("--config", str(file), "--listen", "127.0.0.1:3"), {"LAYERCAST_SIZE_LIMIT": "2MiB"}
    loaded = _load(*argv, environ=environ)
    assert loaded.listen == HostPort("127.0.0.1", 3)
    assert loaded.size_limit_bytes == 2 << 20
    assert loaded.p2p is False
    assert loaded.allow_upstream == ()
    with pytest.raises(SystemExit):
        _load(*argv, "--print-config", environ=environ)
    assert capsys.readouterr().out.splitlines() == [
        "listen         = 127.0.0.1:3  # flag --listen",
        f"size_limit     = {2 << 20}  # environment LAYERCAST_SIZE_LIMIT",
        "allow_upstream = (none)  # default",
        f"p2p            = false  # file {file}",
    ]


def test_a_reload_takes_over_what_may_change_while_the_program_runs() -> None:
    before, after = _load(), _load("--listen", "127.0.0.1:3", "--p2p", "false", "--size-limit", "20")
    assert reloaded(before, after) == dataclasses.replace(before, size_limit_bytes=20, p2p=False)


def test_a_multiple_option_repeats_its_flag_or_separates_by_commas() -> None:
    assert _load("--allow-upstream", "a", "--allow-upstream", "b").allow_upstream == ("a", "b")
    assert _load(environ={"LAYERCAST_ALLOW_UPSTREAM": "a, b"}).allow_upstream == ("a", "b")


def test_upstream_sections_are_handed_on(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[upstream."r.example"]\nca_file = "/etc/ca.pem"\n')
    assert _load("--config", str(file)).upstream_tables == {"r.example": {"ca_file": "/etc/ca.pem"}}


def test_a_removed_option_is_a_warning_wherever_it_is_still_set(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("old_way = true\n")
    argv = ("--config", str(file), "--old-way", "yes")
    loaded = load("prog", "", Program, argv, {"LAYERCAST_OLD_WAY": "1"}, removed={"old_way": "there is one way"})
    assert loaded.warnings == tuple(
        f"{where}: there is one way; delete it" for where in ("--old-way", "LAYERCAST_OLD_WAY", f"{file}: old_way")
    )
    assert _load().warnings == ()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("lissten = 1", "unknown key 'lissten'; known keys: allow_upstream, listen"),
        ("listen = 5", "listen: '5': expected HOST:PORT"),
        ('allow_upstream = "a"', "expected an array"),
        ("listen = [1]", "expected a string, a number or true/false"),
        ("p2p = 'maybe'", "p2p: 'maybe': expected true or false"),
        ("upstream = 3", "expected sections such as"),
        ("a =", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_key_and_value(tmp_path: Path, content: str, complaint: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=complaint):
        _load("--config", str(file))


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(ConfigError, match="No such file"):
        _load("--config", "/nonexistent.toml")


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:80", "127.0.0.1:80"), ("[::1]:80", "[::1]:80"), (":80", "0.0.0.0:80"), ("node-1:0", "node-1:0")],
)
def test_addresses_are_read_and_printed(text: str, address: str) -> None:
    assert str(parse_host_port(text)) == address


@pytest.mark.parametrize("text", ["", "80", "::1:80", "h:99999", "h:-1", "http://h:80", "u@h:1", "h h:1"])
def test_a_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        parse_host_port(text)


def test_sizes_rates_and_times_take_units() -> None:
    assert parse_size("1.5GiB") == 3 << 29
    assert parse_rate("100Mbit") == 12_500_000
    assert parse_rate("10MiB/s") == 10 << 20
    assert parse_duration("500ms") == 0.5
    for parse in (parse_size, parse_rate, parse_duration):
        with pytest.raises(ValueError, match="expected"):
            parse("12 parsecs")


@pytest.mark.parametrize("argv", [["--no-such-flag", "1"], ["--listen"], ["stray"]])
def test_a_flag_that_is_none_of_ours_is_refused_in_one_line(argv: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*--help lists every flag$"):
        _load(*argv)


@pytest.mark.parametrize(
    ("user", "environ", "folder"),
    [
        (0, {}, "/var/lib/layercast"),
        (1000, {"HOME": "/home/u"}, "/home/u/.local/share/layercast"),
        (1000, {"XDG_DATA_HOME": "/data"}, "/data/layercast"),
    ],
)
def test_programs_have_a_folder_unless_told(
    monkeypatch: pytest.MonkeyPatch, user: int, environ: dict[str, str], folder: str
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert str(default_data_dir()) == folder


def test_a_switch_needs_no_word() -> None:
    assert _load("--p2p").p2p is True
    assert _load("--p2p", "false", "--size-limit", "5").p2p is False


@dataclass(frozen=True, kw_only=True)
class Secretive(Settings):
    password: str | None = option(one_of("right", "good"), None, "a password", secret=True)


def test_a_secret_is_shown_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"LAYERCAST_PASSWORD": "right"}
    assert load("prog", "A program.", Secretive, [], environ).password == "right"
    with pytest.raises(SystemExit):
        load("prog", "A program.", Secretive, ["--print-config"], environ)
    assert capsys.readouterr().out == "password = (secret)  # environment LAYERCAST_PASSWORD\n"
    with pytest.raises(ConfigError) as refused:
        load("prog", "A program.", Secretive, ["--password", "hunter2"], {})
    assert str(refused.value) == "--password: expected right or good"


@pytest.mark.parametrize("text", ["9" * 400, "9" * 5000, "nan", "inf", "\u00b2"])
def test_a_number_that_is_beyond_all_bounds_is_refused_in_words(text: str) -> None:
    for parse in (parse_size, parse_rate, parse_duration, parse_int):
        with pytest.raises(ValueError, match=r"^expected"):
            parse(text)
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        parse_host_port(f"host:{text}")


def test_the_home_of_nobody_is_no_path() -> None:
    with pytest.raises(ValueError, match="no such user"):
        parse_path("~nobody-has-this-name/x")


def test_a_file_that_is_nested_beyond_all_bounds_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("x = " + "[" * 5000)
    with pytest.raises(ConfigError, match="not TOML"):
        _load("--config", str(file))


def test_of_a_wrong_value_only_the_beginning_is_repeated() -> None:
    with pytest.raises(ConfigError) as refused:
        _load("--listen", "x" * 10_000)
    assert len(str(refused.value)) < 500
