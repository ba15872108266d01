"""Reads multipart/byteranges as a client would: by its boundary alone."""

from __future__ import annotations

import re

_PART = re.compile(
    rb"Content-Type: application/octet-stream\r\nContent-Range: (bytes [0-9]+-[0-9]+/[0-9]+)\r\n\r\n(.*)", re.S
)


def parts_of(content_type: str | None, body: bytes) -> list[tuple[str, bytes]]:
    """The Content-Range and bytes of each part. An assertion fails where the frame is not as RFC 9110 has it."""
    named = re.fullmatch(r"multipart/byteranges; boundary=([0-9a-zA-Z]{1,70})", content_type or "")
    assert named is not None, content_type
    boundary = named[1].encode()
    assert body.startswith(b"--" + boundary + b"\r\n")
    assert body.endswith(b"\r\n--" + boundary + b"--\r\n")
    inner = (b"\r\n" + body).removesuffix(b"\r\n--" + boundary + b"--\r\n")
    found = []
    for each in inner.split(b"\r\n--" + boundary + b"\r\n")[1:]:
        part = _PART.fullmatch(each)
        assert part is not None, each[:100]
        found.append((part[1].decode(), part[2]))
    return found
