"""One line for each request of a client, in a file of its own: who asked for what, what came of it, and from where.

No query, no credential and no header but the client's name of itself is in it. A disk that fails or hangs costs lines,
and no client waits for it. Who rotates the file moves it away: it is opened anew by itself.
"""

from __future__ import annotations

import logging
import queue
import sys
import time
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener, WatchedFileHandler
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

from peer.proxy.access import ACCESS, Access
from peer.proxy.named_upstream import NAMED
from proto.errors import ConfigError
from proto.runtime.http_server import QuietProtocol
from proto.runtime.logs import LogLimit, without_secrets

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

logger = logging.getLogger(__name__)

STANDARD_OUTPUT: Final = "-"
# What waits for a disk that hangs.
_LINES_MAX: Final = 10_000
_PATH_MAX: Final = 512
_AGENT_MAX: Final = 100


class AccessLog:
    """Writes in a thread, until close(). Raises ConfigError for a file that cannot be opened."""

    def __init__(self, target: str) -> None:
        try:
            file = logging.StreamHandler(sys.stdout) if target == STANDARD_OUTPUT else _File(target)
        except OSError as error:
            why = f"{error.strerror}: make its folder, writable for this user"
            raise ConfigError(f"access_log {target}: {why}") from None
        self._waiting: queue.Queue[logging.LogRecord] = queue.Queue(_LINES_MAX)
        self._handler = _Waiting(self._waiting)
        self._file = file
        self._listener = QueueListener(self._waiting, file)
        self._listener.start()

    def write(self, line: str) -> None:
        """Never blocks, never raises."""
        self._handler.handle(logging.LogRecord("access", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """What waits is written first."""
        self._listener.stop()
        self._file.close()


def middleware(log: AccessLog, quiet: frozenset[str] = frozenset()) -> Middleware:
    """The outermost of a mirror. Requests for `quiet` paths, of the operator, have no line."""

    @web.middleware
    async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
        access, began_s = request.get(ACCESS) or Access(), time.monotonic()
        request[ACCESS] = access
        status = 500
        try:
            response = await handler(request)
            status = response.status
            if not access.sent_bytes and isinstance(response, web.Response) and request.method != "HEAD":
                access.sent("answer", len(response.body) if isinstance(response.body, bytes) else 0)
            return response
        except web.HTTPException as answer:
            status = answer.status
            raise
        finally:
            if request.path not in quiet:
                log.write(line_of(request, access, status, time.monotonic() - began_s))

    return note


def line_of(request: web.Request, access: Access, status: int, elapsed_s: float) -> str:
    """TIME client= method= upstream= path= kind= status= bytes= from= seconds= agent=, in this order."""
    protocol = request.protocol
    inside = protocol.client if isinstance(protocol, QuietProtocol) else None
    named = request.get(NAMED)
    target = (named.target if named is not None else request.raw_path).partition("?")[0].partition("#")[0]
    if request.method == hdrs.METH_CONNECT:
        # No URL, in which user and password would be seen.
        target = target.rpartition("@")[2]
    values = {
        "client": inside or request.remote or "",
        "method": request.method[:16],
        "upstream": access.upstream,
        "path": target[:_PATH_MAX],
        "kind": access.kind,
        "status": status,
        "bytes": sum(access.sent_bytes.values()),
        "from": ",".join(access.sent_bytes),
        "seconds": f"{elapsed_s:.3f}",
        "agent": request.headers.get("User-Agent", "")[:_AGENT_MAX],
    }
    when = datetime.now(UTC).isoformat(timespec="milliseconds")
    return without_secrets(" ".join([when, *(f"{name}={_word(str(value))}" for name, value in values.items())]))


def _word(text: str) -> str:
    """One word, or in quotes; what a client wrote begins no line and no field of its own."""
    shown = "".join(each if each.isprintable() else "?" for each in text)
    return shown if shown and not set(shown) & {" ", '"', "="} else '"' + shown.replace('"', "'") + '"'


class _Waiting(QueueHandler):
    _left_out = LogLimit(lines_max=1)

    def handleError(self, record: logging.LogRecord) -> None:
        """Too many wait."""
        self._left_out.log(logger, logging.WARNING, "access_log_behind lines are left out: its disk does not keep up")


class _File(WatchedFileHandler):
    """Looks before each line whether it was moved away."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._failed = LogLimit(lines_max=1)

    def emit(self, record: logging.LogRecord) -> None:
        """One that cannot be opened anew is tried again with the next line: the thread goes on."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """The line is lost."""
        error = sys.exc_info()[1]
        why = getattr(error, "strerror", None) or type(error).__name__
        self._failed.log(logger, logging.WARNING, "access_log_failed file=%s %s", self.baseFilename, why)
