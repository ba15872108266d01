"""One HTTP/1.1 connection to an origin: a request goes out, the head of its response comes in. Blocking.

On http.client over sockets of our own, because three things are needed together: the address that was checked
is the one connected to, another thread can end a call in any of its phases, and a body is received into the
caller's buffer with no byte lost when the connection stalls. Bodies are peer.registry.exchange's, the pool of
connections is peer.registry.client's.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, Final

from peer.registry.base import CutOff
from peer.registry.sent_body import BodySender
from peer.registry.sockets import (
    KEEP_ALIVE,
    KEEP_ALIVE_IN_BODY,
    WAY_DOWN_MAX_S,
    open_socket,
    proxy_credential,
    set_options,
    way_is_down,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from peer.registry.addresses import Endpoint, Resolver
    from peer.registry.base import SentBody
    from peer.registry.sockets import OriginTimeouts
    from peer.transport.cancellation import Cancellation

logger = logging.getLogger(__name__)
# How long an origin has to ask for a body that its client holds back (RFC 9110 section 10.1.1 leaves it open).
CONTINUE_S: Final = 1.0
_LOOK_S: Final = 1.0
# SO_LINGER of no time: what is closed with it is reset.
_RESET: Final = struct.pack("ii", 1, 0)
# 103 Early Hints and the like, before the answer.
_INTERIM_MAX: Final = 16


class _Timed(io.RawIOBase):
    """A socket as http.client uses it, which does not close it. Its bytes end at `until_s`, however they trickle.

    `in_body`: silence is waited out where the way to the origin is down.
    """

    def __init__(self, sock: socket.socket, host: str) -> None:
        self._sock = sock
        self._host = host
        self.sendall = sock.sendall
        self.until_s: float | None = None
        self.in_body = False
        # Called, once, when the origin asks for the body.
        self.on_continue: Callable[[], None] | None = None
        # Seconds for which the way was waited for.
        self.down_s = 0.0

    def makefile(self, mode: str) -> io.BufferedReader:
        """What http.client calls, once a response."""
        return io.BufferedReader(self)

    def close(self) -> None:
        """A response is over, the connection may not be."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.until_s is not None:
            left_s = self.until_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._sock.settimeout(left_s)
        try:
            return self._sock.recv_into(buffer)
        except TimeoutError:
            if not self.in_body or not way_is_down(self._sock):
                raise
        return self._wait_for_way(buffer)

    def _wait_for_way(self, buffer: Any) -> int:
        """The way is down since the last bytes came. Raises CutOff when it is back, TimeoutError if it stays down.

        After a long cut the origin's TCP sends again only after as long once more: a new request is sooner.
        """
        silence_s = self._sock.gettimeout() or 0.0
        began_s = time.monotonic() - silence_s
        logger.info("origin_out_of_reach host=%s silent_s=%.0f: the network is waited for", self._host, silence_s)
        self._sock.settimeout(_LOOK_S)
        try:
            while True:
                down = way_is_down(self._sock)
                with contextlib.suppress(TimeoutError):
                    return self._sock.recv_into(buffer)
                if not down:
                    raise CutOff(f"{self._host}: out of reach for {time.monotonic() - began_s:.0f} s")
                if time.monotonic() - began_s > WAY_DOWN_MAX_S:
                    raise TimeoutError
        finally:
            self.down_s += time.monotonic() - began_s
            self._sock.settimeout(silence_s)


