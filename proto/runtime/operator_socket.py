"""Commands to a running service, by a unix socket in its data folder that only its own user may open.

A request is one line of JSON, {"command": NAME, "argument": TEXT}. The answer is lines of JSON: {"said": TEXT} as the
work goes on, then {"ended": TEXT, "code": EXIT}. Commands may take long and run in threads here; what they do is
given by the service. Nothing here goes over a network.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeAlias

from proto.errors import LayercastError, LocalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    # Given its argument and a way to say lines meanwhile: the last line and the exit code. Raises LayercastError.
    OperatorCommand: TypeAlias = Callable[[str, Callable[[str], None]], tuple[str, int]]

NAME: Final = "operator.sock"
_LINE_BYTES_MAX: Final = 64 * 1024
_AT_A_TIME: Final = 2
_BACKLOG: Final = 8
# A client that says nothing, or does not read, is dropped.
_TIMEOUT_S: Final = 10.0

log = logging.getLogger(__name__)


class OperatorSocket:
    """Listens as soon as it is made; close() ends it. Raises LocalError when it cannot listen."""

    def __init__(self, data_dir: Path, commands: Mapping[str, OperatorCommand]) -> None:
        self._commands = commands
        self._closed = False
        self._listener = socket.socket(socket.AF_UNIX)
        try:
            with _short_path(data_dir) as path:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # of a process that was killed: the folder is ours alone
                self._listener.bind(path)
                os.chmod(path, 0o600)
            self._listener.listen(_BACKLOG)
        except OSError as error:
            self._listener.close()
            raise LocalError(f"--data-dir {data_dir}: no socket for the operator there: {error.strerror}") from None
        self._workers = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="operator")
        self._thread = threading.Thread(target=self._accept, name="operator", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Waits for commands that run. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                continue
            connection.settimeout(_TIMEOUT_S)
            self._workers.submit(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rwb") as stream:

            def say(**line: object) -> None:
                stream.write(json.dumps(line).encode() + b"\n")
                stream.flush()

            try:
                asked = json.loads(stream.readline(_LINE_BYTES_MAX))
                command, argument = self._commands[asked["command"]], str(asked["argument"])
            except (ValueError, RecursionError, KeyError, TypeError):
                say(ended="this service does not know the command: use the release that it has", code=1)
                return
            try:
                ended, code = command(argument, lambda text: say(said=text))
            except LayercastError as error:
                ended, code = str(error), 1
            except OSError:
                raise
            except Exception:
                log.exception("operator_command_failed")
                ended, code = "internal error; see the log of the service", 1
            say(ended=ended, code=code)


def ask(data_dir: Path, command: str, argument: str, said: Callable[[str], None]) -> tuple[str, int] | None:
    """Have the service of this data folder do it: the last line and the exit code; None when none runs there.

    `said` is called with each line before the last. Raises LocalError when the service cannot be asked.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            with _short_path(data_dir) as path:
                connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise LocalError(f"{data_dir / NAME}: {error.strerror}; run this as the user of the service") from None
        try:
            with connection.makefile("rwb") as stream:
                request = {"command": command, "argument": argument}
                stream.write(json.dumps(request).encode() + b"\n")
                stream.flush()
                for line in stream:
                    answer = json.loads(line)
                    if "ended" in answer:
                        return str(answer["ended"]), int(answer["code"])
                    said(str(answer.get("said", "")))
        except (OSError, ValueError) as error:
            raise LocalError(f"{data_dir}: the service there gave no answer ({error}); see its log") from None
    raise LocalError(f"{data_dir}: the service there stopped before it was done; see its log")


@contextlib.contextmanager
def _short_path(data_dir: Path) -> Iterator[str]:
    """The socket's path by way of a descriptor: that of a socket has 107 bytes at most, that of a folder more."""
    folder = os.open(data_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{NAME}"
    finally:
        os.close(folder)
