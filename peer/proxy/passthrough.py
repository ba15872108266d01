"""What the origin gives to one client alone, with that client's own credential. Nothing is stored.

Small answers (`/v2/`, manifests, tags, referrers, the HEAD of a blob) go byte for byte, with every header that is meant
for the other end, and none is begun before all of it is here. Bodies of blobs that are not shared move in threads. So
does the rest of a response whose swarm failed it, from the byte reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from aiohttp import HttpVersion11, web

from peer.node.blobs import DigestMismatch
from peer.proxy.access import access_of
from peer.proxy.blob_opening import note_permissions
from peer.proxy.checked_body import CheckedBody, PartsBody, rest_of
from peer.proxy.client_socket import ClientGone, take_over
from peer.proxy.heads import (
    asked_range,
    blob_response,
    check_empty,
    for_client,
    for_origin,
    multipart_response,
    not_modified,
    refused,
    unsatisfiable,
)
from peer.registry.base import OriginRefused
from peer.registry.queues import Work
from peer.registry.range_reader import RangeReader, ReadSettings
from peer.transport.cancellation import Cancellation
from proto.errors import LocalError, UpstreamError, UpstreamKind
from proto.oci.multipart import Multipart
from proto.oci.ranges import ByteRange, Part, parse_ranges, select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from multidict import CIMultiDict

    from peer.node.blobs import OpenedBlob
    from peer.proxy.checked_body import RepeatedBody
    from peer.proxy.client_request import ClientRequest, ProxyContext
    from peer.proxy.client_socket import ClientSocket
    from peer.registry.base import BlobBody, OriginAnswer
    from peer.registry.range_reader import Range

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


async def relay(asked: ClientRequest) -> web.Response:
    """The origin's answer to this very request, within the time for all of it. Raises UpstreamError and ClientGone."""
    return in_its_words(asked, await ask_origin(asked))


async def ask_origin(
    asked: ClientRequest,
    *,
    method: str | None = None,
    headers: CIMultiDict[str] | None = None,
    within_s: float | None = None,
    shared: bool = False,
) -> OriginAnswer:
    """The same as the origin's words. `method` and `headers` in place of the client's own, `within_s` of the limit.

    `shared`: other clients wait for it, too, whether or not this one still does.
    """
    limit_s, method = within_s or asked.context.limits.relay_s, method or asked.http.method
    asked_s = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(limit_s):
            lines = for_origin(asked.http.headers) if headers is None else headers
            answer = await asked.context.origins.of(asked.upstream).manifest(method, asked.registry, lines)
    except TimeoutError:
        message = f"{asked.upstream.host} did not answer within {limit_s:.0f} s"
        raise UpstreamError(message, UpstreamKind.UNAVAILABLE) from None
    if asked.hung_up and not shared:
        raise ClientGone("client hung up before its answer")
    note_permissions(asked, answer, asyncio.get_running_loop().time() - asked_s)
    return answer


def in_its_words(asked: ClientRequest, answer: OriginAnswer) -> web.Response:
    """An origin's answer as this client gets it."""
    headers = for_client(asked.registry, answer.status, answer.headers)
    return web.Response(status=answer.status, reason=answer.reason, body=answer.body, headers=headers)


