"""Whether a client may read a blob: from what is remembered, else from the origin, with the client's own credential.

The one place that asks. It gives no bytes, and relays nothing: of a refusal the client gets the origin's own words
elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from peer.permission.credentials import CredentialKeys, expires_unix_s
from peer.permission.manifests import listed_blobs
from peer.permission.permissions import Permission, Permissions, Place, Question
from peer.registry.queues import Work
from peer.transport.cancellation import Cancellation
from proto.errors import UpstreamError, UpstreamKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.registry.base import Caller
    from peer.registry.origins import Origins
    from proto.ids import Digest
    from proto.oci.upstreams import UpstreamConfig

logger = logging.getLogger(__name__)


def is_refusal(error: UpstreamError) -> bool:
    """The origin decided that the client may not read, or that there is nothing to be read."""
    return error.kind in (UpstreamKind.DENIED, UpstreamKind.UNKNOWN)


class PermissionGate:
    """Lives on the event loop. close() it in the end; the origins' queues join the threads.

    `lasts_s`: how long what an origin allowed counts at most. `on_asked` counts questions by how they ended: allowed,
    refused, unanswered. What counts while an origin is down is LastAnswers' to say.
    """

    def __init__(
        self,
        origins: Origins,
        lasts_s: float,
        *,
        keys: CredentialKeys | None = None,
        on_asked: Callable[[str], None] = lambda outcome: None,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        self._origins = origins
        self._on_asked = on_asked
        self._clock = clock
        self._unix_clock = unix_clock
        self._keys = keys or CredentialKeys()
        self._permissions = Permissions(lasts_s)
        self._asking: dict[Question, asyncio.Task[Permission]] = {}
        self._cancel = Cancellation()

    @property
    def lasts_s(self) -> float:
        """The longest that anything is remembered."""
        return self._permissions.lasts_s

    def known(self, upstream: UpstreamConfig, repository: str, digest: Digest, caller: Caller) -> Permission | None:
        """What is remembered, without a question."""
        return self._permissions.known(self._question(upstream, repository, digest, caller), self._clock())

    async def ask(self, upstream: UpstreamConfig, repository: str, digest: Digest, caller: Caller) -> Permission:
        """Ask the origin, one question at a time for each. Raises UpstreamError: denied or unknown where it refuses,
        else why that cannot be known now, and then nothing is allowed.
        """
        question = self._question(upstream, repository, digest, caller)
        task = self._asking.get(question)
        if task is None:
            task = self._asking[question] = asyncio.create_task(self._ask(question, upstream, caller))
            task.add_done_callback(lambda _: self._asking.pop(question, None))
        return await asyncio.shield(task)

    def manifest_given(
        self, upstream: UpstreamConfig, repository: str, body: bytes, caller: Caller, age_s: float = 0.0
    ) -> None:
        """The origin, asked so long ago, gave this manifest to this client."""
        asked_s, good_for_s = self._clock() - age_s, self._good_for_s(caller) + age_s
        for digest, size_bytes in listed_blobs(body):
            question = self._question(upstream, repository, digest, caller)
            self._permissions.list_blob(question, size_bytes, asked_s, good_for_s)

    def blob_given(
        self,
        upstream: UpstreamConfig,
        repository: str,
        digest: Digest,
        size_bytes: int,
        caller: Caller,
        age_s: float = 0.0,
    ) -> None:
        """The origin, asked so long ago, answered this client's own HEAD or GET of the blob with success."""
        question = self._question(upstream, repository, digest, caller)
        self._permissions.allow(question, size_bytes, self._clock() - age_s, self._good_for_s(caller) + age_s)

    def close(self) -> None:
        """End the questions that are on their way."""
        self._cancel.cancel()
        for task in self._asking.values():
            task.cancel()

    async def _ask(self, question: Question, upstream: UpstreamConfig, caller: Caller) -> Permission:
        place, asked_s, good_for_s = question.place, self._clock(), self._good_for_s(caller)
        origin = self._origins.of(upstream)
        asked = self._origins.queues.submit(
            Work.CHECK, upstream.host, origin.stat, place.repository, place.digest, caller, self._cancel
        )
        try:
            size_bytes = await asyncio.wrap_future(asked)
        except UpstreamError as error:
            refused = is_refusal(error)
            if refused:
                self._permissions.forget(question)
            self._on_asked("refused" if refused else "unanswered")
            logger.info("read_%s upstream=%s digest=%s status=%s", "refused" if refused else "not_decided",
                        upstream.host, place.digest.short, error.status)  # fmt: skip
            raise
        if size_bytes is None:
            self._on_asked("unanswered")
            message = f"origin {upstream.host} does not say how large blob {place.digest.short} is"
            raise UpstreamError(message, UpstreamKind.UNAVAILABLE)
        self._on_asked("allowed")
        # From when it was asked: what was revoked meanwhile is remembered no longer for it.
        self._permissions.allow(question, size_bytes, asked_s, good_for_s)
        return Permission(size_bytes, proven=True)

    def _question(self, upstream: UpstreamConfig, repository: str, digest: Digest, caller: Caller) -> Question:
        return Question(Place(upstream.host, repository, digest), self._keys.key_of(caller))

    def _good_for_s(self, caller: Caller) -> float:
        ends = expires_unix_s(caller.authorization)
        return float("inf") if ends is None else max(0.0, ends - self._unix_clock())
