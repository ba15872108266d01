"""Members, strangers and those between, with real programs: who gets in and who does not; pulls never fail for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import sys
from typing import TYPE_CHECKING

import aiohttp
import pytest

from benchmarks.cluster.processes import WAIT_S, ManagedProcess, run, wait_until
from benchmarks.cluster.programs import clean_environment
from benchmarks.cluster.services import LOOPBACK, Cluster, Service, Supernode, script
from peer.membership.dialer import MemberDialer
from peer.membership.refusals import NotAdmitted
from proto.wire.handshake import Refused
from proto.wire.tickets import Identity
from supernode.membership.authorities import AuthorityFolder
from supernode.membership.commands import create_token
from tests.support.counts import assert_becomes, assert_received_from_the_swarm
from tests.support.pullers import pull
from tests.unit.supernode.harness import At, BarePeer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.cluster.counting_proxy import CountingProxy
    from benchmarks.cluster.services import Peer
    from proto.wire.join import JoinToken

pytestmark = pytest.mark.client("docker-registry")

SIZE_BYTES = 700_000
HOUR_S = 3600.0
AT_ONCE = 200
SILENT = 600
# Of the attack: nothing but empty maps, in frames as large as any may be.
EMPTY_MAPS = b"\xdc\x00\xfa" + (b"\xdc\x40\x00" + b"\x80" * 16_384) * 250


@pytest.fixture
def supernode(tmp_path: Path) -> Iterator[Supernode]:
    """One without peers and without an origin."""
    service = Supernode(tmp_path / "supernode", LOOPBACK, ["--store-free-floor", "0"])
    try:
        service.start()
        yield service
    finally:
        service.close()


def operator(supernode: Service, *words: str) -> str:
    """What an operator types at the supernode's machine."""
    return run(
        [script("layercast-supernode"), *words, "--data-dir", supernode.data_dir], env=clean_environment()
    ).stdout


def member_id(peer: Peer) -> str:
    return Identity.load_or_create(peer.data_dir / "identity.key").peer.hex()


def connected(peer: Peer) -> float:
    return peer.metrics().value("layercast_supernode_connected")


def assert_served_without_the_swarm(peer: Peer, digest: str) -> None:
    """Its client gets the blob all the same."""
    assert pull(peer.proxy, digest).complete
    assert peer.metrics().value("layercast_supernode_connected") == 0


async def join(folder: Path, supernode: Supernode, token: JoinToken) -> int:
    """The node with this folder. The status that its certificate gets it. Raises NotAdmitted."""
    dialer = MemberDialer(supernode.url, folder, Identity.load_or_create(folder / "identity.key"), token)
    async with aiohttp.ClientSession() as client:
        dial = await dialer.dial(client)
        async with client.get(f"{dial.url}/v1/nodes", ssl=dial.tls, server_hostname=dial.server_name) as answer:
            return answer.status


@pytest.mark.asyncio
async def test_two_hundred_join_at_once_by_a_token_for_two_hundred(tmp_path: Path, supernode: Supernode) -> None:
    token = create_token(AuthorityFolder(supernode.data_dir), HOUR_S, AT_ONCE)

    folders = [tmp_path / str(number) for number in range(AT_ONCE + 1)]
    for folder in folders:
        folder.mkdir()

    # All begin at once. A busy machine lets handshakes take longer than a stranger's five seconds: of those that
    # failed some at a time ask again. Where the answer came too late, the same node takes no second use.
    again = asyncio.Semaphore(8)

    async def until_joined(number: int) -> int:
        failed = (aiohttp.ClientError, OSError, TimeoutError)
        with contextlib.suppress(*failed):
            return await join(folders[number], supernode, token)
        async with again:
            for _ in range(20):
                with contextlib.suppress(*failed):
                    return await join(folders[number], supernode, token)
        raise AssertionError("it never joined")

    statuses = await asyncio.gather(*(until_joined(number) for number in range(AT_ONCE)))
    assert statuses == [200] * AT_ONCE
    with pytest.raises(NotAdmitted, match="is used up: make a new one"):
        await join(folders[AT_ONCE], supernode, token)


