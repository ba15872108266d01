"""What a registry's answer says: the blob's size, whether ranges are refused, a page of tags, a refusal as an error.

It reads answers and asks nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict

from peer.registry.base import OriginAnswer, OriginRefused
from peer.registry.blob_body import is_encoded
from peer.registry.retry import asked_pause_s
from proto.errors import DigestInvalid, NameInvalid, UpstreamError, UpstreamKind
from proto.oci.ranges import parse_content_range
from proto.oci.routes import parse_reference

if TYPE_CHECKING:
    from peer.registry.exchange import Exchange

_STATUS_KINDS: Final = {
    401: UpstreamKind.DENIED,
    403: UpstreamKind.DENIED,
    404: UpstreamKind.UNKNOWN,
    410: UpstreamKind.UNKNOWN,
    416: UpstreamKind.CONTENT,
    429: UpstreamKind.RATE_LIMITED,
    451: UpstreamKind.DENIED,
}


def length(exchange: Exchange) -> int | None:
    """The blob's size, as far as the answer's length is that."""
    return None if is_encoded(exchange) else exchange.content_length


def refuses_ranges(exchange: Exchange, start: int) -> bool:
    """Whether a 416 does not say that the blob has no byte at `start`: some servers answer every range with it."""
    told = parse_content_range(exchange.header("Content-Range"))
    return exchange.status == 416 and (told is None or (told.size_bytes or 0) > start)


def is_page(exchange: Exchange) -> bool:
    return (exchange.header("Content-Type") or "").partition(";")[0].strip().lower() == "text/html"


def whole_answer(exchange: Exchange) -> OriginAnswer:
    """All of an answer with a short body, whose length is told anew."""
    return OriginAnswer(exchange.status, exchange.reason, CIMultiDict(exchange.lines), exchange.drain())


def tags_of_page(content: bytes, host: str) -> list[str]:
    """Of one page; what is no tag is left out. Raises UpstreamError."""
    try:
        tags = json.loads(content)["tags"] or []
        names = [tag for tag in tags if isinstance(tag, str)]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise UpstreamError(f"origin {host}: its list of tags is none", UpstreamKind.CONTENT) from None
    return [name for name in names if _is_tag(name)]


def _is_tag(name: str) -> bool:
    try:
        return isinstance(parse_reference(name), str)
    except (NameInvalid, DigestInvalid):
        return False


def refusal(what: str, exchange: Exchange) -> UpstreamError:
    """The answer as an error, with the origin's own words where it has any."""
    status = exchange.status
    kind = _STATUS_KINDS.get(status, UpstreamKind.UNAVAILABLE)
    delay_s = asked_pause_s(exchange.header) if status in (429, 503) else None
    message = f"{what}: {exchange.endpoint.host} answered {status}"
    answer = whole_answer(exchange)
    if exchange.head:
        return UpstreamError(message, kind, status=status, retry_after_s=delay_s)
    return OriginRefused(message, kind, exchange.redirect or answer, status=status, retry_after_s=delay_s)
