"""What the routes of operators share: who may change something, a JSON body, and refusals with their reason as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from supernode.api.access import Rank, caller_of


class Refused(Exception):
    """An answer to a request that makes no sense, or is not granted."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def answer_of(error: Refused) -> web.Response:
    """As JSON: error."""
    return web.json_response({"error": str(error)}, status=error.status)


def check_may_change(request: web.Request) -> None:
    """Raises Refused. A member reads; a web page that an operator looks at can send no JSON here."""
    if caller_of(request).rank is not Rank.OPERATOR:
        raise Refused(403, "for operators: ask from the supernode's own machine, or with its operator's token")
    if request.method == "POST" and request.content_type != "application/json":
        raise Refused(415, "send it as Content-Type: application/json")


async def document_of(request: web.Request) -> dict[str, Any]:
    """Raises Refused."""
    try:
        document = await request.json()
    except (ValueError, LookupError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Refused(400, "the body is no JSON object")
    return document


def time_text(unix_s: float | None) -> str | None:
    """As answers have times."""
    return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")
