"""A blob's bytes for one client, in order, while its pieces arrive.

They leave by sendfile from the store as far as the node may hand them out, and wait there for more. When the swarm
fails, the same response goes on from the origin at the byte reached; when the blob itself is wrong it ends short.
What may be sent is the provider's word; nothing is decided about swarms here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from peer.node.blobs import BlobFailed, DigestMismatch, NotShared
from peer.proxy.client_socket import AT_ONCE_MAX_BYTES, take_over
from peer.proxy.heads import blob_response, check_empty, refused, unsatisfiable
from peer.proxy.relay import relay
from proto.errors import LocalError
from proto.oci.ranges import Part, select

if TYPE_CHECKING:
    from aiohttp import web

    from peer.node.blobs import OpenedBlob
    from peer.proxy.client_request import ClientRequest
    from peer.proxy.client_socket import ClientSocket
    from peer.proxy.context import ProxyContext
    from peer.proxy.passthrough import PassThrough

_log = logging.getLogger(__name__)


class BlobStream:
    """Serves blobs: from the store and the swarm where they are shared, else in passing."""

    def __init__(self, context: ProxyContext, passthrough: PassThrough) -> None:
        self._context = context
        self._passthrough = passthrough

    async def head(self, asked: ClientRequest) -> web.StreamResponse:
        """Size and existence: known here for what is public, else the origin's answer to this very client."""
        size = self._context.provider.known_size(asked.blob.digest, asked.source)
        if size is not None:
            return blob_response(asked.registry, asked.blob.digest, Part(200, 0, size, size))
        return await relay(asked, self._context.origins, self._context.limits.relay_s)

    async def get(self, asked: ClientRequest) -> web.StreamResponse:
        """The blob or one range of it. Raises UpstreamError, LocalError or ClientGone while nothing was sent."""
        blob = await self._opened(asked)
        if blob is None:
            return await self._passthrough.get(asked)
        try:
            return await self._send(asked, blob)
        finally:
            blob.close()

    async def _opened(self, asked: ClientRequest) -> OpenedBlob | None:
        """None where the client is to be passed through."""
        opening = asyncio.ensure_future(self._context.provider.open(asked.blob.digest, asked.source))
        limits = self._context.limits
        try:
            async with asyncio.timeout(limits.open_s):
                return await asked.wait_for(
                    opening, opening.cancel, check_s=limits.hangup_check_s, discard=lambda late: late.close()
                )
        except NotShared as error:
            _log.info("blob_not_shared %s reason=%s", _names(asked), error.reason)
        except (BlobFailed, LocalError) as error:
            _log.warning("blob_not_opened %s %s", _names(asked), error)
        except TimeoutError:
            _log.warning("blob_not_opened %s no size within %.0f s", _names(asked), limits.open_s)
        return None

    async def _send(self, asked: ClientRequest, blob: OpenedBlob) -> web.StreamResponse:
        size = blob.size_bytes
        part = select(asked.http.headers.get("Range"), size)
        if part.status == 416:
            return refused(unsatisfiable(part), asked.registry)
        check_empty(asked.blob.digest, size)
        response = blob_response(asked.registry, asked.blob.digest, part)
        client = await take_over(asked.http, response, self._context.pool)
        try:
            await self._send_body(asked, blob, client, part)
        finally:
            client.close()
        await response.write_eof()
        return response

    async def _send_body(
        self,
        asked: ClientRequest,
        blob: OpenedBlob,
        client: ClientSocket,
        part: Part,
    ) -> None:
        assert part.end is not None
        reached, end = part.start, part.end
        origin = "store" if blob.complete else "swarm"

        def sent(count: int) -> None:
            nonlocal reached
            reached += count
            self._context.metrics.sent(origin, count)

        try:
            while reached < end:
                available = await self._available(asked, blob, reached)
                if blob.handle.fresh and blob.size_bytes <= AT_ONCE_MAX_BYTES:
                    sent(client.send_at_once(blob.handle.fileno(), reached, min(available, end) - reached))
                await client.send_file(blob.handle.fileno(), reached, min(available, end) - reached, sent)
        except DigestMismatch as error:
            _log.error("blob_mismatch digest=%s %s", asked.blob.digest.short, error)
            client.cut()
        except (BlobFailed, LocalError) as error:
            if blob.wrong:  # voided while its bytes were leaving: the file was cut under them
                _log.error("blob_mismatch digest=%s %s", asked.blob.digest.short, error)
                client.cut()
                return
            _log.warning("blob_continued_upstream digest=%s at=%d %s", asked.blob.digest.short, reached, error)
            rest = Part(206, reached, end, blob.size_bytes)
            await self._passthrough.go_on(asked, client, blob, rest, from_start=part.start == 0)

    async def _available(self, asked: ClientRequest, blob: OpenedBlob, offset: int) -> int:
        if blob.complete:
            return blob.size_bytes
        waiting = asyncio.ensure_future(blob.wait_available(offset))
        return await asked.wait_for(waiting, waiting.cancel, check_s=self._context.limits.hangup_check_s)


def _names(asked: ClientRequest) -> str:
    """What the log calls a request."""
    return f"digest={asked.blob.digest.short} upstream={asked.upstream.host}"
