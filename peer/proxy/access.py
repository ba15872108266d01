"""What becomes of a client's request, kept with it for whoever watches (the access log, traces). Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from aiohttp import web


@dataclass(slots=True)
class Access:
    """Filled in by those who answer. Bytes are of the body, by where from: store, swarm, passthrough, answer."""

    kind: str = ""
    upstream: str = ""
    sent_bytes: dict[str, int] = field(default_factory=dict)

    def sent(self, origin: str, count: int) -> None:
        """By one thread at a time."""
        self.sent_bytes[origin] = self.sent_bytes.get(origin, 0) + count


ACCESS: Final = web.RequestKey("access", Access)


def access_of(request: web.Request) -> Access:
    """Where to fill in; nobody reads it where nobody watches."""
    return request.get(ACCESS) or Access()
