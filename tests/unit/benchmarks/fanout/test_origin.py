"""What a run cost its origin: when that is said to be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cluster.image import BlobFile, Image
from benchmarks.cluster.ledger import Exchange, Ledger
from benchmarks.fanout.origin import origin_cost

if TYPE_CHECKING:
    from benchmarks.cluster.ledger import Ending

SIZE = 1000
LAYER = BlobFile("sha256:" + "a" * 64, SIZE, "application/octet-stream", Path("layer"))
IMAGE = Image(Path("layout"), LAYER, (LAYER,), LAYER, LAYER)


def sent(first: int, size_bytes: int, acked_bytes: int | None = None, ending: Ending = "complete") -> Exchange:
    exchange = Exchange(0, "node", "GET", f"/v2/demo/blobs/{LAYER.digest}", "", [], (first, None), 0.0)
    exchange.status, exchange.offset, exchange.ending, exchange.body_sent_bytes = 206, first, ending, size_bytes
    exchange.body_acked_bytes = size_bytes if acked_bytes is None else acked_bytes
    return exchange


def test_what_was_sent_once_in_parts_is_right() -> None:
    cost = origin_cost(Ledger((sent(0, 400), sent(400, 600))), IMAGE)
    assert (cost.sent_bytes, cost.repeated_bytes, cost.gets, cost.problems) == (SIZE, 0, 2, ())


def test_what_a_cut_link_left_unacknowledged_and_nobody_asked_for_again_has_come() -> None:
    """The acknowledgement was lost, not the bytes: the next request begins after them."""
    cost = origin_cost(Ledger((sent(0, 400, 350, "client-gone"), sent(390, 610))), IMAGE)
    assert (cost.sent_bytes, cost.doubtful_bytes, cost.problems) == (SIZE, 40, ())


def test_what_a_cut_link_lost_and_was_asked_for_again_left_once() -> None:
    cost = origin_cost(Ledger((sent(0, 400, 350, "client-gone"), sent(350, 650))), IMAGE)
    assert (cost.sent_bytes, cost.doubtful_bytes, cost.problems) == (SIZE, 0, ())


def test_what_never_left_is_missing_whatever_was_in_doubt() -> None:
    cost = origin_cost(Ledger((sent(0, 400, 350, "client-gone"), sent(500, 500))), IMAGE)
    assert cost.problems == ("layer 0: the origin sent 900 bytes of 1000, 0 of them again",)


def test_what_came_twice_is_wrong() -> None:
    cost = origin_cost(Ledger((sent(0, 400), sent(300, 700))), IMAGE)
    assert cost.problems == ("layer 0: the origin sent 1100 bytes of 1000, 100 of them again",)
