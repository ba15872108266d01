"""How a request for a manifest, or for `/v2/`, is answered.

The origin is asked by HEAD, with the client's own lines, whether this client may have it and what it is: Docker Hub
counts GETs alone. The bytes come from the node's store or the cluster, as a small blob's do, once they match the digest
that the HEAD told. Where that does not work, the client's own request goes to the origin.

While the origin is down, and the operator allows it, the last answer to the same question with the same credential
stands in for it. It says so (`Warning`). Manifests that a query asks for, parts of them, and those of folders are not
looked at here: the request is passed on as it is.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web
from multidict import CIMultiDict

from peer.node.blobs import Allowed, BlobFailed, NotShared
from peer.permission.last_answers import DOWN_AFTER_S
from peer.proxy.heads import for_client, for_origin, mark_stale
from peer.proxy.passthrough import ask_origin, in_its_words
from proto.errors import DigestInvalid, LocalError, UpstreamError, UpstreamKind
from proto.ids import Digest
from proto.oci.routes import ManifestRoute
from proto.wire.messages import Source

if TYPE_CHECKING:
    from peer.node.blobs import OpenedBlob
    from peer.permission.last_answers import AnswerKey, KnownAnswer
    from peer.proxy.client_request import ClientRequest, ProxyContext
    from peer.registry.base import OriginAnswer
    from peer.store.base import BlobHandle

    # What an origin answered to a HEAD, and the same as it is kept, if it says enough for that.
    _Told = tuple[OriginAnswer, KnownAnswer | None]
    # Who asks for what, and with which Accept.
    _Question = tuple[AnswerKey, tuple[str, ...]]

_log = logging.getLogger(__name__)

# A manifest is a packet or two: what takes longer is asked of the origin.
CLUSTER_S: Final = 10.0
# Registries take no larger manifests; what is larger is asked of the origin each time.
KEPT_BYTES_MAX: Final = 4 * 1024 * 1024
# What is kept for a question is kept small; docker's six lines have 500.
ACCEPT_CHARACTERS_MAX: Final = 2048
_CONDITIONS: Final = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range")


@dataclass(frozen=True, slots=True)
class _Head:
    """What an origin says of a manifest."""

    digest: Digest
    size_bytes: int
    answer: KnownAnswer


class Manifests:
    """One a mirror."""

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._answers = context.answers
        # Also by Accept: some registries answer 404 to who does not name the type.
        self._asking: dict[_Question, asyncio.Task[_Told]] = {}

    # --- /v2/ ------------------------------------------------------------------------------------------------------

    async def ping(self, asked: ClientRequest) -> web.StreamResponse:
        """Answer `/v2/`. Raises UpstreamError and ClientGone."""
        if asked.registry.query or asked.upstream.kind:
            return in_its_words(asked, await ask_origin(asked))
        key = self._key(asked)
        last = self._last(asked, key)
        if last is not None and self._answers.is_down(asked.upstream.host):
            return self._stale_ping(asked, last)
        asked_s = self._answers.now_s()
        try:
            answer = await ask_origin(asked, within_s=None if last is None else DOWN_AFTER_S)
        except UpstreamError as error:
            if last is None or error.kind is not UpstreamKind.UNAVAILABLE:
                raise
            return self._stale_ping(asked, last)
        if last is not None and is_down(answer.status):
            return self._stale_ping(asked, last)
        self._answers.is_up(asked.upstream.host)
        if answer.status in (200, 401):
            lines = answer.headers.items()
            self._answers.keep(key, asked.caller, answer.status, lines, asked_s=asked_s, fresh_s=0.0, body=answer.body)
        else:
            self._note_refusal(key, answer.status)
        return in_its_words(asked, answer)

    def _stale_ping(self, asked: ClientRequest, last: KnownAnswer) -> web.Response:
        self._answers.went_down(asked.upstream.host)
        body = b"" if asked.http.method == "HEAD" else last.body
        return self._response(asked, last, body, "ping")

    # --- manifests -------------------------------------------------------------------------------------------------

    async def get(self, asked: ClientRequest) -> web.StreamResponse:
        """Answer a GET or HEAD of a manifest. Raises UpstreamError and ClientGone."""
        if not _is_plain(asked):
            return await self._pass_on(asked)
        key = self._key(asked)
        head = self._known(asked, key)
        if head is None:
            last = self._last(asked, key)
            if last is not None and self._answers.is_down(asked.upstream.host):
                return await self._stale(asked, last, _no_answer(asked))
            try:
                answer, kept = await self._ask(asked, key, within_s=None if last is None else DOWN_AFTER_S)
            except UpstreamError as error:
                if last is None or error.kind is not UpstreamKind.UNAVAILABLE:
                    raise
                return await self._stale(asked, last, error)
            if answer.status != 200:
                return await self._not_given(asked, answer, last)
            head = _read_head(kept, asked) if kept is not None else None
        if head is None:
            # Nothing that could be relied on: no digest, no length, or too large for us.
            return in_its_words(asked, answer) if _is_head(asked) else await self._pass_on(asked)
        if _is_head(asked):
            return self._response(asked, head.answer, b"")
        content = await self._content(asked, head, Allowed(head.size_bytes, True, asked.caller))
        if content is None:
            return await self._pass_on(asked)
        repository, age_s = _route(asked).repository, self._answers.age_s(head.answer)
        self._context.permissions.manifest_given(asked.upstream, repository, content, asked.caller, age_s)
        self._note_public(asked, head)
        return self._response(asked, head.answer, content)

    async def _ask(self, asked: ClientRequest, key: AnswerKey, within_s: float | None) -> _Told:
        """The origin's answer to a HEAD, one at a time for each question; it is kept. Raises UpstreamError."""
        question = key, _accept_lines(asked)
        task = self._asking.get(question)
        if task is None:
            task = self._asking[question] = asyncio.create_task(self._head(asked, key, within_s))
            task.add_done_callback(lambda done: self._asked(question, done))
        waiting = asyncio.ensure_future(asyncio.shield(task))
        return await asked.wait_for(waiting, waiting.cancel)

    def _asked(self, question: _Question, task: asyncio.Task[_Told]) -> None:
        del self._asking[question]
        if not task.cancelled():
            task.exception()  # it has been told, if anybody still waited

    async def _head(self, asked: ClientRequest, key: AnswerKey, within_s: float | None) -> _Told:
        asked_s = self._answers.now_s()
        headers = for_origin(asked.http.headers)
        headers["Accept-Encoding"] = "identity"
        answer = await ask_origin(asked, method="HEAD", headers=headers, within_s=within_s, shared=True)
        self._answers.is_up(asked.upstream.host)
        if answer.status != 200:
            self._note_refusal(key, answer.status)
            return answer, None
        route, digest = _route(asked), _digest_of(answer.headers.get("Docker-Content-Digest"))
        if digest is None or (isinstance(route.reference, Digest) and digest != route.reference):
            return answer, None
        ttl_s, tag_s = self._context.permissions.lasts_s, self._context.limits.tag_s
        caller, lines = asked.caller, list(answer.headers.items())
        # What is told of a tag is told of what it names, too.
        digest_key = self._digest_key(asked, digest)
        kept = self._answers.keep(digest_key, caller, 200, lines, asked_s=asked_s, fresh_s=ttl_s)
        if isinstance(route.reference, str):
            self._answers.keep(key, caller, 200, lines, asked_s=asked_s, fresh_s=min(tag_s, ttl_s))
        return answer, kept

    async def _not_given(
        self, asked: ClientRequest, answer: OriginAnswer, last: KnownAnswer | None
    ) -> web.StreamResponse:
        """A HEAD was answered with something else than 200. A client's GET may still be given what it wants."""
        if last is not None and is_down(answer.status) and _is_head(asked):
            return await self._stale(asked, last, _no_answer(asked))
        if _is_head(asked):
            return in_its_words(asked, answer)
        try:
            response = await self._pass_on(asked)
        except UpstreamError as error:
            if last is None or error.kind is not UpstreamKind.UNAVAILABLE:
                raise
            return await self._stale(asked, last, error)
        if last is not None and is_down(response.status):
            return await self._stale(asked, last, _no_answer(asked))
        return response

    async def _pass_on(self, asked: ClientRequest) -> web.Response:
        """The client's own request, at the origin."""
        answer = await ask_origin(asked)
        if asked.http.method == "GET" and answer.status == 200:
            self._context.metrics.manifest_given("origin")
        return in_its_words(asked, answer)

    # --- the bytes -------------------------------------------------------------------------------------------------

    async def _content(self, asked: ClientRequest, head: _Head, allowed: Allowed | None) -> bytes | None:
        """The manifest from the store or the cluster; None where it is to be asked of the origin. Raises ClientGone."""
        opening = asyncio.ensure_future(self._read(asked, head, allowed))
        try:
            async with asyncio.timeout(CLUSTER_S):
                content = await asked.wait_for(opening, opening.cancel)
        except (NotShared, BlobFailed, LocalError, OSError, TimeoutError) as error:
            if isinstance(error, ConnectionError):
                raise
            _log.info("manifest_not_shared digest=%s upstream=%s reason=%s",
                      head.digest.short, asked.upstream.host, getattr(error, "reason", error))  # fmt: skip
            return None
        if content is None:
            _log.error("manifest_mismatch digest=%s upstream=%s", head.digest.short, asked.upstream.host)
        return content

    async def _read(self, asked: ClientRequest, head: _Head, allowed: Allowed | None) -> bytes | None:
        source = Source(asked.upstream.host, _route(asked).repository, manifest=True)
        blob = await self._context.provider.open(head.digest, source, allowed)
        try:
            await _whole(blob)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._context.pool, _from_store, blob.handle, head.digest)
        finally:
            blob.close()

    # --- what is known ---------------------------------------------------------------------------------------------

    def _known(self, asked: ClientRequest, key: AnswerKey) -> _Head | None:
        """What the origin said lately, to a question that it answers in the same way."""
        answer = self._answers.fresh(key)
        head = _read_head(answer, asked) if answer is not None else None
        if head is None or isinstance(_route(asked).reference, str):
            return head
        return head if _accepts(asked, head.answer) else None

    def _key(self, asked: ClientRequest) -> AnswerKey:
        """Of this request's question. Which digest a manifest has does not depend on what is accepted."""
        route = asked.registry.route
        if isinstance(route, ManifestRoute) and isinstance(route.reference, Digest):
            return self._digest_key(asked, route.reference)
        return self._answers.key(asked.upstream.host, route.path, asked.caller, _accept_lines(asked))

    def _digest_key(self, asked: ClientRequest, digest: Digest) -> AnswerKey:
        path = ManifestRoute(_route(asked).repository, digest).path
        return self._answers.key(asked.upstream.host, path, asked.caller)

    def _note_refusal(self, key: AnswerKey, status: int) -> None:
        if status in (401, 403, 404, 410, 451):
            self._answers.forget(key)

    def _note_public(self, asked: ClientRequest, head: _Head) -> None:
        """Of a manifest that anyone may have it is no secret which tag names it."""
        if not self._answers.stale_s:
            return
        source = Source(asked.upstream.host, _route(asked).repository, manifest=True)
        if self._context.provider.known_size(head.digest, source) is not None:
            for key in (self._key(asked), self._digest_key(asked, head.digest)):
                self._answers.keep_for_anyone(key, head.answer)

    # --- an origin that is down ------------------------------------------------------------------------------------

    def _last(self, asked: ClientRequest, key: AnswerKey) -> KnownAnswer | None:
        return self._answers.last(key, asked.caller) or self._answers.last_to_anyone(key)

    async def _stale(self, asked: ClientRequest, last: KnownAnswer, error: UpstreamError) -> web.StreamResponse:
        """The last answer in place of one. Raises the error where that cannot be given any more."""
        head = _read_head(last, asked)
        # Of a tag it was the answer to the same Accept.
        if head is None or (isinstance(_route(asked).reference, Digest) and not _accepts(asked, last)):
            raise error
        self._answers.went_down(asked.upstream.host)
        if _is_head(asked):
            return self._response(asked, last, b"", "manifest")
        own = self._answers.last(self._key(asked), asked.caller) is not None
        allowed = Allowed(head.size_bytes, True, asked.caller) if own else None
        content = await self._content(asked, head, allowed)
        if content is None:
            raise error
        return self._response(asked, last, content, "manifest")

    # --- answers ---------------------------------------------------------------------------------------------------

    def _response(self, asked: ClientRequest, answer: KnownAnswer, body: bytes, stale: str = "") -> web.Response:
        """An origin's header lines with this body; of a HEAD, with the length that the origin told."""
        lines = CIMultiDict(answer.lines)
        if not _is_head(asked):
            lines["Content-Length"] = str(len(body))
        headers = for_client(asked.registry, answer.status, lines)
        if stale:
            mark_stale(headers)
            self._context.metrics.stale_answers.labels(stale).inc()
        elif not _is_head(asked):
            self._context.metrics.manifest_given("cluster")
        return web.Response(status=answer.status, headers=headers, body=body)


