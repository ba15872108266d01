"""The console of a real supernode: who gets its files and what they show, and what a pull looks like there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from benchmarks.cluster.processes import WAIT_S
from proto.runtime import tls
from proto.wire.join import SUPERNODE_NAME
from proto.wire.messages import StoreReport
from supernode.console.feed import VIEWERS_MAX
from supernode.console.logins import COOKIE
from tests.support.blobs import some_blob
from tests.unit.supernode.harness import BarePeer, real_peer, running_supernode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from supernode.app import Supernode
    from tests.support.fake_origin import FakeOrigin

pytestmark = pytest.mark.asyncio
SNAPSHOT, EVENTS = "/v1/console", "/v1/console/events"


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects does not do so from this machine."""
    monkeypatch.setattr("supernode.api.access._is_local", lambda request: False)


class Browser:
    """Speaks TLS to one supernode; what cookies it sends is told."""

    def __init__(self, supernode: Supernode, client: aiohttp.ClientSession) -> None:
        self._supernode = supernode
        self._client = client

    @contextlib.asynccontextmanager
    async def asks(self, path: str, method: str = "GET", **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
        secure = self._supernode.members is not None
        url = f"http{'s' if secure else ''}://{self._supernode.api_address}{path}"
        context, name = (tls.unverified_context(), SUPERNODE_NAME) if secure else (True, None)
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        async with self._client.request(
            method, url, headers=named, ssl=context, server_hostname=name, allow_redirects=False
        ) as answer:
            yield answer

    async def status(self, path: str, method: str = "GET", **headers: str) -> int:
        async with self.asks(path, method, **headers) as answer:
            await answer.read()
            return answer.status


@contextlib.asynccontextmanager
async def browser(supernode: Supernode) -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
        yield Browser(supernode, client)


async def event(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """The next snapshot of a stream."""
    async with asyncio.timeout(WAIT_S):
        while not (line := await answer.content.readline()).startswith(b"data: "):
            assert line, "the stream has ended"
    found = json.loads(line[6:])
    assert isinstance(found, dict)
    return found


@pytest.mark.usefixtures("stranger")
async def test_a_stranger_gets_the_page_and_nothing_that_it_shows(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path, origin, "--open", "false") as supernode, browser(supernode) as asked:
        assert await asked.status("/ui/") == 200
        assert await asked.status("/ui/console.js") == 200
        assert await asked.status("/ui/..%2fv1%2fnodes") == 404
        for path in (SNAPSHOT, EVENTS):
            assert await asked.status(path) == 403
        assert await asked.status("/ui/login", "POST", Authorization="Bearer guessed") == 403
        assert await asked.status(SNAPSHOT, Cookie=f"{COOKIE}=guessed") == 403


@pytest.mark.usefixtures("stranger")
async def test_who_shows_the_token_once_reads_by_a_cookie_and_changes_nothing(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    async with running_supernode(tmp_path, origin, "--open", "false") as supernode, browser(supernode) as asked:
        assert supernode.members is not None
        async with asked.asks(
            "/ui/login", "POST", Authorization=f"Bearer {supernode.members.operator_token}"
        ) as answer:
            set_cookie = answer.headers["Set-Cookie"]
        for word in ("HttpOnly", "Secure", "SameSite=Strict", "Path=/", "Max-Age=43200"):
            assert word in set_cookie
        cookie = set_cookie.partition(";")[0]
        assert supernode.members.operator_token not in set_cookie
        assert await asked.status(SNAPSHOT, Cookie=cookie) == 200
        assert await asked.status("/v1/nodes", Cookie=cookie) == 200
        assert await asked.status("/v1/session", Cookie=cookie) == 403
        assert await asked.status("/ui/login", "POST", Cookie=cookie) == 403
        assert await asked.status("/ui/logout", "POST", Cookie=cookie) == 204
        assert await asked.status(SNAPSHOT, Cookie=cookie) == 403


@pytest.mark.usefixtures("stranger")
async def test_a_stream_ends_with_the_login_that_it_was_begun_by(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path, origin, "--open", "false") as supernode, browser(supernode) as asked:
        cookie = f"{COOKIE}={supernode._console.logins.begin()}"
        async with asked.asks(EVENTS, Cookie=cookie) as answer:
            assert (await event(answer))["ready"]
            assert await asked.status("/ui/logout", "POST", Cookie=cookie) == 204
            async with asyncio.timeout(WAIT_S):
                await answer.content.read()


async def test_a_file_is_sent_once_and_may_load_nothing_from_elsewhere(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path, origin) as supernode, browser(supernode) as asked:
        async with asked.asks("/ui/console.css") as answer:
            assert answer.content_type == "text/css"
            policy, etag = answer.headers["Content-Security-Policy"], answer.headers["ETag"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        async with asked.asks("/ui/console.css", If_None_Match=etag) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
        assert await asked.status("/ui/console.css", If_None_Match='"older"') == 200
        assert await asked.status("/ui/nothing.js") == 404
        assert await asked.status("/ui") == 301


async def test_there_is_a_limit_on_who_looks(tmp_path: Path, origin: FakeOrigin) -> None:
    async with (
        running_supernode(tmp_path, origin) as supernode,
        browser(supernode) as asked,
        contextlib.AsyncExitStack() as looking,
    ):
        for _ in range(VIEWERS_MAX):
            answer = await looking.enter_async_context(asked.asks(EVENTS))
            assert answer.status == 200
        assert await asked.status(EVENTS) == 503
        assert await asked.status(SNAPSHOT) == 200


async def test_who_takes_nothing_of_the_stream_makes_room_for_others_and_gets_no_more(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supernode.api.console._TAKE_S", 0.05)
    monkeypatch.setattr("supernode.console.feed.VIEWERS_MAX", 1)
    # More than sockets hold.
    size_bytes = 32 << 20
    monkeypatch.setattr("supernode.app.Snapshots.make", lambda _: b" " * size_bytes)
    async with running_supernode(tmp_path, origin) as supernode, browser(supernode) as asked, asyncio.timeout(WAIT_S):
        host, _, port = supernode.api_address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET {EVENTS} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        while True:
            async with asked.asks(EVENTS) as answer:
                if answer.status == 200:
                    break
            await asyncio.sleep(0.01)
        assert len(await reader.read()) < size_bytes
        writer.close()


async def test_a_stream_ends_with_the_supernode(tmp_path: Path, origin: FakeOrigin) -> None:
    async with contextlib.AsyncExitStack() as running:
        supernode = await running.enter_async_context(running_supernode(tmp_path, origin))
        async with browser(supernode) as asked, asked.asks(EVENTS) as answer:
            assert answer.content_type == "text/event-stream"
            assert (await event(answer))["ready"]
            await running.aclose()
            async with asyncio.timeout(WAIT_S):
                await answer.content.read()


async def test_a_node_s_store_is_shown_and_what_is_wrong_with_it(tmp_path: Path, origin: FakeOrigin) -> None:
    async with (
        running_supernode(tmp_path, origin) as supernode,
        BarePeer.connected(supernode) as peer,
        browser(supernode) as asked,
    ):
        await peer.send(StoreReport(3 << 30, 50 << 30, 2, 0))
        await peer.heard()
        async with asked.asks(SNAPSHOT) as answer:
            (row,) = (await answer.json())["nodes"]
        assert (row["store_used_bytes"], row["store_limit_bytes"]) == (3 << 30, 50 << 30)
        assert row["trouble"] == "2 pieces of its store rotted: look after its disk"
        await peer.send(StoreReport(-1, 0))
        await peer.ended()


async def test_a_pull_is_shown_with_what_came_from_where(tmp_path: Path, origin: FakeOrigin) -> None:
    content = some_blob(700_000).content
    digest = origin.add(content)
    async with (
        running_supernode(tmp_path / "supernode", origin, "--origin-price", "100000 EUR") as supernode,
        real_peer(supernode, tmp_path / "one") as one,
        real_peer(supernode, tmp_path / "other") as other,
        browser(supernode) as asked,
    ):
        for peer in (one, other):
            await peer.announce(origin, digest)
            await peer.completed(digest)
        async with asked.asks(EVENTS) as answer:
            # The last pieces' reports may still be on their way.
            while (found := await event(answer))["swarms"][0]["wanted_by"]:
                pass
    (swarm,) = found["swarms"]
    assert swarm["digest"] == str(digest)
    assert swarm["bytes"]["origin"] == len(content)
    assert swarm["bytes"]["supernode"] + swarm["bytes"]["nodes"] == 2 * len(content)
    assert swarm["zones"] == [["eu/a/r1", 2, 2]]
    assert swarm["map"] == "9" * swarm["pieces"]
    assert (swarm["wanted_by"], swarm["progress"]) == (0, 1.0)
    assert found["traffic"]["saved_bytes"] == len(content)
    assert (found["traffic"]["saved_money"], found["traffic"]["currency"]) == (70.0, "EUR")
    assert [row["trouble"] for row in found["nodes"]] == ["", ""]
    (upstream,) = found["upstreams"]
    assert (upstream["host"], upstream["failures"]) == (origin.authority, {})