def test_a_refused_node_serves_from_the_origin_says_why_and_joins_when_it_gets_a_good_token(
    cluster: Cluster, push: Callable[[int], str]
) -> None:
    peer = cluster.prepare_peer()
    file = cluster.supernode.join_file()
    good = file.read_text()
    file.write_text(create_token(AuthorityFolder(cluster.supernode.data_dir), -HOUR_S, None).text)
    peer.start()
    # On a busy machine the first attempts may fail for other reasons.
    peer.process.wait_for_line(
        "supernode_lost .*is expired since 1 h: make a new one with `layercast-supernode token create`"
    )
    assert_served_without_the_swarm(peer, push(SIZE_BYTES))
    file.write_text(good)
    assert_becomes(lambda: connected(peer), 1.0)
    assert all(
        good.split(".")[2] not in line for service in (peer, cluster.supernode) for line in service.process.log()
    )


def test_a_token_of_another_supernode_is_one_line(cluster: Cluster, tmp_path: Path, push: Callable[[int], str]) -> None:
    peer = cluster.prepare_peer()
    cluster.supernode.join_file().write_text(create_token(AuthorityFolder(tmp_path / "other"), HOUR_S, None).text)
    peer.start()
    peer.process.wait_for_line("supernode_lost .*is not the one that the join token names")
    assert_served_without_the_swarm(peer, push(SIZE_BYTES))


def test_a_token_of_the_command_line_is_seen_by_nobody(cluster: Cluster) -> None:
    peer = cluster.prepare_peer()
    token = cluster.supernode.join_file().read_text()
    where = peer.extra.index("--join-file")
    peer.extra[where : where + 2] = ["--join", token]
    peer.start()
    assert_becomes(lambda: connected(peer), 1.0)
    with open(f"/proc/{peer.process.pid}/cmdline", "rb") as words:
        assert token.split(".")[2].encode() not in words.read()


def test_a_revoked_node_is_out_within_a_moment_and_its_clients_are_served(
    cluster: Cluster, push: Callable[[int], str]
) -> None:
    peers = cluster.add_peers([None] * 2)
    cluster.wait_for_sessions(2)
    operator(cluster.supernode, "node", "revoke", member_id(peers[0])[:12])
    peers[0].process.wait_for_line(
        "supernode_lost .*was revoked: to admit this machine again, stop its peer, delete identity.key"
    )
    assert_becomes(lambda: [connected(peer) for peer in peers], [0.0, 1.0])
    assert_served_without_the_swarm(peers[0], push(SIZE_BYTES))
    # Its certificate is good for nothing any more either.
    peers[0].stop()
    peers[0].start()
    peers[0].process.wait_for_line(r"supernode_lost .*refused \(403\)")


def test_of_two_nodes_with_one_key_the_second_is_told_what_to_do(cluster: Cluster, push: Callable[[int], str]) -> None:
    first = cluster.add_peer()
    cluster.wait_for_sessions(1)
    copy = cluster.prepare_peer()
    copy.data_dir.mkdir()
    for name in ("identity.key", "membership.json"):
        shutil.copy(first.data_dir / name, copy.data_dir / name)
    copy.start()
    copy.process.wait_for_line(
        r"supernode_lost .*is connected with this node's key: a copied disk\? Stop this peer, delete identity.key"
    )
    assert_served_without_the_swarm(copy, push(SIZE_BYTES))
    assert connected(first) == 1.0


def test_nodes_renew_by_themselves_after_a_rotation_and_outlive_the_authority_before(
    cluster: Cluster, push: Callable[[int], str]
) -> None:
    peer = cluster.add_peer()
    cluster.wait_for_sessions(1)
    file = peer.data_dir / "membership.json"
    before = file.read_bytes()
    operator(cluster.supernode, "ca", "rotate", "--overlap", "1h")
    wait_until(lambda: file.read_bytes() != before, "a new certificate")
    # With the authority before forgotten, what was renewed is still good.
    index = cluster.supernode.data_dir / "ca" / "authorities.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "older_until_unix_s": 1.0}))
    cluster.supernode.stop()
    cluster.supernode.start()
    assert_becomes(lambda: connected(peer), 1.0)
    # A rotation for a stolen key puts everybody out, in one line, until there is a new token.
    operator(cluster.supernode, "ca", "rotate", "--overlap", "0")
    cluster.supernode.stop()
    cluster.supernode.start()
    peer.process.wait_for_line("not the supernode that this node joined")
    assert_served_without_the_swarm(peer, push(SIZE_BYTES))