def is_down(status: int) -> bool:
    """Whether an answer says nothing but that the origin is in trouble, and not that it does not know such requests."""
    return status >= 500 and status not in (501, 505)


def _no_answer(asked: ClientRequest) -> UpstreamError:
    return UpstreamError(f"origin {asked.upstream.host} is down", UpstreamKind.UNAVAILABLE)


def _route(asked: ClientRequest) -> ManifestRoute:
    assert isinstance(asked.registry.route, ManifestRoute)
    return asked.registry.route


def _is_head(asked: ClientRequest) -> bool:
    return asked.http.method == "HEAD"


def _is_plain(asked: ClientRequest) -> bool:
    reference = _route(asked).reference
    checked = isinstance(reference, str) or reference.checked
    special = any(name in asked.http.headers for name in _CONDITIONS) or asked.registry.query or asked.upstream.kind
    return checked and not special and sum(map(len, _accept_lines(asked))) <= ACCEPT_CHARACTERS_MAX


def _accept_lines(asked: ClientRequest) -> tuple[str, ...]:
    """In an order of our own: docker's is another each time."""
    return tuple(sorted(asked.http.headers.getall("Accept", [])))


def _digest_of(text: str | None) -> Digest | None:
    try:
        digest = Digest.parse(text or "")
    except DigestInvalid:
        return None
    return digest if digest.checked else None


