"""Secrets that are planted in a cluster, in every form in which they could be found again; and where to look.

For tests that say: found nowhere.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import socket
import threading
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from benchmarks.cluster.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.cluster.services import Service

# Linux: every frame, and one that this machine sends (it comes once more as one that it gets).
_ETH_P_ALL: Final = 3
_PACKET_OUTGOING: Final = 4
_TCP: Final = 6
_FRAME_BYTES_MAX: Final = 1 << 17
_BUFFER_BYTES: Final = 64 << 20
_SO_RCVBUFFORCE: Final = 33
# WebSocket clients cover what they send with four bytes, again and again (RFC 6455 section 5.3).
_MASK_BYTES: Final = 4


def forms(secret: bytes) -> set[bytes]:
    """As it is, in hex, as URLs have it, and in base64 wherever in a text it begins."""
    found = {secret, secret.hex().encode(), quote(secret, safe="").encode()}
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(bytes(before) + secret)
            # What its neighbours would change is left out.
            found.add(encoded[(0, 2, 3)[before] : len(encoded) // 4 * 4 - 4])
    return found


def places(service: Service) -> Iterator[tuple[str, bytes]]:
    """All that a service wrote, and how it was started: files (databases and their journals, too), log, /proc."""
    yield "log", "\n".join(service.process.log()).encode()
    process = Path("/proc") / str(service.process.pid)
    for name in ("cmdline", "environ"):
        yield name, (process / name).read_bytes()
    for path in sorted(service.data_dir.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                yield str(path), path.read_bytes()


def found_at(services: list[Service], secrets: dict[str, bytes]) -> list[str]:
    """Where which of the secrets stands, by their names."""
    every = [(name, form) for name, secret in secrets.items() for form in forms(secret)]
    return [
        f"{name} in {service.name}'s {place}"
        for service in services
        for place, content in places(service)
        for name, form in every
        if form in content
    ]


def _differences(content: bytes) -> bytes:
    """What no mask changes."""
    size = len(content) - _MASK_BYTES
    if size <= 0:
        return b""
    return (int.from_bytes(content[:size], "big") ^ int.from_bytes(content[_MASK_BYTES:], "big")).to_bytes(size, "big")


class Wire:
    """What goes over loopback while it is open, by the two ports of a connection's direction. Needs root.

    Of the caller's network namespace, which should be the test's own: the kernel drops what is not taken in time.
    """

    def __init__(self) -> None:
        self._flows: defaultdict[tuple[int, int], bytearray] = defaultdict(bytearray)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind(("lo", _ETH_P_ALL))
        self._socket.settimeout(0.2)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="wire")
        self._thread.start()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def settle(self) -> None:
        """Return when all that went over loopback before is known here: what was sent last has come.

        It is sent again while it has not: the kernel drops frames where nobody takes them for long.
        """
        mark = secrets.token_bytes(16)
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()) as sender,
        ):
            flow = sender.getsockname()[1], listener.getsockname()[1]

            def has_come() -> bool:
                sender.sendall(mark)
                return mark in bytes(self._flows.get(flow, b""))

            wait_until(has_come, "what was sent over loopback last")

    def carries(self, secret: bytes, but: set[int]) -> list[tuple[int, int]]:
        """The flows that had it in any form, masked or not, and have none of the ports `but`."""
        plain = forms(secret)
        masked = [_differences(form) for form in plain]
        return [
            flow
            for flow, content in list(self._flows.items())
            if not but.intersection(flow) and _has(bytes(content), plain, masked)
        ]

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                packet, address = self._socket.recvfrom(_FRAME_BYTES_MAX)
            except TimeoutError:
                continue
            if address[2] != _PACKET_OUTGOING and packet[0] >> 4 == 4 and packet[9] == _TCP:
                self._keep(packet)

    def _keep(self, packet: bytes) -> None:
        segment = packet[4 * (packet[0] & 15) : int.from_bytes(packet[2:4], "big")]
        ports = int.from_bytes(segment[:2], "big"), int.from_bytes(segment[2:4], "big")
        self._flows[ports] += segment[4 * (segment[12] >> 4) :]


def _has(content: bytes, plain: set[bytes], masked: list[bytes]) -> bool:
    unmasked = _differences(content)
    return any(form in content for form in plain) or any(form in unmasked for form in masked)
