"""The clients of a run, as container engines do: manifest and config, then the layers, some at a time, each hashed.

    python -m benchmarks.fanout.clients

One process with a thread and a connection a transfer, each inside its node's namespace: the least that it can cost,
and counted apart from the product. Its first line of input describes the run, the second (`go`) is the barrier after
the manifests; a third (`join`) starts the joiners. Lines of output tell what each node's client has.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.http_messages import Head, SocketReader, WireError
from benchmarks.cluster.namespaces import enter

if TYPE_CHECKING:
    from collections.abc import Sequence

_READ_BYTES: Final = 256 << 10
# The kernel wakes a reader at so many bytes, where so many are still to come.
_WAKE_BYTES: Final = 64 << 10
_HEAD_BYTES: Final = 16 << 10
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
    lock: threading.Lock = field(default_factory=threading.Lock)

    def first_byte(self) -> None:
        """A byte of a layer is here."""
        now_s = time.monotonic()
        with self.lock:
            self.first_byte_s = self.first_byte_s or now_s


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
        times = {"asked_s": asked_s, "first_byte_s": first_byte_s, "completed_s": completed_s}
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


class Connection:
    """To one proxy, kept from request to request as container engines keep theirs; a context manager."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The next request makes a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(self, path: str, accept: str = "*/*") -> tuple[socket.socket, int, bytes]:
        """Send a GET: where its body comes, its length, and what of it came with the head. Raises PullError, OSError.

        All of the body must be read before the next request.
        """
        request = Head(f"GET {path} HTTP/1.1", [("Host", self._address), ("Accept", accept)]).encode()
        if self._socket is not None:
            try:
                return self._exchange(self._socket, path, request)
            except ConnectionError:  # closed while it rested
                self.close()
        self._socket = _connected(self._address)
        return self._exchange(self._socket, path, request)

    def _exchange(self, kept: socket.socket, path: str, request: bytes) -> tuple[socket.socket, int, bytes]:
        kept.sendall(request)
        reader = SocketReader(kept, _HEAD_BYTES)
        try:
            head = reader.read_head()
        except WireError as error:
            raise PullError(f"GET {path}: {error}") from None
        if head is None:
            raise ConnectionError("hung up before its answer")
        size = head.get("Content-Length")
        if head.first_line.split(" ", 2)[1] != "200" or size is None:
            raise PullError(f"GET {path}: answered {head.first_line!r}")
        if head.wants_close():
            self._socket = None  # and whoever reads the body has the last reference to it
        return kept, int(size), reader.take_pending()


def fetch(connection: Connection, path: str, accept: str = "*/*") -> bytes:
    """A small answer, whole. Raises PullError, OSError."""
    source, size_bytes, body = connection.ask(path, accept)
    while len(body) < size_bytes:
        part = source.recv(_READ_BYTES)
        if not part:
            raise PullError(f"GET {path}: the answer ended early")
        body += part
    return body


def pull_blob(connection: Connection, path: str, digest: str, pull: Pull) -> None:
    """A layer, hashed and thrown away. Raises PullError, OSError."""
    hasher = hashlib.new(digest.partition(":")[0])
    source, size_bytes, body = connection.ask(path)
    if not body and size_bytes:
        body = source.recv(_READ_BYTES)
    if body:
        pull.first_byte()
    hasher.update(body)
    received = len(body)
    buffer = memoryview(bytearray(min(_READ_BYTES, size_bytes - received)))
    while received < size_bytes:
        count = _read(source, buffer, size_bytes - received)
        if not count:
            raise PullError(f"{digest[:19]} ended after {received} of {size_bytes} bytes")
        hasher.update(buffer[:count])
        received += count
    if hasher.hexdigest() != digest.partition(":")[2]:
        raise PullError(f"{digest[:19]} came with another content")


def _read(source: socket.socket, buffer: memoryview, left: int) -> int:
    """A full buffer, or all that is left; less only at the end of the stream."""
    wanted = min(len(buffer), left)
    # A reader that wakes for each segment costs more than the hashing; below the mark a tail would wait for ever.
    wake = _WAKE_BYTES if left - wanted >= _WAKE_BYTES else 1
    source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wake)
    return source.recv_into(buffer[:wanted], wanted, socket.MSG_WAITALL)


def _connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), _CONNECT_S)
    # Truly blocking: a timeout would make MSG_WAITALL return at once. Whoever runs us has the deadline.
    connection.settimeout(None)
    return connection


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
