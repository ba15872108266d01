"""Which delivery a node uses: made when a supernode names it, leases alone without it, and its absence said."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from peer.transport.delivery import DeliverySlot, PieceDelivery
from proto.errors import ConfigError
from proto.ids import Digest
from proto.wire.handshake import SCHEDULED

if TYPE_CHECKING:
    from collections.abc import Callable

PIGEONS = "pigeons"


class Pigeons(PieceDelivery):
    """A delivery with a port."""

    def __init__(self) -> None:
        self.sessions = 0
        self.closed = False

    @property
    def sent_bytes(self) -> int:
        return 7

    def session_begins(self) -> int:
        self.sessions += 1
        return 7000

    def close(self) -> None:
        self.closed = True


def failing(error: Exception) -> Callable[[], PieceDelivery]:
    def make() -> PieceDelivery:
        raise error

    return make


def test_leases_alone_need_no_port_and_do_nothing() -> None:
    slot = DeliverySlot({PIGEONS: failing(AssertionError("made"))})
    assert slot.select(SCHEDULED) == 0
    slot.current.reader_moved(Digest.of(b"x"), 0)
    slot.current.give_way(Digest.of(b"x"))
    assert slot.sent_bytes == 0


def test_a_delivery_is_made_once_for_all_sessions_of_its_transport() -> None:
    made: list[Pigeons] = []

    def make() -> Pigeons:
        made.append(Pigeons())
        return made[-1]

    slot = DeliverySlot({PIGEONS: make})
    assert [slot.select(PIGEONS), slot.select(PIGEONS)] == [7000, 7000]
    assert [delivery.sessions for delivery in made] == [2]
    assert slot.select(SCHEDULED) == 0
    assert made[0].closed
    assert slot.sent_bytes == 7, "what was sent stays counted"


@pytest.mark.parametrize("error", [ImportError("No module named 'pigeon'"), ConfigError("pigeon address: in use")])
def test_a_node_that_cannot_says_why_and_has_no_port(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    slot = DeliverySlot({PIGEONS: failing(error)})
    with caplog.at_level(logging.ERROR):
        assert slot.select(PIGEONS) == 0
    (line,) = caplog.messages
    assert line.startswith("pigeons_unavailable: ")
    assert str(error) in line


def test_a_transport_that_this_node_has_never_heard_of_is_none() -> None:
    assert DeliverySlot().select("smoke signals") == 0
