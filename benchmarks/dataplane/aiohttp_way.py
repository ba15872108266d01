"""aiohttp on plain asyncio, where FileResponse uses sendfile: one GET, read in chunks, hashed and written."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import blake3
from aiohttp import web

from benchmarks.dataplane.contract import Marks
from proto.errors import LocalError
from proto.ids import Digest

if TYPE_CHECKING:
    from benchmarks.dataplane.contract import Job, Sending

_CHUNK_BYTES = 256 * 1024


def send(job: Job, sending: Sending) -> None:
    """A server with one file."""
    asyncio.run(_send(job, sending))


async def _send(job: Job, sending: Sending) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(job.source_file)

    application = web.Application()
    application.router.add_get("/blob", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    sending.started(f"{host}:{port}")
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    await ended.wait()
    sending.ended()
    await runner.cleanup()


def receive(job: Job, address: str) -> Marks:
    """A client that hashes and writes what it reads, as the floor does."""
    Path(job.target).mkdir()
    return asyncio.run(_receive(job, address))


async def _receive(job: Job, address: str) -> Marks:
    digest = Digest.parse(job.digest)
    marks = Marks()
    descriptor = os.open(Path(job.target) / "blob", os.O_WRONLY | os.O_CREAT, 0o600)
    whole, piece = digest.hasher(), blake3.blake3()
    offset = 0
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
            marks.begin()
            async with session.get(f"http://{address}/blob") as response:
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    view = memoryview(chunk)
                    while view:
                        room = job.piece_size_bytes - offset % job.piece_size_bytes
                        part, view = view[:room], view[room:]
                        piece.update(part)
                        whole.update(part)
                        os.pwrite(descriptor, part, offset)
                        offset += len(part)
                        if len(part) == room:
                            piece.digest()
                            piece = blake3.blake3()
    finally:
        os.close(descriptor)
    piece.digest()
    if whole.hexdigest() != digest.hex:
        raise LocalError("aiohttp received another blob")
    marks.reached("all")
    return marks
