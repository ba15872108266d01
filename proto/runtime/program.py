"""A service's main: settings, logs, exit codes, and one line on standard error where the operator must act.

It imports neither the event loop nor the service itself, so that --version and --help cost little: `make` does.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from proto.errors import ConfigError, LocalError
from proto.runtime import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from proto.runtime.service import Service

logger = logging.getLogger(__name__)

EXIT_CONFIG: Final = 2
EXIT_FAILED: Final = 1
# New objects before a search of the youngest for cycles, and searches before one of the next generation. Hardly any
# garbage here is in cycles, but what a large swarm keeps is looked at again and again: by Python's own 700, 10 and 10
# that was a fifth to a third of the scheduler's time at 10,000 nodes, and a fifteenth of what a tiny blob costs a peer.
GARBAGE_THRESHOLDS: Final = (20_000, 20, 50)


class Config(Protocol):
    """What every service's settings have. `warnings`: a line for each setting that does nothing any more."""

    @property
    def log_level(self) -> str: ...
    @property
    def log_json(self) -> bool: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...


C = TypeVar("C", bound=Config)


def run(
    program: str,
    argv: Sequence[str],
    load: Callable[[Sequence[str], Mapping[str, str]], C],
    make: Callable[[C], Service[C]],
) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. `make` is called on the running event loop."""

    def settings() -> C:
        config = load(argv, os.environ)
        logs.setup(config.log_level, as_json=config.log_json)
        for warning in config.warnings:
            logger.warning("setting_ignored %s", warning)
        return config

    try:
        config = settings()
        gc.set_threshold(*GARBAGE_THRESHOLDS)
        # What a start makes stays: searching it was a tenth of a peer's start. The service goes on with it when ready.
        gc.disable()
        from proto.runtime import service

        return EXIT_FAILED if service.serve(make, config, settings) else 0
    except LocalError as error:
        sys.stderr.write(f"{program}: {logs.without_secrets(str(error))}\n")
        return EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAILED
