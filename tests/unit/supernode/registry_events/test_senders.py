"""Who may send events."""

from __future__ import annotations

import base64
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from proto.errors import ConfigError
from supernode.registry_events.senders import Senders, read_senders

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "0123456789abcdef"
BASIC = base64.b64encode(f"harbor:{TOKEN}".encode()).decode()
SENDERS = Senders(TOKEN, (ip_network("10.1.0.0/16"),))


@pytest.mark.parametrize("line", [TOKEN, f"Bearer {TOKEN}", f"bearer  {TOKEN}", f"Basic {BASIC}"])
def test_the_secret_comes_in_every_way_that_senders_know(line: str) -> None:
    assert SENDERS.has_token(line)


@pytest.mark.parametrize("line", ["", "Bearer", "Bearer x", f"Digest {TOKEN}", "Basic !", f"Basic {TOKEN}", "\udcff"])
def test_what_is_not_the_secret_is_refused(line: str) -> None:
    assert not SENDERS.has_token(line)


def test_from_a_named_network_no_secret_is_needed() -> None:
    assert SENDERS.has_address("10.1.2.3")
    assert SENDERS.has_address("::ffff:10.1.2.3")
    assert not SENDERS.has_address("10.2.0.1")
    assert not SENDERS.has_address("")


def test_without_a_secret_none_is_right() -> None:
    assert not Senders("", SENDERS.networks).has_token("")
    assert not Senders().exist


def test_the_secret_is_read_from_its_file_and_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    found = read_senders(file, ())
    assert found.token == TOKEN
    assert TOKEN not in repr(found)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 20, b"two words are none", b"x" * 2000])
def test_a_file_without_a_secret_is_refused_and_not_repeated(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="openssl rand") as refused:
        read_senders(file, ())
    assert "words" not in str(refused.value)
    with pytest.raises(ConfigError, match="No such file"):
        read_senders(tmp_path / "none", ())
