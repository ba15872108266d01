"""multipart/byteranges: what stands around the parts, read back by Python's own parser of messages."""

from __future__ import annotations

import email.policy
from email.parser import BytesParser

from hypothesis import given
from hypothesis import strategies as st

from proto.oci.multipart import Multipart
from proto.oci.ranges import Part
from tests.support.multipart import parts_of

CONTENT = bytes(range(256))
BOUNDS = st.tuples(st.integers(0, 255), st.integers(1, 256)).filter(lambda pair: pair[0] < pair[1])


def test_it_reads_as_the_standard_has_it() -> None:
    multipart = Multipart((Part(206, 0, 2, 9), Part(206, 7, 9, 9)), "SEPARATOR")
    assert multipart.content_type == "multipart/byteranges; boundary=SEPARATOR"
    body = multipart.head(0) + b"ab" + multipart.head(1) + b"yz" + multipart.end
    assert body == (
        b"--SEPARATOR\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 0-1/9\r\n\r\nab"
        b"\r\n--SEPARATOR\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 7-8/9\r\n\r\nyz"
        b"\r\n--SEPARATOR--\r\n"
    )
    assert multipart.length_bytes == len(body)


@given(st.lists(BOUNDS, min_size=2, max_size=5))
def test_any_parts_are_read_back(bounds: list[tuple[int, int]]) -> None:
    multipart = Multipart(tuple(Part(206, start, end, 256) for start, end in bounds))
    contents = [CONTENT[start:end] for start, end in bounds]
    body = b"".join(multipart.head(number) + content for number, content in enumerate(contents)) + multipart.end
    assert len(body) == multipart.length_bytes
    head = f"Content-Type: {multipart.content_type}\r\n\r\n".encode()
    message = BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    ranges = [f"bytes {start}-{end - 1}/256" for start, end in bounds]
    assert [part["Content-Range"] for part in message.iter_parts()] == ranges
    assert parts_of(multipart.content_type, body) == list(zip(ranges, contents, strict=True))
