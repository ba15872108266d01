"""How a session with the supernode is dialled: plain with --open, else by mutual TLS, after joining where that is due.

A member trusts one authority, that of its token and what this one certified since; and a supernode by its certificate,
at whatever address. It becomes a member once, by a token, and renews its certificate by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import logging
import random
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import aiohttp

from peer.membership.record import FILE, Record, read_record, tell_damaged, write_record
from peer.membership.refusals import (
    CLOCK_DIFFERENCE_S,
    NOT_BELIEVED,
    NotAdmitted,
    clock_text,
    is_about_time,
    refusal_of,
)
from proto.runtime import tls
from proto.wire.join import ANSWER_BYTES_MAX, REFUSAL_HEADER, SUPERNODE_NAME, JoinToken, parse_join_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from proto.wire.tickets import Identity

logger = logging.getLogger(__name__)

_REQUEST_S: Final = 10.0
# Between attempts to renew: there is a month for it.
_RENEWAL_RETRY_S: Final = 3600.0
_FILE_LOOK_S: Final = 1.0
_NO_TOKEN: Final = (
    "this node is no member and has no join token: run `layercast-supernode token create` at the supernode, and give "
    "this peer what it prints by --join-file FILE; or start both with --open, for trials"
)


@dataclass(frozen=True, slots=True)
class Dial:
    """Where a session is opened, and by which TLS. `server_name`: whose certificate is wanted, None for the host's."""

    url: str
    tls: ssl.SSLContext | bool
    server_name: str | None = None


