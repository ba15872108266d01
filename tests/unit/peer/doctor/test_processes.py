from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from peer.doctor.processes import listener, started_unix_s


def test_who_listens_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert listener(server.getsockname()[1]).endswith(f"(pid {os.getpid()})")


def test_nobody_listens_at_a_port_that_is_only_bound() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert listener(bound.getsockname()[1]) == ""


def test_a_process_started_before_now() -> None:
    started = started_unix_s(Path("/proc/self/comm").read_text().strip())
    assert started is not None
    assert started <= time.time() + 1.0
    assert started_unix_s("no-such-program") is None
