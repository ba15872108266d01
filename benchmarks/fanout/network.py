"""Shaped links between real processes: a namespace each for origin, supernode and every node, and one for bridges.

    origin o --+                 +-- trunk t0 = u0 -- bridge r0 -- node n0, n2 ...
               |-- bridge core --|
    seed   s --+                 +-- trunk t1 = u1 -- bridge r1 -- node n1, n3 ...      (without racks: all on the core)

Each cable has tc tbf on both ends. Control has a second, unshaped bridge (`own`), or a second address on the same cable
(`shared`); the supernode's end of it is an interface of its own either way, whose counters are the control bytes.

Nothing is connected to the host. Neighbour entries are given beforehand: at scaled-down rates the broadcasts of 40,000
pairs of nodes that look for each other would be per cents of each link. Names and removal: benchmarks.cluster.cleanup.
"""

from __future__ import annotations

import contextlib
import ipaddress
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.cleanup import RunName, raise_sysctls, restore_sysctls
from benchmarks.cluster.namespaces import batch, device_counters, enter, remove_namespaces
from benchmarks.fanout.site import ETHERNET_BYTES, Place, Traffic, received_payload, sent_payload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.scenario import Control, Scenario

# RFC 2544 keeps these for tests of networks.
DATA_NETWORK: Final = ipaddress.IPv4Network("198.18.0.0/16")
_CONTROL: Final = ipaddress.IPv4Network("198.19.0.0/16")
_ORIGIN_NUMBER: Final = 1
_SUPERNODE_NUMBER: Final = 2
_NODE_NUMBER: Final = 10

LATENCY_S: Final = 0.05
# With 1,000 frames 20 nodes at 4 Mbit/s came to 1.48 of the piece bound, with 100 ms to 1.24; with 50 ms 10 nodes at 20
# Mbit/s came to 1.164 of the fluid bound, with 100 to 1.097.
OWN_QUEUE_S: Final = 0.1
# A frame holds the link for so long at most, where 1500 bytes allow it; and so does a packet of several segments.
PACKET_S: Final = 0.004
FRAME_MIN_BYTES: Final = 1500
FRAME_MAX_BYTES: Final = 9000
# What TCP hands down at a time at most, and what a bucket must have room for twice.
_PACKET_MAX_BYTES: Final = 65_000
_BURST_FRAMES: Final = 4
_BURST_S: Final = 0.02
_NEIGHBOURS: Final = {
    f"net/ipv4/neigh/default/gc_thresh{number}": limit for number, limit in ((1, 65536), (2, 131072), (3, 262144))
}


