"""The peer's settings: defaults, and refusals that say what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from peer.config import load
from proto.config.values import HostPort
from proto.errors import ConfigError


def test_defaults_are_those_of_the_documentation() -> None:
    config = load(["--data-dir", "/x"], {})
    assert (config.listen, config.upload_listen) == (HostPort("127.0.0.1", 65001), HostPort("0.0.0.0", 65002))
    assert (config.supernode, config.status_listen, config.advertise) == (None, None, None)
    assert config.upstreams.default.host == "docker.io"
    assert config.p2p
    assert config.data_dir == Path("/x")


def test_a_plain_http_default_upstream_is_allowed_by_naming_it() -> None:
    config = load(["--data-dir", "/x", "--default-upstream", "http://10.0.0.1:5000"], {})
    assert config.upstreams.default.insecure
    assert config.upstreams.lookup("10.0.0.1:5000").insecure


def test_an_option_that_is_gone_is_a_warning() -> None:
    config = load(["--data-dir", "/x", "--prefetch", "false"], {})
    assert config.warnings == ("--prefetch: layers are no longer begun before a client asks for them; delete it",)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--listen", "nonsense"], "--listen: 'nonsense': expected HOST:PORT"),
        (["--supernode", "ftp://x"], "--supernode: 'ftp://x': expected a URL"),
        (["--upload-slots", "0"], "--upload-slots: '0': expected 1 to 64"),
        (["--store-size", "0"], "--store-size: '0': expected at least 1 byte"),
        (["--advertise", "0.0.0.0:1"], "--advertise: '0.0.0.0:1': expected an address"),
        (["--zone", "a/b/c/d"], "--zone: 'a/b/c/d': expected REGION/ZONE/RACK"),
        (["--insecure-upstream", "http://x"], "--insecure-upstream 'http://x'"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_would_be_right(argv: list[str], message: str) -> None:
    data_dir = ["--data-dir", "/x"] if argv else []
    with pytest.raises(ConfigError) as refused:
        load([*data_dir, *argv], {})
    assert message in str(refused.value)


TOKEN = "lc1.abcdefgh." + "A" * 43 + "." + "A" * 43


def test_a_join_token_comes_by_the_environment_too(capsys: pytest.CaptureFixture[str]) -> None:
    config = load([], {"LAYERCAST_JOIN": TOKEN})
    assert config.join is not None
    assert config.join.text == TOKEN
    assert "AAAA" not in repr(config)
    with pytest.raises(SystemExit):
        load(["--print-config"], {"LAYERCAST_JOIN": TOKEN})
    assert "AAAA" not in capsys.readouterr().out


def test_a_wrong_token_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError, match=r"^LAYERCAST_JOIN: expected a join token") as refused:
        load([], {"LAYERCAST_JOIN": TOKEN + "A"})
    assert "AAAA" not in str(refused.value)


def test_a_token_and_open_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="needs no join token"):
        load(["--open"], {"LAYERCAST_JOIN": TOKEN})


def test_a_token_in_place_of_a_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected a file; this is the token itself"):
        load(["--join-file", TOKEN], {})