class _Response(http.client.HTTPResponse):
    """Passes over every interim answer, as http.client does with 100 alone."""

    _interim = 0

    def __init__(self, sock: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        self._timed: _Timed = sock

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        if status == http.client.CONTINUE and self._timed.on_continue is not None:
            self._timed.on_continue()
        if 100 < status < 200 and status != http.client.SWITCHING_PROTOCOLS:
            status = http.client.CONTINUE
        self._interim += status == http.client.CONTINUE
        if self._interim > _INTERIM_MAX:
            raise http.client.HTTPException(f"more than {_INTERIM_MAX} interim answers")
        return version, status, reason


class OriginConnection:
    """One connection; between exchanges it is idle in the pool."""

    def __init__(self, endpoint: Endpoint, sock: socket.socket, timeouts: OriginTimeouts) -> None:
        self.endpoint = endpoint
        self.sock = sock
        self.timeouts = timeouts
        self.idle_since_s = 0.0
        self._http = http.client.HTTPConnection(endpoint.host, endpoint.port)
        self._http.auto_open = 0  # it must never connect by itself, to an address nobody checked
        self._http.response_class = _Response
        self._timed = _Timed(sock, endpoint.host)
        self._http.sock = self._timed
        # A proxy is sent the whole URL of a plain-http request.
        proxy = endpoint.egress_proxy if endpoint.scheme == "http" else None
        self._target_prefix = f"http://{endpoint.authority}" if proxy is not None else ""
        self._proxy_lines = proxy_credential(proxy) if proxy is not None else []

    @classmethod
    def open(
        cls,
        endpoint: Endpoint,
        context: ssl.SSLContext | None,
        timeouts: OriginTimeouts,
        resolver: Resolver,
        cancel: Cancellation,
    ) -> OriginConnection:
        """See open_socket()."""
        return cls(endpoint, open_socket(endpoint, context, timeouts, resolver, cancel), timeouts)

    def send(
        self, method: str, target: str, headers: list[tuple[str, str]], body: SentBody | None = None
    ) -> http.client.HTTPResponse:
        """Send a request and read the head of its response. Raises what http.client and the body raise."""
        # The target goes out byte for byte: a signature may cover it.
        self._http.putrequest(method, self._target_prefix + target, skip_host=True, skip_accept_encoding=True)
        self._http.putheader("Host", self.endpoint.authority)
        for name, value in [*self._proxy_lines, *headers]:
            self._http.putheader(name, value)
        self._timed.in_body = False
        set_options(self.sock, KEEP_ALIVE)
        self.sock.settimeout(self.timeouts.read_s)
        self._http.endheaders()
        response = self._answer(self.timeouts.first_byte_s) if body is None else self._answer_to(body)
        if not 200 <= response.status <= 599:
            raise http.client.BadStatusLine(f"{response.status}")
        self._timed.until_s = None
        self.sock.settimeout(self.timeouts.first_byte_s)
        return response

    def _answer(self, within_s: float) -> http.client.HTTPResponse:
        self._timed.until_s = time.monotonic() + within_s
        return self._http.getresponse()

    def _answer_to(self, body: SentBody) -> http.client.HTTPResponse:
        """Send the body and read the head of what is answered. An origin that answers before is not sent the rest."""
        sender = BodySender(self.sock, body)
        response = self._when_asked(sender) if body.expects_continue else None
        if response is None:
            response = self._unasked(sender)
        if not sender.ended:
            response.will_close = True
        return response

    def _when_asked(self, sender: BodySender) -> http.client.HTTPResponse | None:
        """Where the client expects to be asked for the body, so does the origin. None where that says nothing."""

        def asked() -> None:
            self._timed.on_continue = self._timed.until_s = None
            sender.send()
            self._timed.until_s = time.monotonic() + self.timeouts.first_byte_s

        self._timed.on_continue = asked
        try:
            return self._answer(CONTINUE_S)
        except TimeoutError:
            if sender.begun:
                raise
            return None
        finally:
            self._timed.on_continue = None

    def _unasked(self, sender: BodySender) -> http.client.HTTPResponse:
        try:
            sender.send()
        except ConnectionError as error:
            return self._early_answer(error)
        return self._answer(self.timeouts.first_byte_s)

    def _early_answer(self, error: ConnectionError) -> http.client.HTTPResponse:
        """What an origin said that then took no more. Raises the error where it said nothing."""
        try:
            return self._answer(CONTINUE_S)
        except (OSError, http.client.HTTPException):
            raise error from None

    def body_began(self) -> None:
        """From now on silence of `read_s` ends it, but where the way to the origin is down."""
        self._timed.in_body = True
        set_options(self.sock, KEEP_ALIVE_IN_BODY)
        self.sock.settimeout(self.timeouts.read_s)

    def take_down_s(self) -> float:
        """For how long the way was down since this was last asked, as far as anything was waited for."""
        down_s, self._timed.down_s = self._timed.down_s, 0.0
        return down_s

    def is_dropped(self) -> bool:
        """Whether the server closed it while idle, or sent what nobody asked for."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close the socket."""
        self._http.close()
        self.sock.close()

    def abort(self) -> None:
        """Close it in the middle of an answer: the origin is told at once, and sends no more of it."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()