class PassThrough:
    """One a proxy. Its threads are those of the origins' queues: a slow upstream keeps no other's clients waiting."""

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._settings = ReadSettings(context.metrics.passed_through, context.limits.retry)
        self._open: Counter[str] = Counter()

    async def get(self, asked: ClientRequest) -> web.StreamResponse:
        """Answer a GET from the origin.

        Raises UpstreamError, TooManyRanges, LocalError and ClientGone while nothing was sent.
        """
        with self._admitted(asked):
            cancel = Cancellation()
            reader = self._reader(asked, None)
            ranges, size_bytes = asked_range(asked.http, asked.blob.digest), self._known_size(asked)
            work = self._thread(asked, _open, reader, cancel, ranges, size_bytes)
            try:
                parts, body = await asked.wait_for(work, cancel.cancel, discard=_discard)
            except UpstreamError as error:
                if error.status == 401 and asked.caller.authorization is None:
                    # It was asked with a token of ours, of which its challenge speaks: the client showed none.
                    answer = await relay(asked)
                    if answer.status >= 300:
                        return answer
                return _refusal(asked, error)
            if body is None:
                return refused(unsatisfiable(parts[0]), asked.registry)
            unchanged = not_modified(asked.registry, asked.http, asked.blob.digest)
            if unchanged is not None:
                body.close()
                return unchanged
            if len(parts) > 1:
                return await self._send_parts(asked, reader, parts, body, cancel)
            return await self._send(asked, reader, parts[0], body, cancel)

    async def refuse(self, asked: ClientRequest) -> web.StreamResponse:
        """The origin's own refusal of this very request; what it gives after all is passed through. As get()."""
        answer = await relay(asked)
        return answer if answer.status >= 300 else await self.get(asked)

    async def go_on(
        self, asked: ClientRequest, client: ClientSocket, blob: OpenedBlob, part: Part, *, from_start: bool
    ) -> None:
        """Finish a response that has sent all before `part`, from the origin; what cannot be finished is cut.

        A response that began at the blob's first byte (`from_start`) is never finished without the digest.
        """
        cancel = Cancellation()
        reader = self._reader(asked, part.size_bytes)

        def finish() -> None:
            digest, send = asked.blob.digest, self._counted(asked, client.send)
            wanted, body = rest_of(digest, blob.handle, part, send, from_start=from_start)
            self._pump(reader, [[(wanted.start, wanted.end)]], None, body, cancel)

        try:
            with self._admitted(asked):
                await self._until_sent(asked, client, self._thread(asked, finish), cancel)
        except LocalError as error:
            _log.warning("passage_refused digest=%s reason=%s", asked.blob.digest.short, error)
            client.cut()

    def _reader(self, asked: ClientRequest, size_bytes: int | None) -> RangeReader:
        """The blob at its origin, with the client's own credential (None: as anyone)."""
        return RangeReader(
            self._context.origins.of(asked.upstream),
            asked.blob.repository,
            asked.blob.digest,
            size_bytes,
            self._settings,
            caller=asked.caller,
        )

    async def _send(
        self, asked: ClientRequest, reader: RangeReader, part: Part, body: BlobBody, cancel: Cancellation
    ) -> web.StreamResponse:
        digest = asked.blob.digest
        response = blob_response(asked.registry, digest, part)
        client: ClientSocket | None = None
        try:
            check_empty(digest, part.size_bytes)
            client = await take_over(asked.http, response, self._context.pool)
            send: Callable[[memoryview | bytes], None] = client.send
            if part.end is None and asked.http.version >= HttpVersion11:
                send = _chunked(client)
            checked = CheckedBody(
                digest, self._counted(asked, send), digest.hasher() if part.whole and digest.checked else None
            )
            work = self._thread(asked, self._pump, reader, [[(part.start, part.end)]], body, checked, cancel)
            await self._until_sent(asked, client, work, cancel)
            await response.write_eof()
        finally:
            body.close()
            if client is not None:
                client.close()
        return response

    async def _send_parts(
        self, asked: ClientRequest, reader: RangeReader, parts: tuple[Part, ...], body: BlobBody, cancel: Cancellation
    ) -> web.StreamResponse:
        """Several ranges: each is asked of the origin for itself, but those that touch, which come as one."""
        multipart = Multipart(parts)
        response = multipart_response(asked.registry, asked.blob.digest, multipart)
        client: ClientSocket | None = None
        try:
            client = await take_over(asked.http, response, self._context.pool)
            framed = PartsBody(multipart, self._counted(asked, client.send), client.send)
            work = self._thread(asked, self._pump, reader, _reads(parts), body, framed, cancel)
            await self._until_sent(asked, client, work, cancel)
            await response.write_eof()
        finally:
            body.close()
            if client is not None:
                client.close()
        return response

    def _known_size(self, asked: ClientRequest) -> int | None:
        """What the origin said to this client lately: it need not be asked again before ranges."""
        place = asked.upstream, asked.blob.repository, asked.blob.digest
        known = self._context.permissions.known(*place, asked.caller)
        return known.size_bytes if known is not None and known.proven else None

    def _counted(
        self, asked: ClientRequest, send: Callable[[memoryview | bytes], None]
    ) -> Callable[[memoryview | bytes], None]:
        access = access_of(asked.http)

        def send_counted(content: memoryview | bytes) -> None:
            send(content)
            self._context.metrics.sent("passthrough", len(content))
            access.sent("passthrough", len(content))

        return send_counted

    def _pump(
        self,
        reader: RangeReader,
        reads: list[list[Range]],
        body: BlobBody | None,
        checked: CheckedBody | RepeatedBody | PartsBody,
        cancel: Cancellation,
    ) -> None:
        """In a thread: read the body, which answers the first of these reads, and send it."""
        sink = self._context.origins.limits.paced(reader.host, checked.write)
        for wanted in reads:
            reader.read(wanted, sink, cancel, body)
            body = None
        checked.finish()

    async def _until_sent(
        self, asked: ClientRequest, client: ClientSocket, work: asyncio.Future[None], cancel: Cancellation
    ) -> None:
        """Wait for a body's thread; a body that cannot be finished ends the connection. Raises ClientGone."""

        def stop() -> None:
            cancel.cancel()
            client.cut()

        try:
            await asked.wait_for(work, stop)
        except DigestMismatch as error:
            _log.error("passage_mismatch %s", error)
            client.cut()
        except (UpstreamError, EOFError, OSError) as error:
            if isinstance(error, ConnectionError):
                raise  # the client's end, and normal
            _log.warning("passage_cut %s", error)
            client.cut()

    def _thread(
        self, asked: ClientRequest, function: Callable[..., Result], *arguments: object
    ) -> asyncio.Future[Result]:
        queues = self._context.origins.queues
        return asyncio.wrap_future(queues.submit(Work.PASSAGE, asked.upstream.host, function, *arguments))

    @contextlib.contextmanager
    def _admitted(self, asked: ClientRequest) -> Iterator[None]:
        host = asked.upstream.host
        if self._open[host] >= self._context.limits.passages_max:
            raise LocalError(f"{self._open[host]} bodies of {host} are being passed through: this node's limit")
        self._open[host] += 1
        try:
            yield
        finally:
            self._open[host] -= 1


