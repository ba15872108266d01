"""Small networks of their own for tests: namespaces on one bridge, shaped links, and clients that reach one node.

    host (this process: origin, supernode) ---+
                                              |  bridge, in a namespace of its own
    node n0 ----------------------------------+
      +--- client c0: one veth to n0, no route to anything else
    node n1 ----------------------------------+

The bridge has its own namespace, so that firewall rules of the host (dockerd sets FORWARD to DROP) do not meet
bridged frames. Addresses come from 198.18.0.0/15 (RFC 2544, for tests) and RFC 5737. The namespaces
have names of this run (benchmarks.cluster.cleanup): what a killed run left behind is removed by the next one.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.cleanup import RunName, clean_up
from benchmarks.cluster.namespaces import batch, remove_namespaces
from benchmarks.cluster.processes import ManagedProcess, ProcessError, run
from benchmarks.cluster.programs import program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_BLOCK: Final = ipaddress.IPv4Network("198.18.0.0/15")
_NETWORK_PREFIX_LENGTH: Final = 22
# RFC 5737, for clients and what they reach beside their node.
_CLIENT_BLOCKS: Final = tuple(map(ipaddress.IPv4Network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")))
# By poll(2), which looks once more when its time is over: curl takes a connection for failed that opened long before,
# if it does not run for 2 s.
_CONNECT: Final = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"
_serials = itertools.count()


def ip(*words: str, check: bool = True) -> str:
    """Run `ip` in this process's namespace; its output. Raises ProcessError."""
    return run([program("ip"), *words], check=check).stdout


@dataclass(slots=True)
class Namespace:
    """One network namespace. `address` is its IP address, `device` the interface that has it."""

    name: str
    address: str
    device: str

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 60.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it to the end; see processes.run."""
        return run(argv, netns=self.name, env=env, cwd=cwd, timeout_s=timeout_s, check=check)

    def start(
        self,
        argv: Sequence[str | Path],
        *,
        name: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> ManagedProcess:
        """Start a program in it; see processes.ManagedProcess."""
        return ManagedProcess(argv, name=name, env=env, cwd=cwd, netns=self.name)

    def processes(self) -> list[int]:
        """Process ids of all that runs in it."""
        return [int(word) for word in ip("netns", "pids", self.name).split()]

    def reaches(self, host: str, port: int) -> bool:
        """Whether a TCP connection from here to there opens within 2 s, whenever this process gets to look at it."""
        return self.run([sys.executable, "-I", "-c", _CONNECT, host, str(port)], check=False).returncode == 0


@dataclass(slots=True)
class Node(Namespace):
    """A namespace on the bridge. `bridge_device` is the other end of its cable, in the bridge's namespace."""

    lab: Lab = field(repr=False)
    bridge_device: str
    clients: list[ClientNamespace] = field(default_factory=list)
    _shaper: Sequence[str] = ("pfifo",)

    def shape(self, rate_bits_per_s: float, burst_bytes: int = 32 << 10, latency_ms: float = 50) -> None:
        """Limit both directions of its cable with tc tbf. Again: the new rate replaces the old."""
        rate = f"{int(rate_bits_per_s)}bit"
        self._shaper = ("tbf", "rate", rate, "burst", str(burst_bytes), "latency", f"{latency_ms}ms")
        self._set_queue(self._shaper)

    def unshape(self) -> None:
        """Lift the limits."""
        self._shaper = ("pfifo",)
        self._set_queue(self._shaper)

    def silence(self) -> None:
        """Lose every frame in both directions without a word: both interfaces stay up, the link is half open."""
        # Where an ARP entry ran out, the sender would be told after 3 s that the other side is gone.
        _make_neighbours_permanent(self.name)
        for other in (None, *(node.name for node in self.lab.nodes if node is not self)):
            _make_neighbours_permanent(other, only=self.address)
        self._set_queue(("blackhole",))

    def restore(self) -> None:
        """End `silence`."""
        self._set_queue(self._shaper)

    def _set_queue(self, discipline: Sequence[str]) -> None:
        for netns, device in ((self.name, self.device), (self.lab.hub, self.bridge_device)):
            run([program("tc"), "-n", netns, "qdisc", "replace", "dev", device, "root", *discipline])

    def add_client(self) -> ClientNamespace:
        """A namespace with one cable, to this node: it reaches the node at `gateway` and nothing else."""
        return self.lab.add_client(self)

    def let_clients_reach_host(self) -> str:
        """Give this process's namespace one more address, and have the clients that this node has now reach just it.

        For what clients ask themselves, and not through their peer: a token service, say. Returns the address.
        """
        address = str(list(self.lab.client_block.hosts())[-1])
        batch("ip", [f"addr add {address}/32 dev {self.lab.host_device}"])
        batch("ip", [f"route replace {client.address}/32 via {self.address}" for client in self.clients])
        batch("ip", [f"route add {address}/32 dev {self.device}"], self.name)
        _set_sysctl(self.name, "net/ipv4/ip_forward", "1")
        for client in self.clients:
            batch("ip", [f"route add {address}/32 via {client.gateway}"], client.name)
        return address


@dataclass(slots=True)
class ClientNamespace(Namespace):
    """A namespace whose only way out is its node, which does not forward. `gateway` is the node's address there."""

    gateway: str


