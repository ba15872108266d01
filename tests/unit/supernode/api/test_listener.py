"""The API port's newcomers: TLS and plain on one port, silence has an end, the oldest goes when there are too many."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from benchmarks.cluster.processes import WAIT_S
from supernode.api.listener import Listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio

GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


class Port:
    """A listener and how to reach it."""

    def __init__(self, listener: Listener, address: tuple[str, int]) -> None:
        self.listener = listener
        self.address = address

    @contextlib.asynccontextmanager
    async def connected(
        self, host: str = "127.0.0.1"
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(*self.address, local_addr=(host, 0))
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def listening(speak_s: float = WAIT_S, silent_max: int = 10) -> AsyncIterator[Port]:
    async def answer(request: web.BaseRequest) -> web.Response:
        listener.spoke(request)
        return web.Response(text="here")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    assert runner.server is not None
    with socket.create_server(("127.0.0.1", 0)) as bound:
        listener = Listener(bound, runner.server, lambda: None, speak_s=speak_s, silent_max=silent_max)
        listener.start()
        try:
            yield Port(listener, bound.getsockname())
        finally:
            await listener.close()
            await runner.cleanup()


async def ends(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side ends the connection."""
    async with asyncio.timeout(WAIT_S):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def test_who_asks_is_answered_and_is_no_silent_one() -> None:
    async with listening() as port, port.connected() as (reader, writer):
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert port.listener.silent == 0


async def test_who_says_nothing_is_closed() -> None:
    async with listening(speak_s=0.1) as port, port.connected() as (reader, _):
        assert await ends(reader) == b""
        assert port.listener.silent == 0


async def test_half_a_head_is_silence_too() -> None:
    async with listening(speak_s=0.1) as port, port.connected() as (reader, writer):
        writer.write(GET[:20])
        assert await ends(reader) == b""


async def test_when_there_are_too_many_the_oldest_goes() -> None:
    async with listening(silent_max=2) as port, contextlib.AsyncExitStack() as stack:
        silent = []
        for _ in range(3):
            reader, writer = await stack.enter_async_context(port.connected())
            # The first byte is taken in order.
            writer.write(b"G")
            silent.append(reader)
        async with port.connected() as (reader, writer):
            writer.write(GET)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert await ends(silent[0]) == b""


async def test_who_has_the_most_silent_ones_drives_out_its_own_alone() -> None:
    async with (
        listening(silent_max=4) as port,
        port.connected() as (reader, writer),
        contextlib.AsyncExitStack() as stack,
    ):
        flood = [await stack.enter_async_context(port.connected("127.0.0.2")) for _ in range(12)]
        assert await ends(flood[0][0]) == b""
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")


async def test_closing_ends_who_has_not_asked_and_lets_the_others_go_on() -> None:
    async with listening() as port, port.connected() as (silent, _), port.connected() as (reader, writer):
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await port.listener.close()
        assert await ends(silent) == b""
        writer.write(GET)
        async with asyncio.timeout(WAIT_S):
            await reader.readuntil(b"HTTP/1.1 200")
