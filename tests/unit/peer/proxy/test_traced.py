"""The span of a client's request: what it tells of how that ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from peer.node.blob_spans import BlobSpans
from peer.proxy import traced
from proto.runtime.traces import Span, Traces

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Handler


class Noted(Span):
    def __init__(self) -> None:
        self.ends: list[tuple[str, object]] = []

    def end(self, error: str = "", **attributes: str | int | float) -> None:
        self.ends.append((error, attributes["status"]))


class Recorded(Traces):
    on = True

    def __init__(self) -> None:
        self.spans: list[Noted] = []

    def begin(
        self, name: str, parent: Span | bytes | None = None, *, ns: int | None = None, **attributes: str | int | float
    ) -> Noted:
        self.spans.append(Noted())
        return self.spans[-1]


def answering(answer: Exception) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        raise answer

    return handle


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "end"),
    [(web.HTTPNotFound(), ("", 404)), (web.HTTPBadGateway(), ("502", 502)), (OSError("a bug"), ("500", 500))],
)
async def test_an_answer_that_is_raised_is_told_as_it_is(answer: Exception, end: tuple[str, int]) -> None:
    traces = Recorded()
    handler: Handler = answering(answer)
    with pytest.raises(type(answer)):
        await traced.middleware(BlobSpans(traces))(make_mocked_request("GET", "/v2/a/blobs/b"), handler)
    assert [span.ends for span in traces.spans] == [[end]]
