"""What the web console costs the supernode: its real handlers, over a cluster that is made up.

Nothing is transferred. Nodes, swarms and the scheduler are the product's own, told by a seed how far each node is; what
they are told is not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web

from proto.config.values import Price
from proto.errors import LayercastError
from proto.ids import Digest, PeerId, peer_name
from proto.pieces import PieceLayout, indices
from proto.runtime.http_api import add_routes
from proto.runtime.http_server import QuietRunner
from proto.wire.messages import Stored, StoreReport
from proto.wire.tickets import Identity
from supernode.api.access import Access
from supernode.api.console import events, page, snapshot
from supernode.api.story import story
from supernode.console import pages
from supernode.console.feed import INTERVAL_S, Feed
from supernode.console.logins import Logins
from supernode.console.parts import Console
from supernode.console.snapshot import Snapshots, View
from supernode.control.node_registry import NodeRegistry
from supernode.control.peer_session import PeerInfo, PeerLease, PeerSession
from supernode.control.seed_reach import SeedReach
from supernode.control.swarm_registry import SwarmRegistry
from supernode.event_log.format import SchedulerParameters
from supernode.scheduler import contract
from supernode.signer import IdentitySigner

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.peer_session import Channel
    from supernode.control.ports import ControlPorts
    from supernode.control.swarm_member import SwarmMember

HELP: Final = "what the web console costs the supernode, by its real handlers over a cluster that is made up"

_PIECE_BYTES: Final = 1 << 20
_PIECES: Final = 256
_LINK_BYTES_S: Final = 5_000_000.0
_BEGAN_S: Final = 40.0


class MadeUpCluster:
    """So many nodes in racks of 20, each in every swarm; step() brings each of them some pieces of each blob."""

    def __init__(self, nodes: int, swarms: int, *, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self.nodes = NodeRegistry()
        self.swarms = SwarmRegistry(IdentitySigner(Identity.generate()))
        self.scheduler = SchedulerParameters(seed=seed, epoch=1).build()
        self._now_s = time.monotonic() - _BEGAN_S
        for number in range(1, nodes + 1):
            self._join(number)
        for number in range(1, swarms + 1):
            self._open(number, part=number / swarms)
        if nodes:
            sick = next(iter(self.nodes))
            self.nodes.quarantine(sick.info.peer, "served piece 17 corrupt to the supernode", time.monotonic())

    def view(self) -> View:
        """What the console is shown."""
        return View(
            self.nodes,
            self.swarms,
            # Of the ports it needs none to say that all is well.
            SeedReach(cast("ControlPorts", None), self.swarms, self.nodes),
            self.scheduler.copies,
            self.scheduler.link_speeds,
            lambda: _LINK_BYTES_S,
            _upstreams,
            lambda: "",
            7,
            time.monotonic() - 3 * 86400,
            "tokens",
            Price(0.09, "USD"),
            _jobs,
            _events,
        )

    def _join(self, number: int) -> None:
        rack = (number - 1) // 20
        info = PeerInfo(
            PeerId(hashlib.sha256(b"%d" % number).digest()), "boot", f"10.0.{rack}.{number % 20 + 10}:65002",
            f"eu/eu-{rack % 3 + 1}/rack{rack + 1}", 4, 4, _LINK_BYTES_S, _LINK_BYTES_S, "layercast/1.0.0",
        )  # fmt: skip
        session = PeerSession(number, info, cast("Channel", None), "10.0.0.1:65003")
        session.store = StoreReport(self._random.randrange(50 << 30), 50 << 30)
        self.nodes.add(session)
        self._tell(contract.PeerJoined(number, info.zone, 4, 4, _LINK_BYTES_S, _LINK_BYTES_S))

    def _open(self, number: int, part: float) -> None:
        digest = Digest.parse(f"sha256:{hashlib.sha256(b'blob %d' % number).hexdigest()}")
        swarm = self.swarms.open(digest, PieceLayout(_PIECES * _PIECE_BYTES, _PIECE_BYTES))
        swarm.upstream = ("docker.io", "quay.io", "registry.example.com")[number % 3]
        swarm.seed_held = swarm.layout.full_mask
        for piece in range(_PIECES):
            swarm.traffic.origin += swarm.layout.length(piece)
        self.swarms.traffic.origin += swarm.traffic.origin
        self._tell(contract.SwarmOpened(swarm.number, _PIECES * _PIECE_BYTES, _PIECE_BYTES, swarm.seed_held))
        for session in self.nodes:
            member = swarm.join(session.node, peer_name(session.info.peer), held=0, wanted=True)
            session.announced[digest] = swarm.number
            session.wanting.add(swarm.number)
            # Not wanted as far as the scheduler knows: nothing is to be leased.
            self._tell(contract.PeerAnnounced(swarm.number, session.node, 0, wanted=False))
            swarm.wanted_changed(self._now_s)
            self._bring(swarm, session, member, self._some(part))

    def step(self) -> None:
        """A thirtieth of a blob comes to a tenth of the nodes that wait for it."""
        for swarm in self.swarms:
            for session in self._random.sample(list(self.nodes), max(1, len(self.nodes) // 20)):
                member = swarm.members[session.node]
                if member.wanted:
                    self._bring(swarm, session, member, self._some(1 / 30))

    def _some(self, part: float) -> int:
        """A mask of about this part of the pieces, at most all but a few."""
        return sum(1 << piece for piece in range(_PIECES) if self._random.random() < min(part, 0.97))

    def _bring(self, swarm: OpenSwarm, session: PeerSession, member: SwarmMember, pieces: int) -> None:
        for piece in indices(pieces & ~member.held):
            lease = PeerLease(1, swarm.number, piece, 0 if self._random.random() < 0.02 else 1)
            self.swarms.count_stored(swarm, member, Stored(1, swarm.number, piece, 1), lease)
            member.held |= 1 << piece
        self._tell(contract.PeerAnnounced(swarm.number, session.node, member.held, wanted=False))

    def _tell(self, event: contract.Event) -> None:
        self.scheduler.handle(event, self._now_s)


def _upstreams() -> dict[str, dict[str, Any]]:
    calm = {"waiting": {"check": 0, "fetch": 0}, "failures": {"denied": 3}, "last_failure": "", "retry_after_s": None}
    said = "origin quay.io: blob 4f53cda18c2b of org/app: quay.io answered 429"
    limited = {"waiting": {"fetch": 4}, "failures": {"rate_limited": 2, "unavailable": 1}, "retry_after_s": 17.0}
    return {
        "docker.io": {**calm, "last_failure_ago_s": None},
        "quay.io": {**limited, "last_failure": said, "last_failure_ago_s": 13.0},
        "registry.example.com": {**calm, "failures": {}, "last_failure_ago_s": None},
    }


def _jobs() -> list[dict[str, Any]]:
    ended = {"number": 6, "image": "docker.io/library/alpine:3.20", "to": "all", "state": "done", "attempts": 1}
    running = {"number": 7, "image": "quay.io/org/app:1.0", "to": "zone=eu/eu-1", "state": "running", "attempts": 2}
    return [
        {**ended, "error": "", "size_bytes": 8 << 20, "nodes_count": 200, "nodes_done": 200},
        {**running, "error": "quay.io answered 429", "size_bytes": 256 << 20, "nodes_count": 80, "nodes_done": 31},
    ]


def _events() -> dict[str, Any]:
    came = {"received": "2026-02-27T09:14:05+00:00"}
    dead = {"number": 41, "image": "quay.io/org/app:0.9", "state": "dead", "job": 5, "error": "quay.io answered 401"}
    working = {"number": 44, "image": "quay.io/org/app:1.0", "state": "working", "job": 7, "error": ""}
    rule = {"name": "apps", "repositories": ["quay.io/org/*"], "tags": ["*"], "platforms": ["linux/amd64"]}
    problems = {"quay.io/org/old": "quay.io answered 404"}
    last = {"ended": "2026-02-27T09:10:00+00:00", "repositories": 3, "found": 1, "problems": problems}
    return {
        "waiting": 0,
        "working": 1,
        "dead": 1,
        "events": [{**dead, **came}, {**working, **came}],
        "scan": {"running": False, "last": last},
        "rules": [{**rule, "to": "zone=eu/eu-1"}],
    }


class ConsoleServer:
    """The console of a made-up cluster at `url`, in a thread of its own. `interval_s` None: the product's."""

    def __init__(self, cluster: MadeUpCluster, *, interval_s: float = INTERVAL_S, moves: bool = True) -> None:
        self._cluster = cluster
        self._moves = moves
        self._interval_s = interval_s
        self._snapshots = Snapshots(cluster.view())
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        # Of the thread that serves: what the cluster's own doings take of it.
        self._aside_s = 0.0
        self.snapshots = self.snapshot_bytes = 0
        self.made_s = 0.0
        self.url = ""

    def __enter__(self) -> ConsoleServer:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()

    def cpu_s(self) -> float:
        """What the console has taken of a core."""
        return asyncio.run_coroutine_threadsafe(self._cpu_s(), self._loop).result()

    async def _cpu_s(self) -> float:
        # Between two turns of the loop: what the cluster does is counted aside when it is done.
        return time.thread_time() - self._aside_s

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    def _make(self) -> bytes:
        began_s = time.thread_time()
        made = self._snapshots.make()
        self.made_s += time.thread_time() - began_s
        self.snapshots += 1
        self.snapshot_bytes = len(made)
        return made

    async def _move(self) -> None:
        while self._moves:
            await asyncio.sleep(self._interval_s)
            began_s = time.thread_time()
            self._cluster.step()
            self._aside_s += time.thread_time() - began_s

    async def _serve(self) -> None:
        self._ending = asyncio.Event()
        moving = asyncio.create_task(self._move())
        feed, logins = Feed(self._make, interval_s=self._interval_s), Logins()
        app = web.Application(middlewares=[Access(None, logins).middleware(lambda request: None)])
        routes = (
            ("/v1/console", snapshot),
            ("/v1/console/events", events),
            ("/v1/story", story),
            ("/ui/", page),
            ("/ui/{file}", page),
        )
        add_routes(app, cast("Any", routes), _Parts(self._cluster, feed, logins))
        runner = QuietRunner(app, shutdown_timeout=0.5)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._started.set()
        await self._ending.wait()
        moving.cancel()
        feed.end()
        await runner.cleanup()