def _read_head(answer: KnownAnswer, asked: ClientRequest) -> _Head | None:
    """None for what tells too little, or for what is too large."""
    digest, length = _digest_of(answer.line("Docker-Content-Digest")), answer.line("Content-Length") or ""
    # What its front end compressed has another length.
    plain = (answer.line("Content-Encoding") or "identity").lower() == "identity"
    if digest is None or not plain or not answer.line("Content-Type") or not (length.isascii() and length.isdigit()):
        return None
    size_bytes = int(length[:18])
    reference = _route(asked).reference
    if not 0 < size_bytes <= KEPT_BYTES_MAX or (isinstance(reference, Digest) and reference != digest):
        return None
    return _Head(digest, size_bytes, answer)


def _accepts(asked: ClientRequest, answer: KnownAnswer) -> bool:
    """Whether the client names the type: some registries take `*/*` for none of OCI's."""
    media_type = (answer.line("Content-Type") or "").partition(";")[0].strip().lower()
    named = ",".join(_accept_lines(asked))
    return media_type in {each.partition(";")[0].strip().lower() for each in named.split(",")}


def _from_store(handle: BlobHandle, digest: Digest) -> bytes | None:
    """In a thread: the manifest, if it is what its digest says. None: the disk has changed it. That is dropped then and
    fetched again, for who comes next.
    """
    content = os.pread(handle.fileno(), handle.layout.size_bytes, 0)
    if Digest.of(content, digest.algorithm) == digest:
        return content
    handle.check_pieces(handle.layout.full_mask, "client")
    return None


async def _whole(blob: OpenedBlob) -> None:
    """Wait until all of it may be sent, which is after its digest has passed. Raises BlobFailed."""
    offset = 0
    while offset < blob.size_bytes:
        available = blob.available(offset)
        offset = available if available > offset else await blob.wait_available(offset)
