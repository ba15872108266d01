"""What joining costs: many nodes join a real supernode at once, then all reconnect after it was killed.

The nodes are this process's: an identity and a session each, without store, uploads or clients. They and the supernode
share the machine's cores, so the times are those of a cluster on one machine; the supernode's CPU is its own.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from benchmarks.cluster.processes import cpu_s, memory_peak_bytes
from benchmarks.cluster.services import LOOPBACK, Supernode
from benchmarks.flags import count
from peer.membership.dialer import MemberDialer
from peer.node.session import RECONNECT_JITTER_S, Session
from proto.errors import LayercastError
from proto.wire.handshake import PROTOCOL_VERSION, Hello
from proto.wire.tickets import Identity, sign_hello

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from proto.wire.handshake import Challenge
    from proto.wire.messages import Message

HELP: Final = "nodes that join at once, and reconnect at once after the supernode was killed"
_TIMEOUT_S: Final = 120.0
_LOOK_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class Figures:
    """Until the last session was open, and the supernode's CPU for one node."""

    elapsed_s: float
    cpu_s_per_node: float


class _Node:
    """Implements peer.node.session.SessionOwner, and does nothing in it."""

    def __init__(self, folder: Path, url: str, join_file: Path) -> None:
        folder.mkdir()
        self._identity = Identity.generate()
        self.session = Session(MemberDialer(url, folder, self._identity, join_file), self)
        self.opened_times = 0

    def hello(self, challenge: Challenge) -> Hello:
        proof = sign_hello(self._identity, challenge.nonce, challenge.supernode)
        return Hello(PROTOCOL_VERSION, self._identity.peer, "boot", proof, ":65002", "", 8, 8, 0, 0, "bench")

    def answered(self) -> None: ...

    def opened(self, challenge: Challenge) -> None:
        self.opened_times += 1

    def clock_received(self, unix_s: float) -> None: ...

    def received(self, message: Message) -> None: ...

    def lost(self, reason: str, *, silent: bool) -> None: ...


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", default="200", metavar="N", help="1 to 2000 [200]")


def run(arguments: argparse.Namespace) -> int:
    """Prints both figures. Raises LayercastError where a node gets no session."""
    nodes = count("--nodes", arguments.nodes, 200, 1, 2000)
    with tempfile.TemporaryDirectory(prefix="layercast-joining-") as folder:
        supernode = Supernode(Path(folder) / "supernode", LOOPBACK, ["--store-free-floor", "0"])
        try:
            supernode.start()
            # Each node would tell of the kill.
            logging.disable(logging.ERROR)
            joined, back, memory_bytes = uvloop.run(_measure(supernode, Path(folder), nodes))
        finally:
            logging.disable(logging.NOTSET)
            supernode.close()
    print(f"{nodes} nodes{'':20}{'last open, s':>14}{'supernode CPU, ms a node':>26}")
    for name, figures in (("join at once", joined), ("reconnect after a kill", back)):
        print(f"{name:30}{figures.elapsed_s:14.2f}{figures.cpu_s_per_node * 1000:26.2f}")
    print(f"memory of the supernode: {memory_bytes / nodes / 1024:.0f} KiB a session")
    return 0


async def _measure(supernode: Supernode, folder: Path, count: int) -> tuple[Figures, Figures, int]:
    before_bytes = memory_peak_bytes(supernode.process.pid)
    nodes = [_Node(folder / f"node-{one}", supernode.url, supernode.join_file()) for one in range(count)]
    used_s, began_s = cpu_s(supernode.process.pid), time.monotonic()
    sessions = [asyncio.create_task(node.session.run()) for node in nodes]
    try:
        joined = await _all_open(nodes, 1, supernode, used_s, began_s)
        memory_bytes = memory_peak_bytes(supernode.process.pid) - before_bytes
        await asyncio.to_thread(supernode.kill)
        await asyncio.to_thread(supernode.start)
        used_s, began_s = cpu_s(supernode.process.pid), time.monotonic()
        return joined, await _all_open(nodes, 2, supernode, used_s, began_s), memory_bytes
    finally:
        for session in sessions:
            session.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)


async def _all_open(nodes: Sequence[_Node], times: int, supernode: Supernode, used_s: float, began_s: float) -> Figures:
    while waiting := [node for node in nodes if node.opened_times < times or not node.session.is_open]:
        if time.monotonic() - began_s > _TIMEOUT_S:
            raise LayercastError(f"{len(waiting)} nodes have no session: {waiting[0].session.problem}")
        await asyncio.sleep(_LOOK_S)
    elapsed_s = time.monotonic() - began_s
    # What it still does for those who came last.
    await asyncio.sleep(RECONNECT_JITTER_S / 10)
    return Figures(elapsed_s, (cpu_s(supernode.process.pid) - used_s) / len(nodes))
