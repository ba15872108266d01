"""Blobs that the supernode wants here before clients come: asked for like a client's, and answered once.

Lives on the event loop. Each is opened as for a client that hangs up at once: the download goes on. It decides nothing
but when an answer is due.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from peer.downloader.contract import BackgroundDropped
from peer.node.blobs import Allowed, NotShared
from peer.registry.base import ANYONE
from proto.wire.messages import PreheatEnded

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.downloader.contract import Event
    from peer.node.readers import Readers
    from proto.ids import Digest
    from proto.wire.messages import Message, Preheat

logger = logging.getLogger(__name__)

# Being opened, or awaited. Twice what a supernode lets a node announce would be of no use.
PREHEATS_MAX: Final = 20_000
GIVEN_UP: Final = "given_up"


class Preheats:
    """`post` is the downloader's inbox, `send` the session's."""

    def __init__(self, readers: Readers, post: Callable[[Event], None], send: Callable[[Message], None]) -> None:
        self._readers = readers
        self._post = post
        self._send = send
        self._opening: dict[Digest, asyncio.Task[None]] = {}
        self._awaited: dict[Digest, None] = {}

    def received(self, digest: Digest, preheat: Preheat) -> None:
        """Have it here, or no longer. What is awaited already is answered once."""
        if not preheat.wanted:
            self._dropped(digest)
        elif digest in self._opening or digest in self._awaited:
            return
        elif len(self._opening) + len(self._awaited) >= PREHEATS_MAX:
            self._send(PreheatEnded(str(digest), "limit", f"{PREHEATS_MAX} blobs are preheated here already"))
        else:
            task = self._opening[digest] = asyncio.create_task(self._open(digest, preheat))
            task.add_done_callback(lambda task: self._opened(digest, task))

    def complete(self, digest: Digest) -> None:
        """All of it is here, and is what it should be."""
        if digest in self._awaited:
            self._end(digest)

    def closed(self, digest: Digest) -> None:
        """Nothing of it comes any more."""
        if digest in self._awaited:
            self._end(digest, GIVEN_UP, "nothing came any more, or the store of this node is in trouble")

    def close(self) -> None:
        """The node stops."""
        for task in self._opening.values():
            task.cancel()
        self._awaited.clear()

    async def _open(self, digest: Digest, preheat: Preheat) -> None:
        # The supernode fetches a private one with its login. This node has no credential for it.
        allowed = Allowed(preheat.size_bytes, True, ANYONE) if preheat.private else None
        try:
            reader = await self._readers.open(digest, preheat.source, allowed, background=True)
        except NotShared as error:
            logger.warning("preheat_refused digest=%s reason=%s %s", digest.short, error.reason, error)
            self._send(PreheatEnded(str(digest), error.reason, str(error)))
            return
        # Before the reader is closed: the blob may be complete at once.
        self._awaited[digest] = None
        if reader.stored:
            self._end(digest)
        reader.close()

    def _dropped(self, digest: Digest) -> None:
        self._awaited.pop(digest, None)
        task = self._opening.pop(digest, None)
        if task is not None:
            task.cancel()
        self._post(BackgroundDropped(digest))

    def _opened(self, digest: Digest, task: asyncio.Task[None]) -> None:
        if self._opening.get(digest) is task:
            del self._opening[digest]

    def _end(self, digest: Digest, reason: str = "", message: str = "") -> None:
        del self._awaited[digest]
        self._send(PreheatEnded(str(digest), reason, message))