class _Parts:
    """Of a supernode's parts those that the console's handlers use."""

    def __init__(self, cluster: MadeUpCluster, feed: Feed, logins: Logins) -> None:
        self.nodes, self.swarms = cluster.nodes, cluster.swarms
        self.console = Console(pages.load(), feed, logins, cluster.scheduler.story, cluster.scheduler.copies)


@contextlib.contextmanager
def _viewers(server: ConsoleServer, count: int) -> Iterator[None]:
    """So many read the stream, in one thread each."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    sockets, threads = [], []
    for _ in range(count):
        opened = socket.create_connection((host, int(port)))
        opened.sendall(f"GET /v1/console/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        if not opened.recv(1 << 10).startswith(b"HTTP/1.1 200 "):
            raise LayercastError("the console gives no events")
        sockets.append(opened)
        threads.append(threading.Thread(target=_read, args=(opened,), daemon=True))
        threads[-1].start()
    yield
    for opened in sockets:
        opened.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()


def _read(opened: socket.socket) -> None:
    with opened, contextlib.suppress(OSError):
        while opened.recv(1 << 20):
            pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=200, metavar="N", help="[default: 200]")
    parser.add_argument("--swarms", type=int, default=20, metavar="N", help="all nodes are in all [default: 20]")
    parser.add_argument("--viewers", type=int, default=1, metavar="N", help="who look at it [default: 1]")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="[default: 20]")


def run(arguments: argparse.Namespace) -> int:
    """Prints the share of a core, and what a snapshot takes."""
    cluster = MadeUpCluster(arguments.nodes, arguments.swarms)
    with ConsoleServer(cluster) as server, _viewers(server, arguments.viewers):
        began_s, cpu_s, made = time.monotonic(), server.cpu_s(), server.snapshots
        made_s = server.made_s
        time.sleep(arguments.seconds)
        elapsed_s, used_s = time.monotonic() - began_s, server.cpu_s() - cpu_s
        count, spent_s = server.snapshots - made, server.made_s - made_s
    print(f"{arguments.nodes} nodes, {arguments.swarms} swarms, {arguments.viewers} viewers, {elapsed_s:.0f} s")
    print(f"of a core: {100 * used_s / elapsed_s:.2f} %")
    print(f"snapshots: {count}, {1000 * spent_s / max(1, count):.2f} ms each, {server.snapshot_bytes} bytes")
    return 0
