"""Nonsense at the mirror's port: request lines, headers, CONNECT targets, URLs and paths of all kinds, 10,000 of them.

Each gets an answer that blames its sender, or none: never a 500, never an exception in the log, and never a connection
to what it names. What is sent comes from a seed, which a failure shows.
"""

from __future__ import annotations

import contextlib
import logging
import random
import socket
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.proxy.forward_policy import ForwardPolicy, intercepted_hosts
from peer.proxy.forward_proxy import ForwardParts
from peer.proxy.node_authority import NodeAuthority
from peer.proxy.tunnel import Tunnels
from peer.registry.tunnel_ends import open_tunnel_end
from tests.unit.peer.proxy.harness import Reply, Seen, running_mirror, scripted_origin

if TYPE_CHECKING:
    from pathlib import Path

    from peer.metrics import Metrics
    from peer.registry.origins import Origins

CASES_A_SEED: Final = 1250
# An incomplete request is waited for by the mirror, and not by us.
PATIENCE_S: Final = 0.1

METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "get",
    "",
    "G\x00T",
    "X" * 300,
]
DIGEST = f"sha256:{'a' * 64}"
HOSTS = [
    "registry.example.com",
    "registry.example.com:443",
    "registry-1.docker.io:443",
    "169.254.169.254:443",
    "localhost",
    "127.0.0.1",
    "127.0.0.1:443",
    "[::1]:443",
    "[::1",
    "::1",
    "a@b:443",
    "user:pass@host:443",
    ":443",
    "host:",
    "host:0",
    "host:99999",
    "host:-1",
    "host:4\uff143",
    "%00:443",
    "xn--:443",
    "a" * 300 + ":443",
    "..",
    "*",
    "/",
    "",
    " ",
    "\xff:443",
    "quay.io",
    "quay.io:443",
    "[fe80::1%25eth0]:443",
    "0x7f.1:443",
    "2130706433:443",
    "127.1:443",
    "host:443/x",
    "host:443?x",
]
PATHS = [
    "/",
    "/v2",
    "/v2/",
    "//v2//",
    "/v2/a/manifests/latest",
    f"/v2/a/b/blobs/{DIGEST}",
    "/v2/a/blobs/sha256:zz",
    "/v2/a/blobs/uploads/",
    "/v2/a/blobs/uploads/x?_state=%ff",
    f"/v2/a/referrers/{DIGEST}",
    "/v2/_catalog?n=-1",
    "/v2/a/tags/list?n=x&last=%00",
    "/v2/quay.io/a/manifests/1",
    "/v2/%2e%2e/%2e%2e/etc/passwd",
    "/v2/../token",
    "/v2/a%",
    "/v2/a%zz/manifests/1",
    "/v2/\xe9/manifests/1",
    "/v2/" + "a/" * 900,
    "/v2/a?ns=",
    "/v2/?ns=quay.io&ns=ghcr.io",
    "/v2/?ns=%00",
    "/v2/?ns=a@b",
    "/token",
    "/token?scope=",
    "/token?scope=repository:a:pull",
    "/token?scope=repository:::",
    "/token?scope=repository:quay.io:1/a:pull",
    "/token?" + "scope=x&" * 400,
    "/metrics",
    "/healthz",
    "*",
    "",
    "?",
    "#",
    "\\",
    "http://",
    "http:///",
    "http://[",
    "http://a:b:c/",
    "https://registry.example.com/v2/",
    "http://127.0.0.1/v2/",
    "http://169.254.169.254/latest",
    "http://registry.example.com:99999/",
    "HTTP://registry.example.com",
    "ftp://a/b",
    "http://registry.example.com/v2/a/blobs/uploads/",
    "http://u:p@registry.example.com/v2/",
    "http://\xff/",
]
VERSIONS = ["HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/9.9", "http/1.1", "", "HTTP/1.1 x", "HTTP/11"]
HEADERS = [
    "Host: localhost",
    "Host: registry.example.com",
    "Host:",
    "Host: a b",
    "Host: [",
    "Host: evil.example.com",
    "Host: \xff",
    "Content-Length: 0",
    "Content-Length: 5",
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Content-Length: x",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: x",
    "Expect: 100-continue",
    "Expect: nonsense",
    "Range: bytes=0-",
    "Range: bytes=5-1",
    "Range: bytes=" + "0-0," * 2000,
    "Range: bytes=99999999999999999999999-",
    "If-None-Match: *",
    "If-None-Match: " + "x," * 500,
    "If-Range: x",
    "Authorization: Basic !",
    "Authorization: Bearer lc.!!!!",
    "Authorization: Bearer lc.",
    "Authorization: Bearer lc.\xff",
    "Authorization: \xff",
    "Authorization:",
    "OCI-Namespace: quay.io",
    "OCI-Namespace: \x00",
    "OCI-Namespace: a@b",
    "OCI-Namespace: " + "x" * 500,
    "Layercast-Hop: 1",
    "Connection: close",
    "Connection: upgrade",
    "Upgrade: websocket",
    "Connection: " + ",".join(["Host"] * 300),
    "Accept: " + "a/b," * 400,
    "Proxy-Authorization: Basic x",
    "Origin: null",
    "Docker-Distribution-Api-Version: registry/2.0",
    "Content-Encoding: gzip",
    "Content-Type: \x01",
    "X: " + "y" * 70_000,
    ": x",
    "no colon",
    " folded",
    "X\x00: y",
    "X: \x00",
    "Cookie: a=b; c",
    "Content-Type: application/x-www-form-urlencoded",
]
BODIES = [
    "",
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffffffff\r\n",
    "zz\r\n",
    "0\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01",
]


