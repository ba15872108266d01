"""What is asked of a peer and of registries, and what comes of no answer."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from peer.doctor import peer_probe, registry_probe
from peer.doctor.http_question import Answer
from proto.oci.upstreams import UpstreamConfig

if TYPE_CHECKING:
    from pathlib import Path


def test_an_address_that_there_is_none_of_is_nobodys_port(tmp_path: Path) -> None:
    url = "http://peer.invalid:65001"
    assert peer_probe.probe(url, url, tmp_path).problem == "refused"


def test_a_registry_that_wants_the_peers_certificate_is_not_asked_without(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as nobody:
        port = nobody.getsockname()[1]
    host = f"127.0.0.1:{port}"
    upstream = UpstreamConfig(host, f"https://{host}", client_cert=tmp_path / "a.pem", client_key=tmp_path / "a.key")
    found = registry_probe.probe(upstream.facts(), 401)
    assert (found.step, found.asked) == ("", False)


@pytest.mark.parametrize("body", [b"[" * 100_000, b"[]", b"<html>", b""])
def test_an_answer_that_is_no_object_says_nothing(body: bytes) -> None:
    assert Answer(200, {}, body).json() == {}
