"""One GET over a connection that is given, with a limit on time and size. Blocking."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

TIMEOUT_S: Final = 5.0
_BYTES_MAX: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Empty where it is no object."""
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(self.body)
            if isinstance(found, dict):
                return found
        return {}

    def ahead_s(self) -> float:
        """By how much the server's clock is ahead of ours, as far as it says."""
        with contextlib.suppress(TypeError, ValueError):
            return email.utils.parsedate_to_datetime(self.headers.get("date", "")).timestamp() - time.time()
        return 0.0

    def retry_after_s(self) -> float:
        """0 where it does not say."""
        with contextlib.suppress(ValueError):
            return float(self.headers.get("retry-after", "0"))
        return 0.0


def get(connection: socket.socket, host: str, path: str) -> Answer:
    """Raises OSError, http.client.HTTPException, TimeoutError. The connection is the caller's to close."""
    client = http.client.HTTPConnection(host, timeout=TIMEOUT_S)
    connection.settimeout(TIMEOUT_S)
    client.sock = connection
    client.request("GET", path, headers={"Host": host, "Connection": "close", "Accept": "application/json, */*"})
    response = client.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read(_BYTES_MAX))