def _open(
    reader: RangeReader, cancel: Cancellation, range_header: str | None, known_bytes: int | None
) -> tuple[tuple[Part, ...], BlobBody | None]:
    """In a thread: ask for what the client asked for, and see what it is. The blob has `known_bytes`, if anybody knows.

    Raises UpstreamError, TooManyRanges, FetchCancelled.
    """
    asked = parse_ranges(range_header)
    if len(asked) == 1 and asked[0].suffix is None:
        try:
            part, body = _open_one(reader, cancel, asked[0])
        except UpstreamError as error:
            if error.status != 416:
                raise
            return (Part(416, 0, 0, reader.size(cancel)),), None
        return (part,), body
    # Where the ranges are that count from its end, and how several are framed, depends on its size.
    size = (reader.size(cancel) if known_bytes is None else known_bytes) if asked else None
    if size is None:  # all of it is an answer, too
        return _open_whole(reader, cancel)
    try:
        parts, first = _open_parts(reader, cancel, range_header, size)
    except UpstreamError as error:
        if error.status != 416:
            raise
        # The size was that of a HEAD, which is a hint: the blob is smaller.
        return _open_whole(reader, cancel)
    if first is None or first.size_bytes in (None, size):
        return parts, first
    # What the blob's own answer says of its size counts.
    first.close()
    return _open_parts(reader, cancel, range_header, first.size_bytes)


