"""One side of one transfer, in a process of its own: `python -m benchmarks.dataplane.worker WAY ROLE JOB [ADDRESS]`.

It prints one JSON line when it can be reached (a sender) and one with what it used at its end.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from benchmarks.dataplane.contract import Job, Marks

if TYPE_CHECKING:
    from benchmarks.dataplane.contract import Way


def find_way(name: str) -> Way:
    """Each process imports its own way only: libtorrent and aiohttp are large."""
    if name == "floor":
        from benchmarks.dataplane import floor

        return floor
    if name == "layercast":
        from benchmarks.dataplane import layercast

        return layercast
    if name == "aiohttp":
        from benchmarks.dataplane import aiohttp_way

        return aiohttp_way
    from benchmarks.dataplane import torrent

    return torrent


def main() -> None:
    """See the module."""
    name, role, text, *rest = sys.argv[1:]
    way, job = find_way(name), Job.from_json(text)
    if role == "receive":
        marks = way.receive(job, rest[0])
        print(json.dumps({part: asdict(usage) for part, usage in marks.parts.items()}), flush=True)
        return
    marks = Marks()

    def started(address: str) -> None:
        marks.begin()
        print(json.dumps(address), flush=True)

    way.send(job, started)
    print(json.dumps({"all": asdict(marks.usage())}), flush=True)


if __name__ == "__main__":
    main()
