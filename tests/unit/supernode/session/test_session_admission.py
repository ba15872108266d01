"""Who gets a session, and who loses it: keys that two nodes have, first frames, and stalls of our own."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING

import pytest

from proto.wire import codec
from proto.wire.handshake import Clock, Ping, Pong, Refused, Welcome
from proto.wire.tickets import Identity
from tests.unit.supernode.harness import BarePeer, running_supernode

if TYPE_CHECKING:
    from pathlib import Path

    from proto.wire.messages import Message
    from tests.support.fake_origin import FakeOrigin

pytestmark = pytest.mark.asyncio


async def test_of_two_nodes_with_one_key_the_second_is_told_what_to_do(tmp_path: Path, origin: FakeOrigin) -> None:
    identity = Identity.generate()
    async with running_supernode(tmp_path, origin) as supernode, BarePeer.connected(supernode, identity) as first:
        copy = BarePeer(identity)
        copy.upload_address = ":8"
        async with copy.link(supernode, greet=False):
            await copy.send(copy.hello())
            refused = await copy.expect(Refused)
        assert refused.code == "identity"
        assert "at 127.0.0.1:7, is connected with this node's key: a copied disk?" in refused.message
        assert refused.message.endswith("give it a new join token")
        await first.send(Ping(1))
        await first.expect(Pong)


async def test_a_node_that_is_back_replaces_its_own_older_session(tmp_path: Path, origin: FakeOrigin) -> None:
    identity = Identity.generate()
    async with (
        running_supernode(tmp_path, origin) as supernode,
        BarePeer.connected(supernode, identity) as older,
        BarePeer.connected(supernode, identity),
    ):
        await older.ended()


async def test_a_machine_that_restarted_has_another_boot_id_and_waits_for_its_older_session_to_end(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    identity = Identity.generate()
    async with running_supernode(tmp_path, origin) as supernode:
        restarted = BarePeer(identity)
        async with BarePeer.connected(supernode, identity), restarted.link(supernode, greet=False):
            await restarted.send(dataclasses.replace(restarted.hello(), boot_id="another"))
            assert (await restarted.expect(Refused)).code == "identity"
        async with BarePeer.connected(supernode, identity):
            pass


async def test_a_first_frame_larger_than_any_hello_is_not_decoded(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_supernode(tmp_path, origin) as supernode:
        stranger = BarePeer()
        async with stranger.link(supernode, greet=False):
            decode = codec.decode

            def decode_small(frame: bytes) -> list[Message]:
                assert len(frame) < 4096
                return decode(frame)

            monkeypatch.setattr(codec, "decode", decode_small)
            await stranger.socket.send_bytes(b"\xdc\x40\x00" + b"\x80" * 16_384)
            assert (await stranger.expect(Refused)).message == "frame of 16387 bytes: at most 4096 here"


async def test_welcome_comes_with_the_supernode_s_time(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path, origin) as supernode:
        peer = BarePeer()
        async with peer.link(supernode, greet=False):
            before_ms = time.time() * 1000 - 1
            await peer.send(peer.hello())
            await peer.expect(Welcome)
            assert before_ms <= (await peer.expect(Clock)).unix_ms <= time.time() * 1000


async def test_the_supernode_s_own_stall_is_not_its_peers_silence(tmp_path: Path, origin: FakeOrigin) -> None:
    flags = ["--ping-interval", "200ms"]
    async with (
        running_supernode(tmp_path, origin, *flags, patient=False) as supernode,
        BarePeer.connected(supernode) as peer,
    ):
        # The loop of both stands still, for far longer than a peer may be silent.
        time.sleep(1.5)  # noqa: ASYNC251
        # It looks at its clock before anybody can say a word.
        await asyncio.sleep(0.1)
        await peer.send(Ping(1))
        await peer.expect(Pong)
