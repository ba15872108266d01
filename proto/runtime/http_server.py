"""Runs an HTTP server of ours: what is no HTTP costs its sender the connection, and us a line in the log at most.

What is answered is the application's. Nothing that came is repeated in the log.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from yarl import URL

from proto.runtime.logs import LogLimit

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    # The answer to what cannot be understood, given its status.
    Refuse = Callable[[int], web.Response]

logger = logging.getLogger(__name__)

NOT_UNDERSTOOD: Final = "this is no HTTP request that can be answered"
# A body that nobody reads is taken off the connection for so long, so that its sender gets to read the answer.
_NO_URL: Final = URL("/")
_LINGER_S: Final = 2.0
_refusals = LogLimit()


def refuse_plain(status: int) -> web.Response:
    """In one line of text."""
    return web.Response(status=status, text=f"{NOT_UNDERSTOOD}\n")


class QuietRunner(web.AppRunner):
    """An AppRunner that never decompresses, and to which nonsense is no error of ours; `refuse` answers it."""

    def __init__(self, app: web.Application, *, refuse: Refuse = refuse_plain, **settings: Any) -> None:
        super().__init__(
            app, access_log=None, handle_signals=False, auto_decompress=False, lingering_time=_LINGER_S, **settings
        )
        self._refuse = refuse

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server
        assert isinstance(server, _Server)
        server.refuse = self._refuse
        server.request_factory = _for_any_host(server.request_factory)
        return server


def _for_any_host(make: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
    """A target that is none, or whose host cannot be decoded, has no URL: the application refuses its `raw_path`.

    Raised where a request is made, such an error would end the connection's task, and leave the connection.
    """

    def make_request(message: Any, *rest: Any) -> web.BaseRequest:
        if message.url is None:
            return make(message._replace(url=_NO_URL, path=message.path or ""), *rest)
        try:
            return make(message, *rest)
        except ValueError:
            return make(message._replace(url=_NO_URL), *rest)

    return make_request


class _Server(web.Server):
    refuse: Refuse

    def __call__(self) -> QuietProtocol:
        return QuietProtocol(self, self.refuse, loop=self._loop, **self._kwargs)


class QuietProtocol(web.RequestHandler):
    """One connection. `authority` is the host that `client` opened it for, where a tunnel of that client ends here."""

    __slots__ = ("_refuse", "_server", "authority", "client", "lost")

    def __init__(self, server: _Server, refuse: Refuse, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._server = server
        self._refuse = refuse
        self.authority: str | None = None
        self.client: str | None = None
        # Done once the connection is closed.
        self.lost: asyncio.Future[None] = self._loop.create_future()

    def beside(self, authority: str, client: str | None) -> QuietProtocol:
        """For a further connection to the same server, in a tunnel of that client's address to that host."""
        protocol = self._server()
        protocol.authority, protocol.client = authority, client
        return protocol

    def connection_lost(self, exc: BaseException | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        if not self.lost.done():
            self.lost.set_result(None)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See aiohttp. What cannot be parsed is the sender's doing, and so is a hang-up before the answer."""
        if isinstance(exc, web.RequestPayloadError | ConnectionError):
            status = 400
        if status == 500:
            return super().handle_error(request, status, exc, message)
        _refusals.log(logger, logging.INFO, "request_not_understood status=%d reason=%s", status, type(exc).__name__)
        response = self._refuse(status)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """See aiohttp, which reads on after an answer, and tells what it finds there."""
        if isinstance(kwargs.get("exc_info"), web.RequestPayloadError):
            _refusals.log(logger, logging.INFO, "request_not_understood status=0 reason=RequestPayloadError")
        else:
            super().log_exception(*args, **kwargs)