class OpenDialer:
    """To a supernode with --open, plain; or by https, through a server with a certificate that this machine trusts."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._tls: ssl.SSLContext | None = None

    async def dial(self, client: aiohttp.ClientSession) -> Dial:
        """See MemberDialer."""
        if not self.url.startswith("https:"):
            return Dial(self.url, True)
        # One of our own: that of aiohttp has no certificates (proto.runtime.service).
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        return Dial(self.url, self._tls)

    async def explain(self, client: aiohttp.ClientSession, error: BaseException) -> NotAdmitted | None:
        """See MemberDialer."""
        return refusal_of(error)

    async def pause(self, pause_s: float) -> None:
        """See MemberDialer."""
        await asyncio.sleep(pause_s)

    @property
    def expires_unix_s(self) -> float | None:
        """There is no certificate."""
        return None

    def renew_within(self, within_s: float) -> None:
        """There is no certificate."""

    async def keep_renewed(self) -> None:
        """There is no certificate."""


class MemberDialer:
    """To a supernode that admits members. `join`: a token, or a file that holds one and is read when it is needed."""

    def __init__(
        self,
        url: str,
        data_dir: Path,
        identity: Identity,
        join: JoinToken | Path | None,
        show: Callable[[bytes, bytes, str], None] = lambda certificate, key, authorities: None,
    ) -> None:
        """Blocking. `show` is given what this node shows other nodes, and whom it trusts (PEM). Raises ConfigError."""
        # Whatever the URL says: an earlier release's http is this one's TLS.
        self.url = f"https://{urlsplit(url).netloc}"
        self._file = data_dir / FILE
        self._identity = identity
        self._join = join
        self._record = read_record(self._file)
        self._show = show
        self._dial: Dial | None = None
        if self._record is not None:
            try:
                self._dial = self._dial_with(self._record)
                self._show_nodes(self._record)
            except (ssl.SSLError, ValueError):
                self._record = self._dial = None
                tell_damaged(self._file)
        # A certificate that the supernode does not accept any more.
        self._refused = False
        self._renew_soon = asyncio.Event()
        self._renew_within_s = 0.0

    async def dial(self, client: aiohttp.ClientSession) -> Dial:
        """How to open a session now, as a member. Raises NotAdmitted, aiohttp.ClientError, OSError, TimeoutError."""
        if self._record is None or (self._refused and self._has_token()):
            await self._use(await self._admission(client, self._token()))
            self._refused = False
        if self._dial is None:
            assert self._record is not None
            self._dial = await asyncio.to_thread(self._dial_with, self._record)
        return self._dial

    async def explain(self, client: aiohttp.ClientSession, error: BaseException) -> NotAdmitted | None:
        """Why a session was not opened, where that is not a failure like any other; the clock, if it is to blame."""
        found = refusal_of(error)
        if found is None and await self._is_certificate_refused(client, error):
            found = NotAdmitted(NOT_BELIEVED, terminal=True, certificate_refused=True)
        if found is None:
            return None
        self._refused = found.certificate_refused
        if is_about_time(error) or found.certificate_refused:
            difference_s = await self._clock_difference(client)
            if abs(difference_s) > CLOCK_DIFFERENCE_S:
                return NotAdmitted(f"{found}; {clock_text(difference_s)}", terminal=True)
        return found

    async def pause(self, pause_s: float) -> None:
        """Before the next attempt; a token that is put into the file meanwhile is tried at once."""
        if not isinstance(self._join, Path):
            await asyncio.sleep(pause_s)
            return
        before = _changed_at(self._join)
        while pause_s > 0:
            await asyncio.sleep(min(pause_s, _FILE_LOOK_S))
            if _changed_at(self._join) != before:
                return
            pause_s -= _FILE_LOOK_S

    @property
    def expires_unix_s(self) -> float | None:
        """When this node's certificate ends; None without one."""
        return None if self._record is None else self._record.expires_unix_s

    # --- joining -----------------------------------------------------------------------------------------------

    def _has_token(self) -> bool:
        with contextlib.suppress(NotAdmitted):
            return bool(self._token())
        return False

    def _token(self) -> JoinToken:
        """Raises NotAdmitted."""
        if self._join is None:
            raise NotAdmitted(_NO_TOKEN, terminal=True)
        if isinstance(self._join, JoinToken):
            return self._join
        try:
            return parse_join_token(self._join.read_text())
        except OSError as error:
            raise NotAdmitted(f"--join-file {self._join}: {error.strerror}", terminal=True) from None
        except ValueError as error:
            raise NotAdmitted(f"--join-file {self._join}: {error}", terminal=True) from None

    async def _admission(self, client: aiohttp.ClientSession, token: JoinToken) -> Record:
        """Check whom the token names, then ask it for a certificate."""
        from peer.membership import requests

        # Plain: it is believed by the fingerprint alone, and TLS would cost both sides a handshake more.
        async with self._asked(client, "GET", "/v1/ca", None) as answer:
            bundle = await _body(answer)
            difference_s = _difference_s(answer)
        authority = requests.pinned_authority(bundle.decode(errors="replace"), token.fingerprint)
        body = await asyncio.to_thread(requests.join_request, self._identity, token)
        try:
            async with self._asked(client, "POST", "/v1/join", tls.client_context(authority), body) as answer:
                record = requests.read_answer(self._identity, await _body(answer))
        except aiohttp.ClientError as error:
            if is_about_time(error):
                raise NotAdmitted(f"{refusal_of(error)}; {clock_text(difference_s)}", terminal=True) from None
            raise
        logger.info("joined url=%s token=%s expires=%s", self.url, token.id, _date(record.expires_unix_s))
        return record

    async def _is_certificate_refused(self, client: aiohttp.ClientSession, error: BaseException) -> bool:
        """A server that does not accept a certificate hangs up without a word; without one it talks to us."""
        hung_up = isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
        if not hung_up or isinstance(error, aiohttp.ClientConnectorError) or self._record is None:
            return False
        with_certificate = await self._context()
        return not await self._talks(client, with_certificate) and await self._talks(
            client, tls.client_context(self._record.authorities)
        )

    async def _talks(self, client: aiohttp.ClientSession, context: ssl.SSLContext) -> bool:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, NotAdmitted):
            async with self._asked(client, "GET", "/healthz", context):
                return True
        return False

    # --- renewal -----------------------------------------------------------------------------------------------

    def renew_within(self, within_s: float) -> None:
        """The supernode asks for it."""
        self._renew_within_s = max(0.0, within_s)
        self._renew_soon.set()

    async def keep_renewed(self) -> None:
        """Until cancelled: renew the certificate after two thirds of its life, or when the supernode asks for it."""
        while True:
            is_asked_for = await self._renewal_due()
            if is_asked_for:
                await asyncio.sleep(random.uniform(0.0, self._renew_within_s))
            try:
                await self._renew()
                continue
            except NotAdmitted as error:
                reason = str(error)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            logger.warning("certificate_not_renewed reason=%s: tried again in an hour", reason)
            await asyncio.sleep(_RENEWAL_RETRY_S)

    async def _renewal_due(self) -> bool:
        """Wait until it is. Returns whether the supernode asked for it."""
        while True:
            left_s = self._record.renew_unix_s - time.time() if self._record is not None else _RENEWAL_RETRY_S
            if left_s <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                # The clock may be set meanwhile.
                async with asyncio.timeout(min(left_s, _RENEWAL_RETRY_S)):
                    await self._renew_soon.wait()
            if self._renew_soon.is_set():
                self._renew_soon.clear()
                return True

    async def _renew(self) -> None:
        from peer.membership import requests

        body = await asyncio.to_thread(requests.renewal_request, self._identity)
        context = await self._context()
        async with (
            aiohttp.ClientSession(trust_env=False) as client,
            self._asked(client, "POST", "/v1/renew", context, body) as answer,
        ):
            record = requests.read_answer(self._identity, await _body(answer))
        await self._use(record)
        logger.info("certificate_renewed expires=%s", _date(record.expires_unix_s))
        if record.renew_unix_s <= time.time():
            raise NotAdmitted(
                "the new one is to be renewed already: set this machine's clock (NTP), or rotate the authority"
            )

    # --- -------------------------------------------------------------------------------------------------------

    async def _use(self, record: Record) -> None:
        """From now on, for connections that begin."""
        self._record, self._dial = record, None
        await asyncio.to_thread(write_record, self._file, record)
        await asyncio.to_thread(self._show_nodes, record)

    def _show_nodes(self, record: Record) -> None:
        self._show(record.certificate.encode(), self._identity.private_pem(), record.authorities)

    def _dial_with(self, record: Record) -> Dial:
        """Blocking. Raises SSLError, ValueError for a record that is not of this identity, or damaged."""
        certificate, key = record.certificate.encode(), self._identity.private_pem()
        return Dial(self.url, tls.client_context(record.authorities, certificate, key), SUPERNODE_NAME)

    async def _context(self) -> ssl.SSLContext:
        """A member's."""
        assert self._record is not None
        context = (await asyncio.to_thread(self._dial_with, self._record)).tls
        assert isinstance(context, ssl.SSLContext)
        return context

    @contextlib.asynccontextmanager
    async def _asked(
        self,
        client: aiohttp.ClientSession,
        method: str,
        path: str,
        context: ssl.SSLContext | None,
        body: bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of the supernode, whose name it has; of anybody, without TLS. Raises NotAdmitted for a refusal."""
        timeout = aiohttp.ClientTimeout(total=_REQUEST_S)
        url = self.url if context is not None else self.url.replace("https:", "http:", 1)
        name = SUPERNODE_NAME if context is not None else None
        async with client.request(
            method, url + path, data=body, ssl=context or True, server_hostname=name,
            timeout=timeout, allow_redirects=False, headers={"Connection": "close"},
        ) as answer:  # fmt: skip
            if answer.status != 200:
                said = answer.headers.get(REFUSAL_HEADER, "")
                raise NotAdmitted(f"refused ({answer.status}): {said}", terminal=answer.status != 503)
            yield answer

    async def _clock_difference(self, client: aiohttp.ClientSession) -> float:
        """By how much the supernode's clock is ahead, as far as it says; 0 where it does not."""
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, NotAdmitted):
            async with self._asked(client, "GET", "/healthz", tls.unverified_context()) as answer:
                return _difference_s(answer)
        return 0.0


def _changed_at(file: Path) -> int:
    with contextlib.suppress(OSError):
        return file.stat().st_mtime_ns
    return 0


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """Its body, if it is no larger than such answers are."""
    body = b""
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise NotAdmitted(f"its answer has more than {ANSWER_BYTES_MAX} bytes: is it a Layercast supernode?")
    return body


def _difference_s(answer: aiohttp.ClientResponse) -> float:
    """How far the clock of the machine that answered is ahead of ours; 0 if it does not say."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return email.utils.parsedate_to_datetime(answer.headers.get("Date", "")).timestamp() - time.time()
    return 0.0


def _date(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(unix_s))
