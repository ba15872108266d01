"""One service on its event loop: signals, start, the ready line, reload, and an end in order."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import mimetypes
import os
import signal
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import uvloop

from proto.errors import ConfigError
from proto.runtime.resources import tell_ready

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

logger = logging.getLogger(__name__)

# Of the 5 s in which a service promises to end.
_THREADS_END_S: Final = 2.5
# Where OpenSSL looks for a file of certificates, instead of its default.
_CERTIFICATES_VARIABLE: Final = "SSL_CERT_FILE"

C = TypeVar("C")
C_contra = TypeVar("C_contra", contravariant=True)


class Service(Protocol[C_contra]):
    """open(), start(), then stop() in every case. `failed` is done when it cannot go on."""

    failed: asyncio.Future[None]

    def open(self) -> None:
        """Blocking: take from the machine what may be refused. Raises LocalError."""

    async def start(self) -> str:
        """Serve, and return when ready, with the words of the ready line."""

    async def reload(self, config: C_contra) -> None:
        """Take over the settings that may change at run time."""

    async def stop(self) -> bool:
        """End everything within 5 s. False when a thread did not end and the process must be left by force."""


def serve(make: Callable[[C], Service[C]], config: C, settings: Callable[[], C]) -> bool:
    """Until SIGTERM or SIGINT; SIGHUP reloads `settings`. Returns whether the service failed. Raises LocalError."""
    import_aiohttp()
    return uvloop.run(_serve(make, config, settings))


def import_aiohttp() -> None:
    """Import it before any thread runs, and without the machine's certificates and its table of file types.

    While it is imported it makes two TLS contexts, which reads every certificate twice: a sixth of a peer's start. Who
    connects with TLS here makes a context of its own (peer.node.session, peer.registry), so those two are never used.
    Its server reads what the ends of files' names mean, a thousand lines where they are there. It serves no files here.
    """
    before = os.environ.get(_CERTIFICATES_VARIABLE)
    os.environ[_CERTIFICATES_VARIABLE] = os.devnull
    tables, mimetypes.knownfiles = mimetypes.knownfiles, []
    try:
        importlib.import_module("aiohttp.web")
    finally:
        mimetypes.knownfiles = tables
        if before is None:
            del os.environ[_CERTIFICATES_VARIABLE]
        else:
            os.environ[_CERTIFICATES_VARIABLE] = before


async def _serve(make: Callable[[C], Service[C]], config: C, settings: Callable[[], C]) -> bool:
    loop = asyncio.get_running_loop()
    service = make(config)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    service.failed.add_done_callback(lambda _: ended.set())
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(_reload(service, settings))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    try:
        words = await _start(service)
        loop.add_signal_handler(signal.SIGHUP, reload)
        print(f"ready {words}", flush=True)
        tell_ready()
        await ended.wait()
    finally:
        clean = await service.stop()
    failed = service.failed.done()
    if not clean:
        # A thread hangs in a system call (a dead disk, a name server): waiting for it would break the 5 s.
        logging.shutdown()
        os._exit(int(failed))
    return failed


async def _start(service: Service[C]) -> str:
    try:
        service.open()
        return await service.start()
    finally:
        # What is there by now stays until the process ends, and is never searched.
        gc.freeze()
        gc.enable()


async def _reload(service: Service[C], settings: Callable[[], C]) -> None:
    try:
        config = settings()
    except ConfigError as error:
        logger.error("reload_refused: %s; the settings stay as they were", error)
        return
    await service.reload(config)


async def close_in_time(closing: contextlib.ExitStack) -> bool:
    """Close in a thread what may block; False, with a log line, when that does not end in time."""
    ended = asyncio.ensure_future(asyncio.to_thread(closing.close))
    done, _ = await asyncio.wait([ended], timeout=_THREADS_END_S)
    if not done:
        logger.error("stop_incomplete: a thread did not end in time")
    return bool(done)
