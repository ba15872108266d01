"""A whole peer in this process: it starts, is ready without a supernode, serves, reloads and ends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import shutil
import socket
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.app import Peer
from peer.cli.main import main
from peer.config import load
from peer.transport.wire import pieces_path
from proto.errors import ConfigError
from proto.ids import Digest
from proto.wire.tickets import Identity
from tests.support.fake_origin import FakeOrigin, Fault, fake_origin
from tests.unit.peer.node.scripted_supernode import scripted_supernode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from peer.config import PeerConfig

CONTENT = random.Random(5).randbytes(3_000_000)


@pytest.fixture
def origin() -> Iterator[FakeOrigin]:
    with fake_origin() as running:
        running.add(CONTENT)
        yield running


def config_of(folder: Path, *more: str) -> PeerConfig:
    flags = ["--listen", "127.0.0.1:0", "--upload-listen", "127.0.0.1:0", "--data-dir", str(folder)]
    return load([*flags, *more], {})


@contextlib.asynccontextmanager
async def running(config: PeerConfig) -> AsyncIterator[Peer]:
    peer = Peer(config)
    try:
        peer.open()
        await peer.start()
        yield peer
    finally:
        assert await peer.stop()


async def get(address: str, path: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as client, client.get(f"http://{address}{path}") as response:
        return response.status, await response.read()


async def counted(peer: Peer, name: str, labels: dict[str, str]) -> None:
    """The whole content is counted there, a moment after the client has it."""
    sample = peer.metrics.registry.get_sample_value
    await asyncio.to_thread(wait_until, lambda: sample(name, labels) == len(CONTENT), f"{name} {labels}")


async def given(peer: Peer, times: int) -> float:
    """Clients were sent the content so many times. Returns the bytes of it that came from the store."""

    def sent(origin: str) -> float:
        return peer.metrics.registry.get_sample_value("layercast_client_bytes_total", {"from": origin}) or 0.0

    wanted_bytes = times * len(CONTENT)
    await asyncio.to_thread(wait_until, lambda: sent("store") + sent("swarm") == wanted_bytes, f"{wanted_bytes} bytes")
    return sent("store")


async def connects(peer: Peer, target: str, kind: str) -> float | None:
    """How many tunnels of this kind there were, after a CONNECT to the target that was followed."""
    reader, writer = await asyncio.open_connection(*peer.proxy_address.split(":"))
    with contextlib.closing(writer):
        writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        async with asyncio.timeout(WAIT_S):
            assert (await reader.readline()).split()[1] == b"200"
    return peer.metrics.registry.get_sample_value("layercast_connects_total", {"result": kind})


def blob_path(origin: FakeOrigin) -> str:
    return f"/v2/library/name/blobs/{next(iter(origin.blobs))}"


@pytest.mark.asyncio
async def test_a_node_without_a_supernode_is_ready_and_says_so(tmp_path: Path) -> None:
    async with running(config_of(tmp_path)) as peer:
        status, body = await get(peer.status_address, "/healthz")
        assert status == 200
        assert b"ready\nsupernode: none configured" in body
        status, body = await get(peer.status_address, "/metrics")
        assert b"layercast_supernode_connected 0.0" in body
        assert b"layercast_store_bytes 0.0" in body


@pytest.mark.asyncio
async def test_a_node_whose_supernode_is_away_is_ready_too(tmp_path: Path) -> None:
    async with running(config_of(tmp_path, "--supernode", "http://127.0.0.1:1", "--open")) as peer:
        assert b"supernode: not connected" in (await get(peer.status_address, "/healthz"))[1]


@pytest.mark.asyncio
async def test_a_connected_node_says_so_and_remembers_the_key(tmp_path: Path) -> None:
    async with (
        scripted_supernode() as supernode,
        running(config_of(tmp_path, "--supernode", supernode.url, "--open")) as peer,
    ):
        # Start-up waits for the first session, and no longer than a moment.
        async with asyncio.timeout(WAIT_S):
            while b"supernode: connected" not in (await get(peer.status_address, "/healthz"))[1]:
                pass
        assert (tmp_path / "supernode.key").read_bytes() == supernode.identity.peer


@pytest.mark.asyncio
async def test_status_may_listen_elsewhere(tmp_path: Path) -> None:
    async with running(config_of(tmp_path, "--status-listen", "127.0.0.1:0")) as peer:
        assert peer.status_address != peer.proxy_address
        assert (await get(peer.status_address, "/healthz"))[0] == 200
        assert (await get(peer.proxy_address, "/healthz"))[0] == 404


@pytest.mark.asyncio
async def test_a_client_s_blob_is_fetched_once_and_then_comes_from_the_store(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    async with running(config_of(tmp_path, "--default-upstream", origin.url)) as peer:
        from_store_bytes = []
        for times in (1, 2):
            status, body = await get(peer.proxy_address, blob_path(origin))
            assert (status, hashlib.sha256(body).digest()) == (200, hashlib.sha256(CONTENT).digest())
            from_store_bytes.append(await given(peer, times))
        assert len(origin.blob_requests()) == 1
        # The first may be complete before it is sent: then it comes from the store, too.
        assert from_store_bytes[1] - from_store_bytes[0] == len(CONTENT)
        await counted(peer, "layercast_bytes_total", {"source": "origin"})


@pytest.mark.asyncio
async def test_a_restarted_node_has_its_blobs(tmp_path: Path, origin: FakeOrigin) -> None:
    config = config_of(tmp_path, "--default-upstream", origin.url)
    async with running(config) as peer:
        await get(peer.proxy_address, blob_path(origin))
    async with running(config) as peer:
        assert (await get(peer.proxy_address, blob_path(origin)))[1] == CONTENT
    assert len(origin.blob_requests()) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("damaged", ["ca.key", "ca.pem"])
async def test_a_damaged_interception_key_stops_interception_alone_until_it_is_removed(
    tmp_path: Path, origin: FakeOrigin, caplog: pytest.LogCaptureFixture, damaged: str
) -> None:
    async with running(config_of(tmp_path)):
        pass
    (tmp_path / "interception" / damaged).write_text("-----BEGIN nonsense")
    caplog.clear()
    with socket.create_server(("127.0.0.1", 0)) as registry:
        registry.setblocking(False)
        host = f"127.0.0.1:{registry.getsockname()[1]}"
        config = config_of(tmp_path, "--default-upstream", origin.url, "--allow-upstream", host)
        async with running(config) as peer:
            told = [message for message in caplog.messages if message.startswith("interception_off")]
            assert len(told) == 1
            assert "interception is damaged" in told[0]
            assert "remove it" in told[0]
            assert (await get(peer.proxy_address, blob_path(origin)))[1] == CONTENT
            assert await connects(peer, host, "tunnelled") == 1
            async with asyncio.timeout(WAIT_S):
                (await asyncio.get_running_loop().sock_accept(registry))[0].close()
            shutil.rmtree(tmp_path / "interception")
            await peer.reload(config)
            assert await connects(peer, host, "intercepted") == 1


@pytest.mark.asyncio
async def test_a_reload_turns_sharing_off_and_on(tmp_path: Path, origin: FakeOrigin) -> None:
    async with scripted_supernode() as supernode:
        flags = ["--default-upstream", origin.url, "--supernode", supernode.url, "--open"]
        async with running(config_of(tmp_path, *flags)) as peer:
            sample = peer.metrics.registry.get_sample_value
            connected = partial(sample, "layercast_supernode_connected")
            await asyncio.to_thread(wait_until, lambda: connected() == 1, "the first session")
            await peer.reload(config_of(tmp_path, *flags, "--p2p", "false"))
            assert (await get(peer.proxy_address, blob_path(origin)))[1] == CONTENT
            await counted(peer, "layercast_client_bytes_total", {"from": "passthrough"})
            assert connected() == 0
            await peer.reload(config_of(tmp_path, *flags))
            await asyncio.to_thread(wait_until, lambda: connected() == 1, "the session")
            assert supernode.sessions == 2


@pytest.mark.asyncio
async def test_rates_are_those_of_the_hour_and_a_reload_changes_them(tmp_path: Path) -> None:
    # Whatever the hour is.
    day = ["--upload-rate", "1, 00:00-12:00 = 2MiB, 12:00-24:00 = 2MiB", "--origin-rate", "3MiB"]
    async with running(config_of(tmp_path, *day)) as peer:
        await asyncio.to_thread(wait_until, lambda: peer._rates == (2 << 20, 0, 3 << 20), "the rates")
        await peer.reload(config_of(tmp_path, "--download-rate", "1MiB"))
        assert peer._rates == (0, 1 << 20, 0)
        assert (peer._upload._limiter.rate_bytes_s, peer._download_limiter.rate_bytes_s) == (0, 1 << 20)


@pytest.mark.asyncio
async def test_a_drained_node_serves_its_clients_and_no_other_node_until_that_is_undone(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    async with scripted_supernode() as supernode:
        flags = ["--default-upstream", origin.url, "--supernode", supernode.url, "--open"]
        async with running(config_of(tmp_path, *flags)) as peer:
            sample = peer.metrics.registry.get_sample_value
            connected = partial(sample, "layercast_supernode_connected")
            await asyncio.to_thread(wait_until, lambda: connected() == 1, "the session")
            assert await asyncio.to_thread(main, ["drain", "--data-dir", str(tmp_path)]) == 0
            assert connected() == 0
            assert json.loads((await get(peer.proxy_address, "/v1/status"))[1])["p2p"] is False
            assert (await get(peer.proxy_address, blob_path(origin)))[1] == CONTENT
            assert await asyncio.to_thread(main, ["drain", "--undo", "--data-dir", str(tmp_path)]) == 0
            await asyncio.to_thread(wait_until, lambda: connected() == 1, "the session")


@pytest.mark.asyncio
async def test_a_node_that_shares_nothing_by_its_settings_is_not_made_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(config_of(tmp_path, "--p2p", "false")) as peer:
        assert await asyncio.to_thread(main, ["drain", "--undo", "--data-dir", str(tmp_path)]) == 0
        assert "p2p = false is its setting" in capsys.readouterr().out
        assert json.loads((await get(peer.proxy_address, "/v1/status"))[1])["p2p"] is False


@pytest.mark.asyncio
async def test_a_stop_cuts_off_what_hangs(tmp_path: Path, origin: FakeOrigin) -> None:
    origin.faults = [Fault(), *[Fault(stall_after_bytes=100_000)] * 50]
    async with running(config_of(tmp_path, "--default-upstream", origin.url)) as peer:
        pull = asyncio.create_task(get(peer.proxy_address, blob_path(origin)))
        await asyncio.to_thread(wait_until, lambda: origin.stalled > 0, "the stall")
    # Nothing of what it waited for has ended by itself.
    assert origin.stalled > 0
    with pytest.raises(aiohttp.ClientError):
        await pull


@pytest.mark.asyncio
async def test_an_address_in_use_is_one_line_that_names_the_flag(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for number, flag in enumerate(("--listen", "--upload-listen", "--status-listen")):
            peer = Peer(config_of(tmp_path / str(number), flag, address))
            with pytest.raises(ConfigError, match=f"{flag} {address}"):
                peer.open()
            assert await peer.stop()


@pytest.mark.asyncio
async def test_one_data_folder_is_one_process_s(tmp_path: Path) -> None:
    async with running(config_of(tmp_path)):
        second = Peer(config_of(tmp_path))
        with pytest.raises(ConfigError, match="in use by another process"):
            second.open()
        assert await second.stop()


@pytest.mark.asyncio
async def test_pieces_are_asked_for_later_until_it_is_known_which_are_private(tmp_path: Path) -> None:
    (tmp_path / "supernode.key").write_bytes(Identity.generate().peer)
    peer = Peer(config_of(tmp_path))
    path = pieces_path(Digest.of(CONTENT), 0, 0)
    try:
        peer.open()
        assert (await get(peer.upload_address, path))[0] == 503
        await peer.start()
        # Now for want of a ticket.
        assert (await get(peer.upload_address, path))[0] == 403
    finally:
        assert await peer.stop()
