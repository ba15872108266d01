"""Sessions of a real supernode with datagrams: both ways, without them, and with strangers at the port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from peer.metrics import Metrics
from peer.node.session import Session
from proto.wire.messages import PROTOCOL_VERSION, Challenge, Hello, Message, Ping, Refused, Welcome
from proto.wire.tickets import Identity, sign_hello
from tests.support.fake_origin import fake_origin
from tests.support.metrics import parse
from tests.unit.supernode.harness import BarePeer, running_supernode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from supernode.app import Supernode

PING_INTERVAL = "200ms"
ON = ("--datagrams", "true")


class Owner:
    """A peer that only keeps its session."""

    def __init__(self) -> None:
        self.identity = Identity.generate()
        self.metrics = Metrics()
        self.meter = self.metrics.datagrams
        self.received_messages: list[Message] = []
        self.losses: list[str] = []

    def hello(self, challenge: Challenge) -> Hello:
        proof = sign_hello(self.identity, challenge.nonce, challenge.supernode)
        return Hello(PROTOCOL_VERSION, self.identity.peer, "boot", proof, ":7", "", 4, 4, 0, 0, "test", datagrams=True)

    def opened(self, challenge: Challenge) -> None:
        pass

    def received(self, message: Message) -> None:
        self.received_messages.append(message)

    def lost(self, reason: str) -> None:
        self.losses.append(reason)


class Relay:
    """A UDP port in front of another, which counts and, on demand, loses what passes."""

    def __init__(self, target: int) -> None:
        self.inside = self._open()
        self.inside.connect(("127.0.0.1", target))
        self.outside = self._open()
        self.number: int = self.outside.getsockname()[1]
        self.up: list[bytes] = []
        self.down: list[bytes] = []
        self.loses = False
        self._peer: tuple[str, int] = ("", 0)
        loop = asyncio.get_running_loop()
        loop.add_reader(self.outside.fileno(), self._from_peer)
        loop.add_reader(self.inside.fileno(), self._from_supernode)

    @staticmethod
    def _open() -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setblocking(False)
        opened.bind(("127.0.0.1", 0))
        return opened

    def _from_peer(self) -> None:
        datagram, self._peer = self.outside.recvfrom(2048)
        self.up.append(datagram)
        if not self.loses:
            self.inside.send(datagram)

    def _from_supernode(self) -> None:
        datagram = self.inside.recv(2048)
        self.down.append(datagram)
        if not self.loses:
            self.outside.sendto(datagram, self._peer)

    def close(self) -> None:
        for end in (self.inside, self.outside):
            asyncio.get_running_loop().remove_reader(end.fileno())
            end.close()


@contextlib.asynccontextmanager
async def relayed(supernode: Supernode, *, loses: bool = False) -> AsyncIterator[Relay]:
    """Peers are told of the relay's port in place of the supernode's."""
    relay = Relay(supernode._port.number)
    relay.loses = loses
    supernode._port.number = relay.number
    try:
        yield relay
    finally:
        relay.close()


@contextlib.asynccontextmanager
async def session(supernode: Supernode, owner: Owner) -> AsyncIterator[Session]:
    opened = Session(f"http://{supernode.api_address}", owner, jitter=lambda: 0.01)
    task = asyncio.create_task(opened.run())
    try:
        await until(lambda: opened.is_open)
        yield opened
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(is_true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if is_true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited for 20 s")


@pytest.mark.asyncio
async def test_signs_of_life_go_by_datagram(tmp_path: Path) -> None:
    owner = Owner()
    with fake_origin() as origin:
        async with (
            running_supernode(tmp_path, origin, *ON, "--ping-interval", PING_INTERVAL) as supernode,
            relayed(supernode) as relay,
            session(supernode, owner) as opened,
        ):
            await until(lambda: min(len(relay.down), len(relay.up)) >= 10)
            assert opened.is_open
            for metrics in (supernode.metrics, owner.metrics):
                counted = parse(metrics.text().decode())
                assert counted.value("layercast_datagrams_total", event="sent") >= 10
                assert counted.value("layercast_datagrams_total", event="copied") == 0
                assert counted.value("layercast_datagram_round_trip_seconds_count") >= 1
            assert owner.losses == []


@pytest.mark.asyncio
async def test_a_session_goes_on_by_the_websocket_when_datagrams_no_longer_get_through(tmp_path: Path) -> None:
    owner = Owner()
    with fake_origin() as origin:
        async with (
            running_supernode(tmp_path, origin, *ON, "--ping-interval", "2s") as supernode,
            relayed(supernode) as relay,
            session(supernode, owner) as opened,
        ):
            await until(lambda: len(relay.down) >= 1 and len(relay.up) >= 2)
            relay.loses = True
            before = len(relay.up)
            for number in range(1000, 1005):
                opened.send(Ping(number))
                await asyncio.sleep(0)
            await until(lambda: len(relay.up) > before)
            await asyncio.sleep(8.0)
            assert opened.is_open
            assert owner.losses == []


@pytest.mark.asyncio
async def test_without_a_way_for_datagrams_nothing_goes_by_them(tmp_path: Path) -> None:
    owner = Owner()
    with fake_origin() as origin:
        async with (
            running_supernode(tmp_path, origin, *ON, "--ping-interval", PING_INTERVAL) as supernode,
            relayed(supernode, loses=True) as relay,
            session(supernode, owner) as opened,
        ):
            await asyncio.sleep(4.0)
            assert opened.is_open
            assert owner.losses == []
            assert len(relay.up) == 3, "three probes and no more"
            assert relay.down == []


@pytest.mark.asyncio
async def test_the_port_answers_no_stranger(tmp_path: Path) -> None:
    owner = Owner()
    with fake_origin() as origin:
        async with (
            running_supernode(tmp_path, origin, *ON) as supernode,
            relayed(supernode) as relay,
            session(supernode, owner) as opened,
        ):
            await until(lambda: len(relay.up) >= 2)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.setblocking(False)
                stranger.connect(("127.0.0.1", relay.inside.getpeername()[1]))
                genuine = relay.up[0]
                for datagram in (b"", b"x" * 17, bytes(1400), genuine[:-1] + bytes([genuine[-1] ^ 1])):
                    stranger.send(datagram)
                await asyncio.sleep(0.2)
                with pytest.raises(BlockingIOError):
                    stranger.recv(2048)
            assert opened.is_open
            assert owner.losses == []


@pytest.mark.asyncio
async def test_who_does_not_ask_for_datagrams_is_told_of_none(tmp_path: Path) -> None:
    with fake_origin() as origin:
        async with running_supernode(tmp_path, origin, *ON) as supernode, BarePeer.connected(supernode) as peer:
            (welcome,) = peer.of(Welcome)
            assert (welcome.datagram_port, welcome.session, welcome.key) == (0, 0, b"")
            assert supernode._port.number == int(supernode.api_address.rpartition(":")[2])
            assert peer.of(Refused) == []


@pytest.mark.asyncio
async def test_without_the_setting_there_is_no_such_port(tmp_path: Path) -> None:
    with fake_origin() as origin:
        async with running_supernode(tmp_path, origin) as supernode:
            assert supernode._port.number == 0


def test_the_key_is_in_no_repr() -> None:
    assert "secret" not in repr(Welcome(PROTOCOL_VERSION, 2.0, "x", 1, 1, b"secret"))