def test_a_supernode_of_another_authority_at_the_same_address_is_refused(
    cluster: Cluster, push: Callable[[int], str]
) -> None:
    peer = cluster.add_peer()
    cluster.wait_for_sessions(1)
    cluster.supernode.kill()
    shutil.rmtree(cluster.supernode.data_dir)
    cluster.supernode.start()
    peer.process.wait_for_line("not the supernode that this node joined")
    assert_served_without_the_swarm(peer, push(SIZE_BYTES))


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_supernode_s_clock_two_hours_off_is_named_and_pieces_still_travel(
    tmp_path: Path, origin: CountingProxy, push: Callable[[int], str], hours: int
) -> None:
    digest = push(SIZE_BYTES)
    with Cluster(tmp_path, origin.address) as cluster:
        cluster.supernode.stop()
        late = f"import time; true = time.time; time.time = lambda: true() + {hours} * 3600"
        code = f"{late}; import sys; from supernode.__main__ import main; main()"
        service = cluster.supernode
        argv: list[str | Path] = [
            sys.executable,
            "-c",
            code,
            *service.listen_flags(),
            "--data-dir",
            service.data_dir,
            *service.extra,
        ]
        with ManagedProcess(argv, name="supernode", env=clean_environment(HOME=str(tmp_path))) as process:
            process.wait_ready()
            peers = cluster.add_peers([None] * 2)
            for peer in peers:
                line = peer.process.wait_for_line("clock_differs")
                side = "behind" if hours > 0 else "ahead of"
                assert f"this machine's clock is 2.0 h {side} the supernode's" in line.string
                assert pull(peer.proxy, digest).complete
                assert_received_from_the_swarm(peer, SIZE_BYTES)


def test_silent_strangers_are_closed_and_cost_the_members_nothing(cluster: Cluster) -> None:
    peer = cluster.add_peer()
    cluster.wait_for_sessions(1)
    host, _, port = cluster.supernode.ready["api"].rpartition(":")
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(socket.create_connection((host, int(port)), WAIT_S)) for _ in range(SILENT)]
        for stranger in strangers[::2]:
            # As far as a TLS hello's first bytes.
            stranger.sendall(b"\x16\x03\x01\x02")
        for stranger in strangers:
            stranger.settimeout(WAIT_S)
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(1) == b""
    assert connected(peer) == 1.0
    assert not [line for line in peer.process.log() if "supernode_lost" in line]


@pytest.mark.asyncio
async def test_strangers_frames_before_hello_cost_the_others_no_session(tmp_path: Path, origin: CountingProxy) -> None:
    with Cluster(tmp_path, origin.address, supernode_flags=["--open"]) as cluster:
        peer = cluster.add_peer()
        cluster.wait_for_sessions(1)
        at = At(cluster.supernode.ready["api"])

        async def attack() -> None:
            stranger = BarePeer()
            async with stranger.link(at, greet=False):
                await stranger.socket.send_bytes(EMPTY_MAPS)
                # For the frame, or since all of it took longer than a Hello may.
                assert (await stranger.expect(Refused)).code in ("frame", "identity")

        await asyncio.gather(*(attack() for _ in range(24)))
        assert connected(peer) == 1.0
        assert not [line for line in peer.process.log() if "supernode_lost" in line]


@pytest.mark.asyncio
async def test_a_stranger_gets_no_session_and_sends_no_frame(cluster: Cluster) -> None:
    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(f"ws://{cluster.supernode.ready['api']}/v1/session")
    assert refused.value.status == 403
