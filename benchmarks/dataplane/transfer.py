"""Moves the blob once by one way, in two fresh processes, and adds up what they used."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.helper import Helper
from benchmarks.dataplane.contract import Usage
from proto.errors import LocalError

if TYPE_CHECKING:
    from benchmarks.cluster.helper import Message
    from benchmarks.dataplane.contract import Job

_TIMEOUT_S: Final = 1800.0


@dataclass(frozen=True)
class Measured:
    """One transfer. The receiver's parts are each counted from its beginning; "all" is the whole."""

    sender: Usage
    receiver: dict[str, Usage]

    def cpu_s(self, part: str) -> float:
        """Of both processes."""
        return self.sender.cpu_s + self.receiver[part].cpu_s

    def elapsed_s(self, part: str) -> float:
        """At the receiver."""
        return self.receiver[part].elapsed_s


def transfer(way: str, job: Job) -> Measured:
    """Move the blob once. Raises LocalError; no process and no target is left behind."""
    folder = Path(job.target).parent
    words = [json.dumps(asdict(job))]
    try:
        with Helper("benchmarks.dataplane.worker", [way, "send", *words], folder / "sender.log") as sender:
            address = str(_said(sender, way)["address"])
            words.append(address)
            with Helper("benchmarks.dataplane.worker", [way, "receive", *words], folder / "receiver.log") as receiver:
                received = _usage(_said(receiver, way))
            sender.end_input()
            sent = _usage(_said(sender, way))
    finally:
        shutil.rmtree(job.target, ignore_errors=True)
    return Measured(sent["all"], received)


def _said(helper: Helper, way: str) -> Message:
    message = helper.receive(_TIMEOUT_S)
    if message is None:
        raise LocalError(f"a process of {way} came to no end within {_TIMEOUT_S:g} s")
    return message


def _usage(message: Message) -> dict[str, Usage]:
    return {part: Usage(**used) for part, used in message.items() if isinstance(used, dict)}
