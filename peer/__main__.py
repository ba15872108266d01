"""`layercast-peer`: settings, logs, signals, exit codes. Everything else is peer.app."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import uvloop

from peer.app import Peer
from peer.config import PeerConfig, load
from proto.errors import ConfigError
from proto.runtime import gc_tuning, logs

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

EXIT_CONFIG: Final = 2
EXIT_FAILED: Final = 1


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    try:
        config = load(argv, os.environ)
        logs.setup(config.log_level, as_json=config.log_json)
        gc_tuning.search_less_often()
        return uvloop.run(_serve(config, argv))
    except ConfigError as error:
        sys.stderr.write(f"layercast-peer: {error}\n")
        return EXIT_CONFIG


async def _serve(config: PeerConfig, argv: Sequence[str]) -> int:
    loop = asyncio.get_running_loop()
    peer = Peer(config)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    peer.failed.add_done_callback(lambda _: ended.set())
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(_reload(peer, argv))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    try:
        peer.open()
        await peer.start()
        gc_tuning.leave_alone_what_is_there()
        loop.add_signal_handler(signal.SIGHUP, reload)
        print(
            f"ready peer proxy={peer.proxy_address} upload={peer.upload_address} status={peer.status_address}",
            flush=True,
        )
        await ended.wait()
    finally:
        clean = await peer.stop()
    code = EXIT_FAILED if peer.failed.done() else 0
    if not clean:
        # A thread hangs in a system call (a dead disk, a name server): waiting for it would break the 5 s.
        logging.shutdown()
        os._exit(code)
    return code


async def _reload(peer: Peer, argv: Sequence[str]) -> None:
    try:
        config = load(argv, os.environ)
    except ConfigError as error:
        logger.error("reload_refused: %s; the settings stay as they were", error)
        return
    logs.setup(config.log_level, as_json=config.log_json)
    await peer.reload(config)


if __name__ == "__main__":
    main()
