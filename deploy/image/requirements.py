"""Prints, from requirements.lock, what Layercast needs to run: without the tools of its development.

`requirements.py LOCK NAME`, in an environment where the distribution NAME and all that it needs are installed.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed(name: str) -> set[str]:
    """The distributions that this one needs on this machine, and those that they need."""
    found: set[str] = set()
    left = [(name, frozenset[str]())]
    while left:
        current, extras = left.pop()
        for text in importlib.metadata.requires(current) or []:
            requirement = Requirement(text)
            marker = requirement.marker
            wanted = marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""})
            canonical = canonicalize_name(requirement.name)
            if wanted and canonical not in found:
                found.add(canonical)
                left.append((canonical, frozenset(requirement.extras)))
    return found


def main() -> None:
    """Each kept requirement with its hashes, as it stands in the lock."""
    lock, name = sys.argv[1:]
    wanted = needed(name)
    blocks = re.findall(r"^[^\s#].*(?:\n[ \t]+.*)*", Path(lock).read_text(), re.MULTILINE)
    kept = {canonicalize_name(re.split(r"[=\[; ]", block, maxsplit=1)[0]): block for block in blocks}
    if missing := wanted - set(kept):
        sys.exit(f"{lock} lacks {', '.join(sorted(missing))}: run make lock")
    print("\n".join(kept[each] for each in sorted(wanted)))


if __name__ == "__main__":
    main()
