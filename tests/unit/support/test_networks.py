"""Test networks keep clear of the addresses that the host has itself."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from tests.support import networks

if TYPE_CHECKING:
    import pytest

FIRST, SECOND = (ipaddress.IPv4Network(block) for block in ("192.0.2.0/24", "198.51.100.0/24"))
SHOWN = "1: lo    inet 127.0.0.1/8 scope host lo\n4: eth0    inet 192.0.2.2/24 brd 192.0.2.255 scope global eth0\n"


def test_a_block_in_which_the_host_has_an_address_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "ip", lambda *_: SHOWN)
    assert networks.free_of([FIRST, SECOND]) == SECOND