def nonsense(chance: random.Random) -> bytes:
    """A request of which anything may be wrong, or one thing, and now and then bytes that are none."""
    if chance.random() < 0.03:
        return chance.randbytes(chance.randrange(1, 300)) + b"\r\n\r\n"
    wild = chance.random() < 0.3
    method = chance.choice(METHODS if wild else METHODS[:8])
    target = chance.choice(HOSTS if method == "CONNECT" and chance.random() < 0.8 else PATHS)
    if chance.random() < 0.1:
        target = "http://" + chance.choice(HOSTS) + chance.choice(PATHS)
    lines = [f"{method} {target} {chance.choice(VERSIONS) if wild else 'HTTP/1.1'}"]
    lines.append(f"Host: {chance.choice(HOSTS) if wild else 'localhost'}")
    lines += chance.choices(HEADERS, k=chance.choice([0, 1, 2, 3, 6]) if wild else chance.choice([0, 0, 1, 2]))
    sent = bytearray("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))
    if wild or "Content-Length: 5" in lines or "Transfer-Encoding: chunked" in lines:
        sent += chance.choice(BODIES).encode("latin-1")
    if wild and chance.random() < 0.5:
        for _ in range(chance.randrange(1, 4)):
            sent[chance.randrange(len(sent))] = chance.randrange(256)
    return bytes(sent)


def status_of(port: int, sent: bytes, patience_s: float = PATIENCE_S) -> int:
    """The status that came, 0 for none."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as sock, contextlib.suppress(OSError):
        sock.sendall(sent)
        sock.settimeout(patience_s)
        answer = sock.recv(64)
        if answer.startswith(b"HTTP/"):
            return int(answer.split()[1])
    return 0


@pytest.mark.parametrize("line", ["CONNECT xn--:443 HTTP/1.1", "GET http://xn--/v2/ HTTP/1.1", "CONNECT  HTTP/1.1"])
def test_a_host_that_is_none_is_the_clients_error(caplog: pytest.LogCaptureFixture, line: str) -> None:
    # Found by the test below: the connection's task ended, and the connection stayed.
    with scripted_origin(lambda _: Reply()) as origin, running_mirror(origin.upstream) as mirror:
        assert 400 <= status_of(mirror.port, f"{line}\r\nHost: localhost\r\n\r\n".encode(), WAIT_S) < 500
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("seed", range(8))
def test_no_request_is_our_error(tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int) -> None:
    lookups: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        lookups.append(host)
        return ["127.0.0.1"]  # what a name of somebody else's may say

    def parts(origins: Origins, metrics: Metrics) -> ForwardParts:
        authority = NodeAuthority(tmp_path)
        authority.open(intercepted_hosts(origins.upstreams()))
        return ForwardParts(
            ForwardPolicy(),
            origins.upstreams,
            authority,
            Tunnels(64, WAIT_S),
            metrics,
            frozenset(),
            open_end=partial(open_tunnel_end, resolver=resolver),
        )

    def answer(seen: Seen) -> Reply:
        return Reply(404, body=b"{}")

    chance = random.Random(seed)
    with (
        socket.create_server(("127.0.0.1", 0)) as inside,
        scripted_origin(answer) as origin,
        running_mirror(origin.upstream, forward=parts) as mirror,
    ):
        statuses: dict[int, int] = {}
        for number in range(CASES_A_SEED):
            sent = nonsense(chance)
            status = status_of(mirror.port, sent)
            statuses[status] = statuses.get(status, 0) + 1
            assert status != 500, f"seed {seed}, request {number}: {sent[:300]!r}"
        inside.settimeout(0)
        with pytest.raises(BlockingIOError):
            inside.accept()
    told = [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]
    assert [record.getMessage() for record in told] == []
    # It is no test of refusals alone.
    assert {200, 400, 403, 404} <= set(statuses), statuses
