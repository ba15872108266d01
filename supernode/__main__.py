"""`layercast-supernode`: settings, logs, signals, exit codes. Everything else is supernode.app."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import uvloop

from proto.errors import ConfigError
from proto.runtime import gc_tuning, logs
from supernode.app import Supernode
from supernode.config import SupernodeConfig, load

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
        for warning in config.warnings:
            logger.warning("setting_ignored %s", warning)
        gc_tuning.search_less_often()
        return uvloop.run(_serve(config, argv))
    except ConfigError as error:
        sys.stderr.write(f"layercast-supernode: {error}\n")
        return EXIT_CONFIG


async def _serve(config: SupernodeConfig, argv: Sequence[str]) -> int:
    loop = asyncio.get_running_loop()
    supernode = Supernode(config)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    supernode.failed.add_done_callback(lambda _: ended.set())
    try:
        supernode.open()
        await supernode.start()
        loop.add_signal_handler(signal.SIGHUP, _reload, supernode, argv)
        print(f"ready supernode api={supernode.api_address} upload={supernode.upload_address}", flush=True)
        await ended.wait()
    finally:
        clean = await supernode.stop()
    code = EXIT_FAILED if supernode.failed.done() else 0
    if not clean:
        # A thread hangs in a system call (a dead disk, a name server): waiting for it would break the 5 s.
        logging.shutdown()
        os._exit(code)
    return code


def _reload(supernode: Supernode, argv: Sequence[str]) -> None:
    try:
        config = load(argv, os.environ)
    except ConfigError as error:
        logger.error("reload_refused: %s; the settings stay as they were", error)
        return
    logs.setup(config.log_level, as_json=config.log_json)
    supernode.reload(config)


if __name__ == "__main__":
    main()
