"""The image half of the Kubernetes CRI over gRPC, so that a pull looks as the kubelet's does, without crictl.

The few messages used are written and read by hand in the protobuf wire format; field numbers are those of
`runtime/v1/api.proto` of k8s.io/cri-api.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import grpc

from benchmarks.cluster.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SERVICE: Final = "/runtime.v1.ImageService/"
# What containerd answers between its first line that says "booted" and the end of its CRI plugin's start.
_STARTING: Final = "server is not initialized yet"


class _Call(Protocol):
    def __call__(self, request: bytes, *, timeout: float, wait_for_ready: bool) -> bytes: ...


class CriError(Exception):
    """The runtime refused a call; the message is its own."""


class CriImageService:
    """A connection to the CRI socket of a runtime that has started; a context manager. Raises CriError."""

    def __init__(self, socket_path: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix://{socket_path}")
        wait_until(self._started, "the runtime's image service")

    def __enter__(self) -> CriImageService:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def pull(
        self,
        reference: str,
        *,
        username: str = "",
        password: str = "",
        server_address: str = "",
        identity_token: str = "",
        timeout_s: float = 120.0,
    ) -> str:
        """PullImage; the image's reference as the runtime gives it (its config digest). Raises CriError."""
        request = _field(1, _image_spec(reference))
        if username or identity_token:
            auth = _field(1, username) + _field(2, password) + _field(5, identity_token)
            request += _field(2, auth + (_field(4, server_address) if server_address else b""))
        answer = self._call("PullImage", request, timeout_s)
        return next(value.decode() for number, value in _fields(answer) if number == 1)

    def images(self) -> dict[str, list[str]]:
        """ListImages: image id to its tags and digests."""
        images: dict[str, list[str]] = {}
        for number, image in _fields(self._call("ListImages", b"", 30.0)):
            if number == 1:
                parts = list(_fields(image))
                identity = next(value.decode() for field, value in parts if field == 1)
                images[identity] = [value.decode() for field, value in parts if field in (2, 3)]
        return images

    def remove(self, reference: str) -> None:
        """RemoveImage."""
        self._call("RemoveImage", _field(1, _image_spec(reference)), 30.0)

    def _started(self) -> bool:
        try:
            self.images()
        except CriError as error:
            if _STARTING in str(error):
                return False
            raise
        return True

    def _call(self, method: str, request: bytes, timeout_s: float) -> bytes:
        call: _Call = self._channel.unary_unary(_SERVICE + method)
        try:
            return call(request, timeout=timeout_s, wait_for_ready=True)
        except grpc.RpcError as error:
            raise CriError(f"{method}: {error}") from error


def _image_spec(reference: str) -> bytes:
    return _field(1, reference)


def _field(number: int, value: str | bytes) -> bytes:
    """A length-delimited field."""
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each length-delimited field; those of other kinds are passed over."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _, position = _read_varint(message, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        elif kind == 2:
            length, position = _read_varint(message, position)
            yield number, message[position : position + length]
            position += length
        else:
            raise CriError(f"the runtime's answer has a field of wire type {kind}, which proto3 does not use")


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
