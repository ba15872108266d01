"""What `[upstream."HOST"]` says about an origin holds for what is forwarded: CA, client certificate, egress proxy."""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from proto.ids import Digest
from proto.oci.upstreams import UpstreamConfig
from tests.support.tls import Authority, KeyPair
from tests.unit.peer.proxy.harness import Reply, Seen, running_mirror, scripted_origin

if TYPE_CHECKING:
    from pathlib import Path

PATH = "/v2/a/tags/list"
BLOB = f"/v2/a/blobs/{Digest.of(b'{}')}"


def answer(_: Seen) -> Reply:
    return Reply(200, body=b"{}")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def over_https(port: int, ca_file: Path | None = None, pair: KeyPair | None = None) -> UpstreamConfig:
    name = f"127.0.0.1:{port}"
    cert, key = (pair.certificate_file, pair.key_file) if pair is not None else (None, None)
    return UpstreamConfig(name, f"https://{name}", configured=True, ca_file=ca_file, client_cert=cert, client_key=key)


def test_an_origin_is_believed_by_the_operators_ca(authority: Authority) -> None:
    context = authority.issue(["127.0.0.1"]).server_context()
    with scripted_origin(answer, context=context) as origin:
        with running_mirror(over_https(origin.port, ca_file=authority.certificate_file)) as mirror:
            assert mirror.request(PATH)[1] == b"{}"
        with running_mirror(over_https(origin.port)) as mirror:
            assert mirror.request(PATH)[0].status == 503


def test_a_client_certificate_is_shown_for_local_clients_where_it_is_shared(authority: Authority) -> None:
    context = authority.issue(["127.0.0.1"]).server_context()
    context.load_verify_locations(authority.certificate_file)
    context.verify_mode = ssl.CERT_REQUIRED
    pair = authority.issue(["node"])
    with scripted_origin(answer, context=context) as origin:
        upstream = over_https(origin.port, authority.certificate_file, pair)
        for target in (PATH, BLOB):
            with running_mirror(replace(upstream, shared=True)) as mirror:
                assert mirror.request(target)[0].status == 200
            with running_mirror(upstream) as mirror:  # it reads for this node alone, not for every local client
                assert mirror.request(target)[0].status == 503
        with running_mirror(over_https(origin.port, authority.certificate_file)) as mirror:
            assert mirror.request(PATH)[0].status == 503


def test_a_certificate_file_that_cannot_be_read_is_the_operators_error(tmp_path: Path) -> None:
    with running_mirror(over_https(1, ca_file=tmp_path / "none.pem")) as mirror:
        response, body = mirror.request(PATH)
    assert response.status == 500
    assert b"ca_file" in body


def test_an_egress_proxy_is_used_where_configured() -> None:
    with scripted_origin(answer) as proxy:
        name = "registry.example:5000"
        upstream = UpstreamConfig(name, f"http://{name}", True, egress_proxy=f"http://user:secret@{proxy.authority}")
        with running_mirror(upstream) as mirror:
            assert mirror.request(PATH)[0].status == 200
    [seen] = proxy.seen
    assert seen.target == f"http://{name}{PATH}"
    assert seen.all("Proxy-Authorization") == ["Basic dXNlcjpzZWNyZXQ="]
