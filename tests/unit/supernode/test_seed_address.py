"""SeedAddress: what peers are told of where the seed serves pieces."""

from __future__ import annotations

import socket

import pytest

from proto.config.values import HostPort
from supernode.seed_address import SeedAddress


def test_it_is_where_the_peer_reached_us_with_the_port_of_the_uploads() -> None:
    address = SeedAddress(None, "0.0.0.0:65003")
    address.look_up()
    assert address.seen_at("10.0.0.9") == "10.0.0.9:65003"
    assert SeedAddress(None, "[::]:65003").seen_at("::ffff:10.0.0.9") == "10.0.0.9:65003"


def test_a_bound_address_is_told_as_it_is() -> None:
    assert SeedAddress(None, "10.1.0.1:65003").seen_at("10.0.0.9") == "10.1.0.1:65003"


def test_an_advertised_name_is_told_as_the_address_it_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[str] = ["10.3.0.1", "10.3.0.2"]

    def lookup(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if not answers:
            raise socket.gaierror("no answer")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0), port))]

    monkeypatch.setattr("proto.runtime.resources.socket.getaddrinfo", lookup)
    address = SeedAddress(HostPort("seed.example.com", 65003), "0.0.0.0:1")
    assert address.is_name
    for expected in ("10.3.0.1:65003", "10.3.0.2:65003", "10.3.0.2:65003"):
        address.look_up()
        assert address.seen_at("10.0.0.9") == expected


@pytest.mark.parametrize("host", ["a..b", "no-such-name.invalid"])
def test_a_name_that_stands_for_nothing_does_no_harm(host: str) -> None:
    address = SeedAddress(HostPort(host, 65003), "0.0.0.0:65003")
    address.look_up()
    assert address.seen_at("10.0.0.9") == "10.0.0.9:65003"


def test_a_number_is_no_name() -> None:
    assert not SeedAddress(HostPort("10.3.0.1", 65003), "0.0.0.0:1").is_name
    assert not SeedAddress(None, "0.0.0.0:1").is_name