@dataclass(slots=True)
class Lab:
    """One network; a context manager. `host_address` is where this process's namespace is on the bridge.

    `mtu` is that of all cables. Needs root.
    """

    mtu: int = 1500
    serial: int = field(default_factory=lambda: next(_serials))
    nodes: list[Node] = field(default_factory=list)
    host_address: str = ""
    client_block: ipaddress.IPv4Network = field(default_factory=lambda: free_of(_CLIENT_BLOCKS))
    _namespaces: list[str] = field(default_factory=list, repr=False)
    _addresses: Iterator[ipaddress.IPv4Address] = field(default_factory=lambda: iter(()), repr=False)

    def __enter__(self) -> Lab:
        clean_up([])
        try:
            self._build_bridge()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def prefix(self) -> str:
        """Of the names of all its namespaces."""
        return f"{RunName.own()}{self.serial}-"

    @property
    def host_device(self) -> str:
        """This process's end of the cable to the bridge; a device's name has at most 15 characters."""
        return f"lc{os.getpid()}-{self.serial}h"

    @property
    def hub(self) -> str:
        """The namespace that holds the bridge."""
        return f"{self.prefix}hub"

    def _build_bridge(self) -> None:
        network = _free_network()
        self._addresses = network.hosts()
        self._add_namespace(self.hub)
        batch("ip", ["link add br0 type bridge", f"link set br0 mtu {self.mtu} up"], self.hub)
        self.host_address = str(next(self._addresses))
        here, there = self.host_device, "host"
        batch("ip", [f"link add {here} mtu {self.mtu} type veth peer name {there} netns {self.hub}"])
        batch("ip", [f"link set {there} mtu {self.mtu} master br0 up"], self.hub)
        batch("ip", [f"addr add {self.host_address}/{_NETWORK_PREFIX_LENGTH} dev {here}", f"link set {here} up"])

    def _add_namespace(self, name: str) -> None:
        ip("netns", "add", name)
        self._namespaces.append(name)
        batch("ip", ["link set lo up"], name)
        # A namespace inherits the host's setting, and dockerd on the host turns forwarding on.
        _set_sysctl(name, "net/ipv4/ip_forward", "0")

    def add_node(self) -> Node:
        """One more namespace on the bridge, unshaped."""
        number = len(self.nodes)
        name, device = f"{self.prefix}n{number}", f"n{number}"
        address = str(next(self._addresses))
        self._add_namespace(name)
        batch("ip", [f"link add eth0 mtu {self.mtu} type veth peer name {device} netns {self.hub}"], name)
        batch("ip", [f"link set {device} mtu {self.mtu} master br0 up"], self.hub)
        batch("ip", [f"addr add {address}/{_NETWORK_PREFIX_LENGTH} dev eth0", "link set eth0 up"], name)
        _set_sysctl(name, "net/ipv4/tcp_slow_start_after_idle", "0")
        node = Node(name=name, address=address, device="eth0", lab=self, bridge_device=device)
        self.nodes.append(node)
        return node

    def add_client(self, node: Node) -> ClientNamespace:
        """A client of `node`; see Node.add_client."""
        number = len(node.clients)
        name, node_device = f"{node.name}c{number}", f"c{number}"
        gateway, address = list(list(self.client_block.subnets(new_prefix=30))[number].hosts())
        self._add_namespace(name)
        batch("ip", [f"link add eth0 type veth peer name {node_device} netns {node.name}"], name)
        batch("ip", [f"addr add {address}/30 dev eth0", "link set eth0 up"], name)
        batch("ip", [f"addr add {gateway}/30 dev {node_device}", f"link set {node_device} up"], node.name)
        client = ClientNamespace(name=name, address=str(address), device="eth0", gateway=str(gateway))
        node.clients.append(client)
        return client

    def close(self) -> None:
        """Remove all that the lab made, killing what still runs inside."""
        ip("link", "del", self.host_device, check=False)
        remove_namespaces(self._namespaces)
        self._namespaces.clear()


def _free_network() -> ipaddress.IPv4Network:
    """A block for the bridge, different for neighbouring process ids."""
    blocks = list(_BLOCK.subnets(new_prefix=_NETWORK_PREFIX_LENGTH))
    first = (os.getpid() * 7 + next(_serials)) % len(blocks)
    return free_of(blocks[first:] + blocks[:first])


def free_of(blocks: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The first that no interface of the host is in: frames from an address of the host's own would be dropped."""
    shown = ip("-4", "-o", "addr", "show").splitlines()
    in_use = [ipaddress.IPv4Interface(line.split()[3]).network for line in shown]
    for block in blocks:
        if not any(block.overlaps(network) for network in in_use):
            return block
    raise ProcessError("every block of addresses for tests is in use by another network: remove stale namespaces")


def _make_neighbours_permanent(netns: str | None, only: str | None = None) -> None:
    """Keep the known ARP entries of a namespace (None: the host), all or that of one address, for good."""
    scope = ["-n", netns] if netns else []
    for line in ip(*scope, "-4", "neigh", "show").splitlines():
        words = line.split()
        if "lladdr" in words and words[-1] != "PERMANENT" and only in (None, words[0]):
            lladdr = words[words.index("lladdr") + 1]
            batch("ip", [f"neigh replace {words[0]} lladdr {lladdr} dev {words[2]} nud permanent"], netns)


def _set_sysctl(netns: str, key: str, value: str) -> None:
    run(["/bin/sh", "-c", f"echo {value} > /proc/sys/{key}"], netns=netns)
