"""What strangers, operators and members may read of a real supernode."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import aiohttp
import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.cli import status
from peer.membership.dialer import MemberDialer
from proto.runtime import tls
from proto.wire.join import REFUSAL_HEADER, SUPERNODE_NAME
from proto.wire.tickets import Identity
from supernode.membership.authorities import AuthorityFolder
from supernode.membership.commands import create_token
from tests.unit.supernode.harness import running_supernode

if TYPE_CHECKING:
    from pathlib import Path

    from supernode.app import Supernode
    from tests.support.fake_origin import FakeOrigin

pytestmark = pytest.mark.asyncio

# An address of this machine that is not the one a listener on ELSEWHERE sees as its own.
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
OPERATOR_PATHS = ("/metrics", "/v1/check", "/v1/nodes", "/v1/no-such-thing")


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects does not do so from this machine."""
    monkeypatch.setattr("supernode.api.access._is_local", lambda request: False)


async def ask(
    supernode: Supernode, path: str, *, by_tls: bool = True, token: str = "", host: str = "", through: str = ""
) -> tuple[int, str, str]:
    """(status, body, refusal)."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if host:
        headers["Host"] = host
    if through:
        headers[through] = "192.0.2.1"
    context, name = (tls.unverified_context(), SUPERNODE_NAME) if by_tls else (True, None)
    url = f"http{'s' if by_tls else ''}://{supernode.api_address}{path}"
    async with (
        aiohttp.ClientSession() as client,
        client.get(url, headers=headers, ssl=context, server_hostname=name) as answer,
    ):
        return answer.status, await answer.text(), answer.headers.get(REFUSAL_HEADER, "")


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize("by_tls", [True, False])
async def test_a_stranger_sees_whether_it_is_healthy_and_no_more(
    tmp_path: Path, origin: FakeOrigin, by_tls: bool
) -> None:
    async with running_supernode(tmp_path, origin, "--open", "false") as supernode:
        assert (await ask(supernode, "/healthz", by_tls=by_tls))[:2] == (200, "ready\n")
        found, body, _ = await ask(supernode, "/v1/status", by_tls=by_tls)
        assert (found, json.loads(body)) == (200, {"ready": True, "membership": "tokens"})
        for path in OPERATOR_PATHS:
            found, _, refusal = await ask(supernode, path, by_tls=by_tls)
            assert found == 403
            assert "for members and operators" in refusal
        found, _, refusal = await ask(supernode, "/v1/session", by_tls=by_tls)
        assert (found, "admits members only" in refusal) == (403, True)


@pytest.mark.usefixtures("stranger")
async def test_an_operator_s_token_is_good_by_tls_alone(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path, origin, "--open", "false") as supernode:
        token = (tmp_path / "ca" / "operator.token").read_text().strip()
        assert (await ask(supernode, "/metrics", token=token))[0] == 200
        assert "swarms" in json.loads((await ask(supernode, "/v1/status", token=token))[1])
        assert (await ask(supernode, "/metrics", token=token[:-1]))[0] == 403
        assert (await ask(supernode, "/metrics", token=token, by_tls=False))[0] == 403
        # It reads, and is no member.
        assert (await ask(supernode, "/v1/session", token=token))[0] == 403


async def test_a_member_reads_but_is_no_operator_at_the_console(tmp_path: Path, origin: FakeOrigin) -> None:
    async with (
        running_supernode(tmp_path, origin, "--open", "false") as supernode,
        aiohttp.ClientSession() as client,
    ):
        token = create_token(AuthorityFolder(tmp_path), 3600.0, 1)
        url = f"http://{supernode.api_address}"
        dial = await MemberDialer(url, tmp_path, Identity.generate(), token).dial(client)

        async def status_of(method: str, path: str) -> int:
            async with client.request(
                method, f"{dial.url}{path}", ssl=dial.tls, server_hostname=dial.server_name
            ) as answer:
                return answer.status

        assert await status_of("GET", "/v1/nodes") == 200
        for path in ("/v1/console", "/v1/console/events", "/v1/story"):
            assert await status_of("GET", path) == 403
        assert await status_of("POST", "/ui/login") == 403


async def test_this_machine_reads_everything_in_plain(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path, origin, "--open", "false") as supernode:
        assert "swarms" in json.loads((await ask(supernode, "/v1/status", by_tls=False))[1])
        assert (await ask(supernode, "/v1/nodes", by_tls=False, host="localhost:65000"))[0] == 200
        # A web page whose host name was bound to our address.
        assert (await ask(supernode, "/v1/nodes", by_tls=False, host="evil.example"))[0] == 403


@pytest.mark.parametrize("header", ["Forwarded", "Via", "X-Forwarded-For", "X-Real-IP"])
async def test_whom_a_proxy_on_this_machine_asks_for_is_not_of_this_machine(
    tmp_path: Path, origin: FakeOrigin, header: str
) -> None:
    async with running_supernode(tmp_path, origin, "--open", "false") as supernode:
        assert (await ask(supernode, "/v1/nodes", by_tls=False, through=header))[0] == 403


async def test_where_this_machine_asks_for_anybody_its_operators_show_the_token(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    options = ("--open", "false", "--local-operators", "false")
    async with running_supernode(tmp_path, origin, *options) as supernode:
        assert (await ask(supernode, "/v1/nodes", by_tls=False))[0] == 403
        assert (await ask(supernode, "/v1/nodes"))[0] == 403
        token = (tmp_path / "ca" / "operator.token").read_text().strip()
        assert (await ask(supernode, "/v1/nodes", token=token))[0] == 200


async def test_with_open_everybody_reads_everything_and_is_told_of_it(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path, origin) as supernode:
        assert json.loads((await ask(supernode, "/v1/status", by_tls=False))[1])["membership"] == "open"
        assert (await ask(supernode, "/v1/ca", by_tls=False))[0] == 404


@pytest.mark.usefixtures("stranger")
async def test_an_operator_elsewhere_reads_status_with_the_supernode_s_own_files(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    async with running_supernode(tmp_path, origin, "--open", "false") as supernode:
        url, ca_file = f"https://{supernode.api_address}", str(tmp_path / "ca" / "ca.pem")
        token = (tmp_path / "ca" / "operator.token").read_text().strip()
        report = await asyncio.to_thread(status.read, url, ca_file, token)
        assert (report.error, report.words, report.details["sessions"]) == ("", "ready", 0)
        report = await asyncio.to_thread(status.read, url, ca_file)
        assert report.samples == {}
        assert "for members and operators" in report.words


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize("asked", ["GET /healthz", "GET /v1/status", "GET /metrics", "POST /healthz", "POST /v1/ca"])
async def test_a_stranger_s_connection_is_good_for_one_answer(tmp_path: Path, origin: FakeOrigin, asked: str) -> None:
    async with running_supernode(tmp_path, origin, "--open", "false") as supernode:
        host, _, port = supernode.api_address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{asked} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        async with asyncio.timeout(WAIT_S):
            assert (await reader.read()).startswith(b"HTTP/1.1 ")
        writer.close()
        await writer.wait_closed()


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize("token", [b"\xff\xfe", b"", b"\xe9"])
async def test_what_is_no_token_at_all_is_refused_like_a_wrong_one(
    tmp_path: Path, origin: FakeOrigin, token: bytes
) -> None:
    async with running_supernode(tmp_path, origin, "--open", "false") as supernode:
        host, _, port = supernode.api_address.rpartition(":")
        context = tls.unverified_context()
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=SUPERNODE_NAME)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer " + token + b"\r\n\r\n")
        async with asyncio.timeout(WAIT_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
        writer.close()


@pytest.mark.parametrize("host", ["a:b:c", "::", "\u00e9"])
async def test_a_host_that_makes_no_sense_is_no_name_of_this_machine(
    tmp_path: Path, origin: FakeOrigin, host: str
) -> None:
    async with running_supernode(tmp_path, origin, "--open", "false") as supernode:
        address, _, port = supernode.api_address.rpartition(":")
        reader, writer = await asyncio.open_connection(address, int(port))
        writer.write(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        async with asyncio.timeout(WAIT_S):
            assert (await reader.readline()).split()[1] in (b"400", b"403")
        writer.close()


@pytest.mark.parametrize("by_tls", [True, False])
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 5000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
        b"POST /v1/join HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/join HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/join HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_nonsense_is_refused_and_no_error_of_ours(
    tmp_path: Path, origin: FakeOrigin, caplog: pytest.LogCaptureFixture, request_bytes: bytes, by_tls: bool
) -> None:
    async with running_supernode(tmp_path, origin, "--open", "false") as supernode:
        host, _, port = supernode.api_address.rpartition(":")
        context, name = (tls.unverified_context(), SUPERNODE_NAME) if by_tls else (None, None)
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name)
        writer.write(request_bytes)
        async with asyncio.timeout(WAIT_S):
            assert (await reader.readline()).split()[1][:1] == b"4"
        writer.close()
        assert not [record for record in caplog.records if record.exc_info]
