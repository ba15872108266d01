"""What becomes of a client's request, kept with it for whoever watches (the access log, traces). Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.ids import Digest


@dataclass(slots=True)
class Access:
    """Filled in by those who answer. Bytes are of the body, by where from: store, swarm, passthrough, answer."""

    kind: str = ""
    upstream: str = ""
    sent_bytes: dict[str, int] = field(default_factory=dict)
    # Who wants to know which blob it reads.
    reading: Callable[[Digest], None] | None = None

    def understood(self, kind: str, upstream: str, blob: Digest | None) -> None:
        """What is asked for; `blob`: which one, of a request for one."""
        self.kind, self.upstream = kind, upstream
        if blob is not None and self.reading is not None:
            self.reading(blob)

    def sent(self, origin: str, count: int) -> None:
        """By one thread at a time."""
        self.sent_bytes[origin] = self.sent_bytes.get(origin, 0) + count


ACCESS: Final = web.RequestKey("access", Access)


def access_of(request: web.Request) -> Access:
    """Where to fill in; nobody reads it where nobody watches."""
    return request.get(ACCESS) or Access()
