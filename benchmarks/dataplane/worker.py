"""One side of one transfer, in a process of its own: `python -m benchmarks.dataplane.worker WAY ROLE JOB [ADDRESS]`.

It prints one JSON line when it can be reached (a sender) and one with what it used at its end.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from benchmarks.dataplane.contract import Job, Sending

if TYPE_CHECKING:
    from benchmarks.dataplane.contract import Way


def main() -> None:
    """See the module."""
    name, role, text, *rest = sys.argv[1:]
    # Each process imports its own way alone: libtorrent is large.
    way = cast("Way", importlib.import_module(f"benchmarks.dataplane.{name}"))
    job = Job(**json.loads(text))
    if role == "receive":
        marks = way.receive(job, *rest)
    else:
        sending = Sending(lambda address: _say({"address": address}))
        way.send(job, sending)
        marks = sending.marks
    _say({part: asdict(usage) for part, usage in marks.parts.items()})


def _say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
