"""A client that reads a body and throws it away: plain, or by TLS, through a proxy where one is named."""

from __future__ import annotations

import socket
import ssl
from typing import Final

from proto.errors import LocalError

_BUFFER_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 600.0


def is_listening(port: int) -> bool:
    """Whether anybody is there."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def read_plain(port: int, target: str, size_bytes: int) -> None:
    """A GET of a server on loopback."""
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        _read_answer(sock, size_bytes)


def read_intercepted(port: int, host: str, target: str, size_bytes: int) -> None:
    """The same through a tunnel to `host`, which the proxy ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as plain:
        plain.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += plain.recv(1) or _gone()
        if b" 200 " not in answer:
            raise LocalError(f"CONNECT {host}: {answer.splitlines()[0].decode()}")
        with _anyone().wrap_socket(plain, server_hostname=host) as sock:
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            _read_answer(sock, size_bytes)


def read_bare_tls(port: int, size_bytes: int) -> None:
    """All that a TLS server sends."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
    with plain, _anyone().wrap_socket(plain) as sock:
        _read(sock, size_bytes, b"")


def _anyone() -> ssl.SSLContext:
    """What the certificate says is no matter here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _read_answer(sock: socket.socket, size_bytes: int) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(64 * 1024) or _gone()
    head, _, body = head.partition(b"\r\n\r\n")
    status = head.splitlines()[0].decode()
    if " 200 " not in status:
        raise LocalError(f"the server answered {status}")
    _read(sock, size_bytes, body)


def _read(sock: socket.socket, size_bytes: int, begun: bytes) -> None:
    buffer, received = memoryview(bytearray(_BUFFER_BYTES)), len(begun)
    while received < size_bytes:
        received += sock.recv_into(buffer) or len(_gone())


def _gone() -> bytes:
    raise LocalError("the server ended its answer early")
