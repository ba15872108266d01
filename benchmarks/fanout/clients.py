"""The clients of a run, as container engines do: manifest and config, then the layers, some at a time, each hashed.

    python -m benchmarks.fanout.clients

One process with a thread and a connection a transfer, each inside its node's namespace: the least that it can cost,
and counted apart from the product. Its first line of input describes the run, the second (`go`) is the barrier after
the manifests; a third (`join`) starts the joiners. Lines of output tell what each node's client has.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.closing import Closing
from benchmarks.cluster.namespaces import enter

if TYPE_CHECKING:
    from collections.abc import Sequence

_READ_BYTES: Final = 256 << 10
# The kernel wakes a reader at so many bytes, where so many are still to come.
_WAKE_BYTES: Final = 64 << 10
_STACK_BYTES: Final = 256 << 10
_CONNECT_S: Final = 30.0


class PullError(Exception):
    """A pull that did not come to the right end; one line."""


@dataclass(slots=True)
class Pull:
    """One node's client. Times are monotonic seconds."""

    node: int
    netns: str | None
    address: str
    # Seconds after the barrier; None: a joiner.
    arrival_s: float | None
    asked_s: float = 0.0
    first_byte_s: float = 0.0
    completed_s: float = 0.0
    error: str = ""
    # From the request for each layer to its first byte.
    waits_s: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def first_byte(self, asked_s: float) -> None:
        """A byte of a layer is here that was asked for then."""
        now_s = time.monotonic()
        with self.lock:
            self.first_byte_s = self.first_byte_s or now_s
            self.waits_s.append(now_s - asked_s)


class Clients:
    """All of them."""

    def __init__(self, run: dict[str, object]) -> None:
        self._repository = str(run["repository"])
        self._manifest = str(run["manifest"])
        self._media_type = str(run["media_type"])
        parallel, layers, nodes = run["parallel"], run["layers"], run["nodes"]
        assert isinstance(parallel, int)
        assert isinstance(layers, list)
        assert isinstance(nodes, list)
        self._layers: list[str] = layers
        self._parallel = min(parallel, len(layers))
        self._pulls = [Pull(**one) for one in nodes]
        self._go = threading.Event()
        self._join = threading.Event()
        self._began_s = 0.0
        self._writing = threading.Lock()

    def start(self) -> None:
        """A thread a client; they fetch their manifests and wait."""
        threading.stack_size(_STACK_BYTES)
        for pull in self._pulls:
            # Daemons: a client that hangs must not keep the process when its input ends.
            threading.Thread(target=self._run, args=(pull,), daemon=True).start()

    def go(self) -> None:
        """The barrier falls."""
        self._began_s = time.monotonic()
        self._say({"began_s": self._began_s})
        self._go.set()

    def join(self) -> None:
        """Joiners may begin."""
        self._join.set()

    def _run(self, pull: Pull) -> None:
        try:
            if pull.netns is not None:
                enter(pull.netns)
            with Connection(pull.address) as connection:
                self._read_manifest(connection)
                self._say({"node": pull.node, "has": "manifest"})
                if pull.arrival_s is None:
                    self._join.wait()
                else:
                    self._go.wait()
                    time.sleep(max(0.0, self._began_s + pull.arrival_s - time.monotonic()))
                pull.asked_s = time.monotonic()
                self._pull_layers(pull, connection)
                pull.completed_s = time.monotonic()
        except (PullError, OSError) as error:
            pull.error = f"{error}"
        asked_s, first_byte_s, completed_s = pull.asked_s, pull.first_byte_s, pull.completed_s
        wait_s = statistics.median(pull.waits_s) if pull.waits_s else 0.0
        times = {"asked_s": asked_s, "first_byte_s": first_byte_s, "completed_s": completed_s, "wait_s": wait_s}
        self._say({"node": pull.node, "has": "layers", "error": pull.error, **times})

    def _read_manifest(self, connection: Connection) -> None:
        body = fetch(connection, f"/v2/{self._repository}/manifests/{self._manifest}", self._media_type)
        document = json.loads(body)
        named = [layer["digest"] for layer in document["layers"]]
        if named != self._layers:
            raise PullError("the manifest names other layers than were pushed")
        config = str(document["config"]["digest"])
        if hashlib.sha256(fetch(connection, self._blob_path(config))).hexdigest() != config.partition(":")[2]:
            raise PullError("the config does not have its digest")

    def _blob_path(self, digest: str) -> str:
        return f"/v2/{self._repository}/blobs/{digest}"

    def _pull_layers(self, pull: Pull, connection: Connection) -> None:
        """In their order, `parallel` at a time. Raises PullError, OSError: the first one's."""
        waiting = list(reversed(self._layers))
        errors: list[Exception] = []

        def work(connection: Connection) -> None:
            try:
                while waiting and not errors:
                    digest = waiting.pop()
                    pull_blob(connection, self._blob_path(digest), digest, pull)
            except (PullError, OSError) as error:
                errors.append(error)

        def help_out() -> None:
            try:
                if pull.netns is not None:
                    enter(pull.netns)
                with Connection(pull.address) as own:
                    work(own)
            except OSError as error:
                errors.append(error)

        others = [threading.Thread(target=help_out, daemon=True) for _ in range(self._parallel - 1)]
        for thread in others:
            thread.start()
        work(connection)
        for thread in others:
            thread.join()
        if errors:
            raise errors[0]

    def _say(self, message: dict[str, object]) -> None:
        with self._writing:
            os.write(1, json.dumps(message).encode() + b"\n")


class Connection(http.client.HTTPConnection, Closing):
    """To one proxy, kept from request to request as container engines keep theirs; a context manager."""

    def __init__(self, address: str) -> None:
        super().__init__(address, timeout=_CONNECT_S)

    def connect(self) -> None:
        """Truly blocking from here on: whoever runs us has the deadline."""
        super().connect()
        self.receiving: socket.socket = self.sock
        self.receiving.settimeout(None)

    def ask(self, path: str, accept: str = "*/*") -> http.client.HTTPResponse:
        """The answer to a GET, whose body must be read before the next request. Raises PullError, OSError."""
        rested = self.sock is not None
        try:
            self.request("GET", path, headers={"Accept": accept})
            response = self.getresponse()
        except ConnectionError:
            self.close()
            if not rested:
                raise
            # It was closed while it rested.
            return self.ask(path, accept)
        except http.client.HTTPException as error:
            raise PullError(f"GET {path}: {error}") from None
        if response.status != 200 or response.length is None:
            raise PullError(f"GET {path}: answered {response.status} {response.reason}")
        return response


def fetch(connection: Connection, path: str, accept: str = "*/*") -> bytes:
    """A small answer, whole. Raises PullError, OSError."""
    try:
        return connection.ask(path, accept).read()
    except http.client.IncompleteRead:
        raise PullError(f"GET {path}: the answer ended early") from None


def pull_blob(connection: Connection, path: str, digest: str, pull: Pull) -> None:
    """A layer, hashed and thrown away. Raises PullError, OSError."""
    algorithm, _, wanted = digest.partition(":")
    asked_s = time.monotonic()
    hasher, response = hashlib.new(algorithm), connection.ask(path)
    size_bytes = response.length or 0
    first = response.read(1)
    if first:
        pull.first_byte(asked_s)
    hasher.update(first)
    received, buffer = len(first), memoryview(bytearray(_READ_BYTES))
    while received < size_bytes:
        # A reader that wakes for each segment costs more than the hashing; below the mark a tail would wait for ever.
        many = size_bytes - received >= len(buffer) + _WAKE_BYTES
        connection.receiving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _WAKE_BYTES if many else 1)
        count = response.readinto(buffer)
        if not count:
            raise PullError(f"{digest[:19]} ended after {received} of {size_bytes} bytes")
        hasher.update(buffer[:count])
        received += count
    if hasher.hexdigest() != wanted:
        raise PullError(f"{digest[:19]} came with another content")


def main(lines: Sequence[str] | None = None) -> None:
    """Serve the lines of the input; ends with it."""
    clients: Clients | None = None
    for line in sys.stdin if lines is None else lines:
        message = json.loads(line)
        if clients is None:
            clients = Clients(message)
            clients.start()
        elif "go" in message:
            clients.go()
        elif "join" in message:
            clients.join()


if __name__ == "__main__":
    main()