class Network:
    """The links of one scenario; a context manager. `folder` keeps what must be undone. Needs root."""

    def __init__(self, scenario: Scenario, control: Control, frame_bytes: int, folder: Path) -> None:
        self._scenario = scenario
        self._control = control
        self._mtu = frame_bytes
        self._folder = folder
        self._run = RunName.own()
        self._hub = f"{self._run}hub"
        self._made: list[str] = []
        self.origin = self._place("o", _ORIGIN_NUMBER)
        self.supernode = self._place("s", _SUPERNODE_NUMBER)
        self.nodes: Sequence[Place] = [
            self._place(f"n{number}", _NODE_NUMBER + number) for number in range(scenario.nodes)
        ]
        # Both read counters inside a namespace, again and again; they are used for nothing else.
        self._in_hub = ThreadPoolExecutor(1, "hub", lambda: enter(self._hub))
        self._in_supernode = ThreadPoolExecutor(1, "supernode", lambda: enter(f"{self._run}s"))

    def _place(self, name: str, number: int) -> Place:
        return Place(f"{self._run}{name}", str(DATA_NETWORK[number]), str(_CONTROL[number]))

    def __enter__(self) -> Network:
        try:
            raise_sysctls(self._folder, _NEIGHBOURS)
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything, killing what still runs inside."""
        self._in_hub.shutdown()
        self._in_supernode.shutdown()
        remove_namespaces(self._made)
        self._made.clear()
        restore_sysctls(self._folder)

    # --- building ----------------------------------------------------------------------------------------------

    def _ports(self) -> Iterator[tuple[Place, str, int, float, str]]:
        """Of each place: name of its port on the bridge, its number, its rate, its bridge."""
        scenario = self._scenario
        yield self.origin, "o", _ORIGIN_NUMBER, scenario.origin_bytes_s, "core"
        yield self.supernode, "s", _SUPERNODE_NUMBER, scenario.supernode_bytes_s, "core"
        for node, place in enumerate(self.nodes):
            rack = scenario.rack_of(node)
            bridge = "core" if rack is None else f"r{rack}"
            yield place, f"n{node}", _NODE_NUMBER + node, scenario.class_of(node).up_bytes_s, bridge

    def _build(self) -> None:
        names = [self._hub, *(place.netns or "" for place, *_ in self._ports())]
        self._made = names
        batch("ip", [f"netns add {name}" for name in names])
        with ThreadPoolExecutor(1) as pool:  # its thread enters one namespace after the other, and ends
            pool.submit(self._build_inside).result()

    def _build_inside(self) -> None:
        self._build_hub()
        for place, _, number, rate, _ in self._ports():
            assert place.netns is not None
            enter(place.netns)
            _set("net/ipv6/conf/all/disable_ipv6", 1)
            _set("net/ipv4/tcp_slow_start_after_idle", 0)
            # Not to answer for the control address on the other interface.
            _set("net/ipv4/conf/all/arp_ignore", 1)
            batch("ip", self._configure(place, number, rate))
            batch("tc", [self._shape("eth0", rate), "qdisc add dev eth0 parent 1: pfifo_fast"])

    def _build_hub(self) -> None:
        enter(self._hub)
        _set("net/ipv6/conf/default/disable_ipv6", 1)
        _set("net/ipv6/conf/all/disable_ipv6", 1)
        scenario, mtu = self._scenario, self._mtu
        lines = []
        for bridge in self._bridges():
            lines += [f"link add {bridge} type bridge", f"link set {bridge} mtu {mtu} up"]
        for rack in range(scenario.racks):
            lines += [f"link add t{rack} mtu {mtu} type veth peer name u{rack} mtu {mtu}"]
            lines += [f"link set t{rack} master core up", f"link set u{rack} master r{rack} up"]
        shapes = [self._shape(f"{end}{rack}", scenario.trunk_bytes_s) for rack in range(scenario.racks) for end in "tu"]
        for place, port, number, rate, bridge in self._ports():
            lines += self._cable(port, "eth0", place, _mac(0, number), bridge)
            shapes.append(self._shape(port, rate))
            if self._control == "own":
                lines += self._cable(f"c{port}", "ctl", place, _mac(1, number), "control")
        batch("ip", lines)
        batch("tc", shapes)

    def _cable(self, port: str, device: str, place: Place, mac: str, bridge: str) -> list[str]:
        mtu = self._mtu
        there = f"name {device} mtu {mtu} address {mac} netns {place.netns}"
        return [f"link add {port} mtu {mtu} type veth peer {there}", f"link set {port} master {bridge} up"]

    def _configure(self, place: Place, number: int, rate: float) -> list[str]:
        """Addresses and neighbours, inside the place's namespace."""
        lines = ["link set lo up", f"addr add {place.host}/{DATA_NETWORK.prefixlen} dev eth0"]
        lines += [f"link set dev eth0 gso_max_segs {self._segments(rate)} up"]
        if place is not self.origin:
            frames = (rate * OWN_QUEUE_S + self._burst(rate)) / (self._mtu + ETHERNET_BYTES)
            lines.append(f"link set dev eth0 txqueuelen {round(frames)}")
        device = "ctl"
        if self._control == "shared" and place is self.supernode:
            # On the same cable, in the same queue, but with counters of its own.
            lines += [f"link add link eth0 name ctl address {_mac(1, number)} type macvlan mode bridge"]
        elif self._control == "shared":
            device = "eth0"
        lines += [f"addr add {place.control_host}/{_CONTROL.prefixlen} dev {device}", f"link set {device} up"]
        for _, _, other, _, _ in self._ports():
            if other == number:
                continue
            lines.append(f"neigh add {DATA_NETWORK[other]} lladdr {_mac(0, other)} dev eth0 nud permanent")
            if _SUPERNODE_NUMBER in (number, other):
                mac = _mac(1 if self._control == "own" or other == _SUPERNODE_NUMBER else 0, other)
                lines.append(f"neigh add {_CONTROL[other]} lladdr {mac} dev {device} nud permanent")
        return lines

    def _shape(self, device: str, rate_bytes_s: float) -> str:
        """A switch's queue: 50 ms, first come first served. A place's own end gets the kernel's own in its stead.

        That one has priorities, and holds 100 ms, but 1,000 frames at the origin, which has 200 flows in native mode: a
        short one would refuse most of their segments within the sender, whose kernel then gives connections up that the
        server has closed (TCPAbortOnTimeout), and clients hang.
        """
        burst = self._burst(rate_bytes_s)
        rate = f"{round(rate_bytes_s * 8)}bit"
        return f"qdisc replace dev {device} root handle 1: tbf rate {rate} burst {burst} latency {LATENCY_S * 1000:g}ms"

    def _burst(self, rate_bytes_s: float) -> int:
        return burst_bytes(rate_bytes_s, self._mtu + ETHERNET_BYTES, self._scenario.layout(0).piece_size_bytes)

    def _segments(self, rate_bytes_s: float) -> int:
        return segments_at_once(rate_bytes_s, self._mtu + ETHERNET_BYTES, self._burst(rate_bytes_s))

    # --- trouble -----------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """No frame passes from now on."""
        self._set_bridges("down")

    def mend(self) -> None:
        """Frames pass again."""
        self._set_bridges("up")

    def _set_bridges(self, state: str) -> None:
        self._in_hub.submit(batch, "ip", [f"link set {bridge} {state}" for bridge in self._bridges()]).result()

    def _bridges(self) -> Iterator[str]:
        yield from ("core", "control", *(f"r{rack}" for rack in range(self._scenario.racks)))

    # --- counting ----------------------------------------------------------------------------------------------

    def traffic(self) -> Traffic:
        """What the links carried since they were made."""
        control = self._in_supernode.submit(device_counters).result()["ctl"]
        hub = self._in_hub.submit(device_counters).result()
        nodes = [hub[f"n{number}"] for number in range(len(self.nodes))]
        return Traffic(
            origin_sent_bytes=received_payload(hub["o"]),
            supernode_received_bytes=sent_payload(hub["s"]),
            supernode_sent_bytes=received_payload(hub["s"]),
            nodes_received_bytes=sum(map(sent_payload, nodes)),
            nodes_sent_bytes=sum(map(received_payload, nodes)),
            into_racks_bytes=sum(sent_payload(hub[f"t{rack}"]) for rack in range(self._scenario.racks)),
            control_bytes=control.received_bytes + control.sent_bytes,
        )


