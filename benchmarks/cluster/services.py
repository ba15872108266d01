"""A Layercast cluster of real processes: one supernode and any number of peers, on loopback or in namespaces.

A program that is killed and started again has the addresses and the data folder that it had: its ports are reserved
before its first start (in a namespace of its own they are found out from its ready line, and nobody else is there).
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from benchmarks.cluster.metrics import Metrics, http_get, scrape
from benchmarks.cluster.namespaces import inside
from benchmarks.cluster.ports import ReservedPort
from benchmarks.cluster.processes import WAIT_S, ManagedProcess, wait_until
from benchmarks.cluster.programs import clean_environment
from proto.runtime.private_files import write_private
from supernode.membership.authorities import AuthorityFolder
from supernode.membership.commands import create_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


LOOPBACK: Final = "127.0.0.1"
# Far longer than any run.
TOKEN_LIFE_S: Final = 86_400.0


def script(name: str) -> Path:
    """The console script of that name, beside this interpreter."""
    return Path(sys.executable).with_name(name)


class Node(Protocol):
    """A network namespace and its address."""

    name: str
    address: str


class Service:
    """One of our programs. It can be stopped in any way and started again as it was.

    `listen_flags` say where it listens; `extra` are the other flags.
    """

    def __init__(
        self,
        name: str,
        program_name: str,
        data_dir: Path,
        extra: Sequence[str],
        *,
        netns: str | None = None,
    ) -> None:
        self.name = name
        self.data_dir = data_dir
        self.extra = list(extra)
        self.netns = netns
        self.ready: dict[str, str] = {}
        # What is started, before its flags.
        self.program: list[str | Path] = [script(program_name)]
        self._process: ManagedProcess | None = None
        self._ports: dict[str, ReservedPort] = {}

    @property
    def process(self) -> ManagedProcess:
        """The program as it runs, or as it last ran."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.running

    @property
    def status_address(self) -> str:
        """HOST:PORT of /healthz and /metrics."""
        raise NotImplementedError

    def listen_flags(self) -> list[str]:
        """Where it listens: any free port at first, then where it was."""
        raise NotImplementedError

    def address(self, name: str, host: str) -> str:
        """HOST:PORT of what its ready line calls `name`."""
        if name in self.ready:
            return self.ready[name]
        if self.netns is not None:
            return f"{host}:0"
        if name not in self._ports:
            self._ports[name] = ReservedPort(host)
        return self._ports[name].address

    def start(self, timeout_s: float = WAIT_S) -> None:
        """Start it, as it was if it ran before, and wait until it says that it is ready."""
        self.spawn()
        self.wait_ready(timeout_s)

    def spawn(self) -> None:
        """Start it and return at once."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        argv = [*self.program, *self.listen_flags()]
        argv += ["--data-dir", self.data_dir, *self.extra]
        environment = clean_environment(HOME=str(self.data_dir))
        self._process = ManagedProcess(argv, name=self.name, netns=self.netns, env=environment)

    def wait_ready(self, timeout_s: float = WAIT_S) -> None:
        """Wait for its ready line and keep the addresses."""
        self.ready = self.process.wait_ready(timeout_s)

    def stop(self) -> int:
        """SIGTERM; its exit status. Raises ProcessError if it does not end."""
        status = self.process.terminate()
        self.process.close()
        return status

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()

    def close(self) -> None:
        """Stop it if it runs, in whatever way works."""
        if self._process is not None:
            self._process.close()
        for port in self._ports.values():
            port.close()

    def metrics(self) -> Metrics:
        """A scrape, from within its namespace."""
        return inside(self.netns, lambda: scrape(self.status_address))

    def healthz(self) -> tuple[int, bytes]:
        """Status and body of /healthz."""
        return http_get(self.status_address, "/healthz")


class Supernode(Service):
    """`layercast-supernode`; `host` is the address it listens on, `upload_host` that for pieces, if another."""

    def __init__(
        self, data_dir: Path, host: str, extra: Sequence[str], *, netns: str | None = None, upload_host: str = ""
    ) -> None:
        super().__init__("supernode", "layercast-supernode", data_dir, extra, netns=netns)
        self._host = host
        self._upload_host = upload_host or host

    def listen_flags(self) -> list[str]:
        """Any free port at first, then where it was."""
        upload = self.address("upload", self._upload_host)
        return ["--listen", self.address("api", self._host), "--upload-listen", upload]

    @property
    def status_address(self) -> str:
        """HOST:PORT of its API."""
        return self.ready["api"]

    @property
    def url(self) -> str:
        """What peers are given."""
        return f"https://{self.ready['api']}"

    def peer_flags(self) -> list[str]:
        """What a peer needs to join: the address, and a file with a join token for any number of peers."""
        if "--open" in self.extra:
            return ["--supernode", f"http://{self.ready['api']}", "--open"]
        return ["--supernode", self.url, "--join-file", str(self.join_file())]

    def join_file(self) -> Path:
        """Made when it is first wanted, beside the data folder."""
        file = self.data_dir.with_name(f"{self.data_dir.name}.token")
        if not file.exists():
            token = create_token(AuthorityFolder(self.data_dir), TOKEN_LIFE_S, None)
            write_private(file, token.text.encode())
        return file


class Peer(Service):
    """`layercast-peer`. `host` is where other nodes reach it, `proxy_host` where its clients do."""

    def __init__(
        self,
        name: str,
        data_dir: Path,
        supernode_flags: Sequence[str],
        host: str,
        proxy_host: str,
        extra: Sequence[str],
        *,
        netns: str | None = None,
    ) -> None:
        super().__init__(name, "layercast-peer", data_dir, [*supernode_flags, *extra], netns=netns)
        self._host = host
        self._proxy_host = proxy_host

    def listen_flags(self) -> list[str]:
        """Any free ports at first, then where it was. Its status is where this process can scrape it."""
        flags = ["--listen", self.address("proxy", self._proxy_host)]
        flags += ["--upload-listen", self.address("upload", self._host)]
        if self._host != self._proxy_host:
            flags += ["--status-listen", self.address("status", self._host)]
        return flags

    @property
    def proxy(self) -> str:
        """HOST:PORT that its clients pull through."""
        return self.ready["proxy"]

    @property
    def proxy_url(self) -> str:
        """The same as a URL: a registry mirror."""
        return f"http://{self.proxy}"

    @property
    def status_address(self) -> str:
        """HOST:PORT of /healthz and /metrics."""
        return self.ready["status"]

    def received_bytes(self, source: str) -> int:
        """Payload bytes that this node got from `source`: peer, seed, origin, store or passthrough."""
        return int(self.metrics().value("layercast_bytes_total", source=source))

    @property
    def connected(self) -> bool:
        """Whether it has a session, as it knows itself: the supernode counts one a moment before."""
        return self.metrics().value("layercast_supernode_connected") == 1

    def client_bytes(self, source: str) -> int:
        """Payload bytes that its clients got by way of `source`: swarm, store or passthrough."""
        return int(self.metrics().value("layercast_client_bytes_total", **{"from": source}))


@dataclass(slots=True)
class Cluster:
    """A supernode and its peers; a context manager, which starts the supernode.

    `origin` is HOST:PORT of a plain-http registry, which is also where requests that name no registry go.
    `host` is where the supernode listens. `supernode_flags` and `peer_flags` are added to every start.
    """

    directory: Path
    origin: str
    host: str = LOOPBACK
    supernode_node: Node | None = None
    supernode_flags: Sequence[str] = ()
    peer_flags: Sequence[str] = ()
    peers: list[Peer] = field(default_factory=list)
    supernode: Supernode = field(init=False)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        node = self.supernode_node
        self.supernode = Supernode(
            self.directory / "supernode",
            self.host if node is None else node.address,
            ["--insecure-upstream", self.origin, *self.supernode_flags],
            netns=None if node is None else node.name,
        )

    def __enter__(self) -> Cluster:
        try:
            self.supernode.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all programs."""
        for peer in self.peers:
            peer.close()
        self.supernode.close()

    def add_peer(
        self,
        node: Node | None = None,
        *,
        proxy_host: str | None = None,
        extra: Sequence[str] = (),
        has_session: bool = True,
    ) -> Peer:
        """Start one more peer, on loopback or in the namespace of `node`.

        Where the supernode runs, wait for its session: it is ready after 2 s without one, too, and then begins pulls
        alone; `has_session` false: so it may.
        `proxy_host` is the address that its clients reach: a ClientNamespace's `gateway`, say. Unless given it is
        loopback, in the peer's own namespace.
        """
        peer = self.prepare_peer(node, proxy_host=proxy_host, extra=extra)
        peer.start()
        if has_session:
            self._wait_for_sessions_of([peer])
        return peer

    @contextlib.contextmanager
    def guest(self, *, extra: Sequence[str] = ()) -> Iterator[Peer]:
        """One more peer on loopback, for a while: where several tests share a cluster."""
        peer = self.add_peer(extra=extra)
        try:
            self.wait_for_sessions(len(self.peers))
            yield peer
        finally:
            peer.close()
            self.peers.remove(peer)
            self.wait_for_sessions(len(self.peers))

    def add_peers(self, nodes: Sequence[Node | None], *, extra: Sequence[str] = ()) -> list[Peer]:
        """The same of several at once, which all have sessions."""
        peers = [self.prepare_peer(node, extra=extra) for node in nodes]
        for peer in peers:
            peer.spawn()
        for peer in peers:
            peer.wait_ready(WAIT_S + len(peers))
        self._wait_for_sessions_of(peers)
        return peers

    def _wait_for_sessions_of(self, peers: Sequence[Peer]) -> None:
        if self.supernode.runs:
            wait_until(lambda: all(peer.connected for peer in peers), "a session of each peer")

    def prepare_peer(
        self, node: Node | None = None, *, proxy_host: str | None = None, extra: Sequence[str] = ()
    ) -> Peer:
        """A peer of this cluster that is not started yet."""
        name = f"peer-{next(self._numbers)}"
        flags = ["--default-upstream", f"http://{self.origin}", "--insecure-upstream", self.origin]
        peer = Peer(
            name,
            self.directory / name,
            self.supernode.peer_flags(),
            LOOPBACK if node is None else node.address,
            proxy_host or LOOPBACK,
            [*flags, *self.peer_flags, *extra],
            netns=None if node is None else node.name,
        )
        self.peers.append(peer)
        return peer

    def wait_for_sessions(self, count: int, timeout_s: float = WAIT_S) -> None:
        """Wait until that many peers are linked to the supernode, and know it."""
        wait_until(
            lambda: self.supernode.metrics().value("layercast_sessions_open") == count,
            f"{count} open sessions at the supernode",
            timeout_s,
        )
        running = [peer for peer in self.peers if peer.runs]
        wait_until(
            lambda: sum(peer.connected for peer in running) >= min(count, len(running)),
            f"{count} peers that know of their sessions",
            timeout_s,
        )

    def received_bytes(self, source: str) -> int:
        """Sum over all peers; see Peer.received_bytes."""
        return sum(peer.received_bytes(source) for peer in self.peers)
