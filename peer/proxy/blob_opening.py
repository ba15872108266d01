"""How a client's request for a blob becomes an open blob: asked of the node and, where it is private, of the origin.

Also what the origin's answers to other requests of the client permit. Who may read what is peer.permission's, what
is shared the node's; here is the order in which they are asked.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from peer.node.blobs import Allowed, BlobFailed, DigestMismatch, NotShared
from peer.permission.gate import is_refusal
from peer.permission.last_answers import DOWN_AFTER_S
from peer.permission.permissions import Permission
from peer.proxy.heads import STALE, asked_range
from proto.errors import LayercastError, LocalError, UpstreamError, UpstreamKind
from proto.oci.ranges import parts_read
from proto.oci.routes import BlobRoute, ManifestRoute

if TYPE_CHECKING:
    from peer.node.blobs import OpenedBlob
    from peer.permission.last_answers import AnswerKey, KnownAnswer
    from peer.proxy.client_request import ClientRequest
    from peer.registry.base import OriginAnswer

_log = logging.getLogger(__name__)

# When a client may try again whose origin has not answered yet.
SLOW_RETRY_S: Final = 5.0
# What an origin says to somebody without a credential, and may not say to this client.
_ASKED_AGAIN: Final = ("private", "unknown", "rate_limited")


class ReadRefused(LayercastError):
    """The origin does not give the blob to this client: it gets the origin's own words."""


async def open_blob(asked: ClientRequest) -> OpenedBlob | None:
    """None where the client is to be passed through. Raises ReadRefused, DigestMismatch (ask again), UpstreamError
    where its origin is not to be asked, TooManyRanges and ClientGone.
    """
    if not asked.blob.digest.checked:
        return None
    open_s = asked.context.limits.open_s
    try:
        async with asyncio.timeout(open_s):
            return await _open(asked)
    except NotShared as error:
        _not_shared(asked, error)
    except (BlobFailed, LocalError) as error:
        _log.warning("blob_not_opened %s %s", names(asked), error)
    except TimeoutError:
        _log.warning("blob_not_opened %s no size within %.0f s", names(asked), open_s)
    return None


async def _open(asked: ClientRequest) -> OpenedBlob:
    """Raises NotShared."""
    gate, place = asked.context.permissions, (asked.upstream, asked.blob.repository, asked.blob.digest)
    known = gate.known(*place, asked.caller)
    try:
        return await _open_allowed(asked, known)
    except NotShared as error:
        may_ask = asked.caller.authorization is not None or asked.upstream.shared
        outlasts = error.reason == "unavailable" and asked.context.answers.last(_answer_key(asked), asked.caller)
        if not outlasts and (error.reason not in _ASKED_AGAIN or (known is not None and known.proven)):
            raise
        if not may_ask and not outlasts:
            if error.reason == "rate_limited":
                raise
            raise ReadRefused(f"{error}") from None
    return await _open_allowed(asked, await _permission(asked))


async def _permission(asked: ClientRequest) -> Permission:
    """The origin's, or its last one while it is down. Raises NotShared and ReadRefused."""
    answers, host, key = asked.context.answers, asked.upstream.host, _answer_key(asked)
    last = _read_permission(answers.last(key, asked.caller))
    if last is not None and answers.is_down(host):
        return _stale(asked, last)
    gate = asked.context.permissions
    asking = asyncio.ensure_future(gate.ask(asked.upstream, asked.blob.repository, asked.blob.digest, asked.caller))
    try:
        async with asyncio.timeout(DOWN_AFTER_S if last is not None else None):
            permission = await asked.wait_for(asking, asking.cancel)
    except TimeoutError:
        assert last is not None
        return _stale(asked, last)
    except UpstreamError as refusal:
        if is_refusal(refusal):
            answers.forget(key)
            raise ReadRefused(str(refusal)) from None
        if refusal.kind is UpstreamKind.UNAVAILABLE and last is not None:
            return _stale(asked, last)
        raise NotShared("unavailable", str(refusal)) from None
    answers.is_up(host)
    return permission


def _answer_key(asked: ClientRequest) -> AnswerKey:
    return asked.context.answers.key(asked.upstream.host, asked.blob.path, asked.caller)


def _read_permission(last: KnownAnswer | None) -> Permission | None:
    return None if last is None else Permission(int(last.line("Content-Length") or 0), proven=True)


def _stale(asked: ClientRequest, permission: Permission) -> Permission:
    """The origin is down, and its last word stands."""
    asked.context.answers.went_down(asked.upstream.host)
    asked.context.metrics.permission_asked("stale")
    asked.context.metrics.stale_answers.labels("blob").inc()
    asked.http[STALE] = True
    return permission


def note_given(asked: ClientRequest, size_bytes: int) -> None:
    """This client was given bytes of the blob, as its origin allowed: it may be again while that is down."""
    answers, lines = asked.context.answers, [("Content-Length", str(size_bytes))]
    if answers.stale_s and STALE not in asked.http:
        answers.keep(_answer_key(asked), asked.caller, 200, lines, asked_s=answers.now_s(), fresh_s=0.0)


async def _open_allowed(asked: ClientRequest, permission: Permission | None) -> OpenedBlob:
    allowed = None
    if permission is not None:
        allowed = Allowed(permission.size_bytes, permission.proven, asked.caller)
    ranges = parts_read(asked_range(asked.http, asked.blob.digest))
    opening = asyncio.ensure_future(asked.context.provider.open(asked.blob.digest, asked.source, allowed, ranges))
    return await asked.wait_for(opening, opening.cancel, discard=lambda late: late.close())


def _not_shared(asked: ClientRequest, error: NotShared) -> None:
    """Where the client is not simply passed through, raises what it is told."""
    _log.info("blob_not_shared %s reason=%s", names(asked), error.reason)
    asked.context.metrics.blobs_refused.labels(error.reason).inc()
    if error.reason == "changed":
        raise DigestMismatch(str(error)) from error
    if error.reason == "slow":
        raise UpstreamError(str(error), UpstreamKind.UNAVAILABLE, retry_after_s=SLOW_RETRY_S) from error
    if error.reason == "rate_limited" and error.retry_after_s and "Authorization" not in asked.http.headers:
        kind, left_s = UpstreamKind.RATE_LIMITED, error.retry_after_s
        raise UpstreamError(str(error), kind, status=429, retry_after_s=left_s) from error


def note_permissions(asked: ClientRequest, answer: OriginAnswer, age_s: float) -> None:
    """What this answer of the origin, asked so long ago, permits this client to read: a manifest's blobs, or the blob
    of a HEAD.
    """
    if answer.status != 200 or asked.registry.query:
        # What a query asks for, and may be signed for, is not what is asked without one.
        return
    route, gate = asked.registry.route, asked.context.permissions
    if isinstance(route, ManifestRoute) and asked.http.method == "GET":
        gate.manifest_given(asked.upstream, route.repository, answer.body, asked.caller, age_s)
    elif isinstance(route, BlobRoute) and asked.http.method == "HEAD":
        # Without its digest it may be another page, where a redirect led.
        length = answer.headers.get("Content-Length", "")
        if answer.headers.get("Docker-Content-Digest") == str(route.digest) and length.isascii() and length.isdigit():
            size_bytes = int(length[:18])
            gate.blob_given(asked.upstream, route.repository, route.digest, size_bytes, asked.caller, age_s)


def names(asked: ClientRequest) -> str:
    """What the log calls a request."""
    return f"digest={asked.blob.digest.short} upstream={asked.upstream.host}"