def burst_bytes(rate_bytes_s: float, frame_bytes: int, piece_bytes: int) -> int:
    """Of a tbf: 20 ms of the link, at most a quarter of a piece (a larger bucket hides idling), at least 4 frames."""
    least = _BURST_FRAMES * frame_bytes
    return round(max(least, min(rate_bytes_s * _BURST_S, piece_bytes / 4)))


def frame_bytes_at(rate_bytes_s: float) -> int:
    """As much as the link sends in PACKET_S, within what interfaces take."""
    return round(max(FRAME_MIN_BYTES, min(FRAME_MAX_BYTES, rate_bytes_s * PACKET_S)))


def segments_at_once(rate_bytes_s: float, frame_bytes: int, burst: int) -> int:
    """How many segments TCP hands down as one packet, which costs the kernel as much as one segment.

    On a slow link such a burst overruns the queue of 50 ms inside the sender: a fifth is sent twice, and flows that
    share the link starve each other (docs/decisions/segments-on-shaped-links.md).
    """
    most_bytes = min(rate_bytes_s * PACKET_S, burst / 2, _PACKET_MAX_BYTES)
    return max(1, int(most_bytes / frame_bytes))


def _mac(kind: int, number: int) -> str:
    """Of the interface for payload (0) or control (1) of the place of that number; 02: locally administered."""
    return f"02:00:00:{kind:02x}:{number >> 8:02x}:{number & 255:02x}"


def _set(key: str, value: int) -> None:
    """A setting of the calling thread's namespace. One that this kernel does not have need not be set."""
    path = Path("/proc/sys", *key.split("/"))
    with contextlib.suppress(FileNotFoundError):
        path.write_text(f"{value}\n")
