"""The book of nodes: who is put aside, and for how long."""

from __future__ import annotations

from proto.wire.tickets import Identity
from supernode.control.node_registry import QUARANTINE_S, NodeRegistry


def test_a_quarantine_is_over_after_its_time_and_keeps_its_reason() -> None:
    book = NodeRegistry()
    first, second = Identity.generate().peer, Identity.generate().peer
    book.quarantine(first, "served piece 3 corrupt", 100.0)
    book.quarantine(second, "served piece 4 corrupt", 200.0)
    assert book.quarantined[first].reason == "served piece 3 corrupt"
    assert book.quarantines_over(99.0 + QUARANTINE_S) == []
    assert book.quarantines_over(100.0 + QUARANTINE_S) == [first]
    assert book.end_quarantine(first)
    assert not book.end_quarantine(first)
    assert book.is_quarantined(second)
