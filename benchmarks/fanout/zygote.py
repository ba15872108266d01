"""One process that has imported the peer, and forks: 200 interpreters would cost a minute of CPU before the first byte.

    python -m benchmarks.fanout.zygote [--torrent] [--steps]

It has no thread, no loop and no libtorrent session, ever. Each line of its input asks for one child, as JSON with
`node`, `netns` (a name or null), `log` (a file) and `argv` (the peer's own flags); each child enters its namespace and
runs the peer's unchanged main. A line of output says `ready`, or which node's process began or ended. When its input
ends it ends all children. Every child dies with it, whatever happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Final, NoReturn

from benchmarks.cluster.namespaces import enter
from benchmarks.cluster.steps import Steps
from benchmarks.fanout.step_table import SUFFIX

_PR_SET_PDEATHSIG: Final = 1
# A peer promises to end within 5 s of SIGTERM.
_TERM_S: Final = 6.0
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Zygote:
    """The loop."""

    def __init__(self, steps: Steps | None) -> None:
        self._steps = steps
        self._nodes: dict[int, int] = {}
        # A child that ends makes this readable.
        self._wake, self._wake_write = os.pipe()
        for descriptor in (self._wake, self._wake_write):
            os.set_blocking(descriptor, False)

    def serve(self) -> None:
        """Until the input ends."""
        signal.set_wakeup_fd(self._wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _say({"ready": os.getpid()})
        pending = b""
        while True:
            readable, _, _ = select.select([0, self._wake], [], [])
            if self._wake in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)
                self._reap()
            if 0 in readable:
                data = os.read(0, 65536)
                if not data:
                    break
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self._spawn(json.loads(line))
        self._end_all()

    def _spawn(self, request: dict[str, object]) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_peer(request, parent)
        node = request["node"]
        assert isinstance(node, int)
        self._nodes[pid] = node
        _say({"node": node, "pid": pid})

    def _become_peer(self, request: dict[str, object], parent: int) -> NoReturn:
        """In the child, which never returns."""
        status = 70
        try:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(status)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            log = os.open(str(request["log"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            for source, target in ((nothing, 0), (log, 1), (log, 2)):
                os.dup2(source, target)
            for descriptor in (nothing, log, self._wake, self._wake_write):
                os.close(descriptor)
            if request["netns"] is not None:
                enter(str(request["netns"]))
            status = _run_peer(request["argv"])
            if self._steps is not None:
                self._steps.write(Path(f"{request['log']}{SUFFIX}"))
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            # Nothing of the zygote's is to be torn down here.
            os._exit(status)

    def _reap(self) -> None:
        while self._nodes:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _say({"ended": self._nodes.pop(pid), "status": os.waitstatus_to_exitcode(status)})

    def _end_all(self) -> None:
        deadline_s = time.monotonic() + _TERM_S
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._nodes:
                os.kill(pid, number)
            while self._nodes and (number == signal.SIGKILL or time.monotonic() < deadline_s):
                pid, _ = os.waitpid(-1, 0 if number == signal.SIGKILL else os.WNOHANG)
                self._nodes.pop(pid, None)
                if pid == 0:
                    time.sleep(0.02)


def _run_peer(argv: object) -> int:
    from peer.__main__ import run  # imported in main() already

    assert isinstance(argv, list)
    return run([str(word) for word in argv])


def _say(message: dict[str, object]) -> None:
    # Whoever reads may be gone: then this process ends with its input.
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(message).encode() + b"\n")


def main() -> None:
    """Import what a peer needs, then serve."""
    for module in ("peer.__main__", "peer.app", "proto.runtime.service"):
        importlib.import_module(module)
    if "--torrent" in sys.argv[1:]:
        importlib.import_module("libtorrent")
    steps = Steps() if "--steps" in sys.argv[1:] else None
    if steps is not None:
        steps.measure()
    gc.collect()
    # The collector would write to every object's header, and so copy every shared page.
    gc.freeze()
    Zygote(steps).serve()


if __name__ == "__main__":
    main()