def _open_whole(reader: RangeReader, cancel: Cancellation) -> tuple[tuple[Part, ...], BlobBody]:
    body = reader.open(0, None, cancel)
    # Of the whole: an origin may send a part of it first, though nobody asked for one.
    return (Part(200, 0, body.size_bytes, body.size_bytes),), body


def _open_parts(
    reader: RangeReader, cancel: Cancellation, range_header: str | None, size: int
) -> tuple[tuple[Part, ...], BlobBody | None]:
    """The same of a blob of this size; the body is the answer to the first part, or what comes instead."""
    parts = select(range_header, size)
    if parts[0].status == 416:
        return parts, None
    if parts[0].status == 200:
        return _open_whole(reader, cancel)
    if len(parts) == 1:
        part, first = _open_one(reader, cancel, ByteRange(parts[0].start, (parts[0].end or 0) - 1))
        return (part,), first
    reads = _reads(parts)
    body = reader.open(*reads[0][0], cancel)
    if not body.is_range and len(reads) > 1:
        # An origin without ranges, and they are out of order.
        return (Part(200, 0, body.size_bytes, body.size_bytes),), body
    return parts, body


def _reads(parts: tuple[Part, ...]) -> list[list[Range]]:
    """What to ask of the origin for these parts, what touches as one range: all at once if they stand in order.

    An origin without ranges then sends the blob once for all of them.
    """
    joined: list[Range] = []
    for part in parts:
        if joined and joined[-1][1] == part.start:
            joined[-1] = (joined[-1][0], part.end)
        else:
            joined.append((part.start, part.end))
    in_order = all((before[1] or 0) <= after[0] for before, after in pairwise(joined))
    return [joined] if in_order else [[each] for each in joined]


def _open_one(reader: RangeReader, cancel: Cancellation, wanted: ByteRange) -> tuple[Part, BlobBody | None]:
    """The same of one range that counts from the blob's first byte."""
    start, end = wanted.first or 0, None if wanted.last is None else wanted.last + 1
    return _answered(wanted, reader.open(start, end, cancel))


def _answered(wanted: ByteRange, body: BlobBody) -> tuple[Part, BlobBody | None]:
    """What a client gets that asked for a range, by what the origin answered."""
    size = body.size_bytes
    if size == 0 or (size is None and not body.is_range):
        return Part(200, 0, size, size), body
    if body.is_range:
        return Part(206, body.start, body.end, size), body
    # The origin knows no ranges: what was not asked for is dropped on the way.
    resolved = wanted.resolve(size or 0)
    if resolved is None:
        body.close()
        return Part(416, 0, 0, size), None
    return Part(206, resolved[0], resolved[1], size), body


def _refusal(asked: ClientRequest, error: UpstreamError) -> web.StreamResponse:
    """The origin's refusal in its own words, with its challenge. Raises the error if it has none."""
    if error.kind is UpstreamKind.DENIED and (error.status or 300) < 400:
        _log.warning("redirect_not_followed upstream=%s %s", asked.upstream.host, error)
    if not isinstance(error, OriginRefused):
        raise error
    answer = in_its_words(asked, error.answer)
    if error.retry_after_s:
        answer.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    return answer


def _discard(opened: tuple[tuple[Part, ...], BlobBody | None]) -> None:
    if opened[1] is not None:
        opened[1].close()


def _chunked(client: ClientSocket) -> Callable[[memoryview | bytes], None]:
    """Send as HTTP chunks. The response sends the last chunk itself, if all went well."""

    def send(content: memoryview | bytes) -> None:
        client.send(b"%x\r\n" % len(content))
        client.send(content)
        client.send(b"\r\n")

    return send
