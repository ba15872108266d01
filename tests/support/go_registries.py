"""Two registries that Debian does not have. `python -m tests.support.go_registries` builds them, beforehand.

What cannot be built is said in one line; the tests that need it then fail or are skipped by themselves.
"""

from __future__ import annotations

import time
from typing import Final

from benchmarks.cluster.programs import find_program
from tests.support.go_programs import BuildFailed, GoProgram

DISTRIBUTION_3: Final = GoProgram(
    "distribution",
    "github.com/distribution/distribution/v3",
    "v3.1.2",
    # Its own main package has the drivers of every cloud, most of what there would be to build.
    source="""package main

import (
	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

func main() { _ = registry.RootCmd.Execute() }
""",
)
# A registry of the specification 1.1, referrers and all.
OLAREG: Final = GoProgram("olareg", "github.com/olareg/olareg", "v0.1.2", package="cmd/olareg")


def main() -> None:
    """Build what is not there yet, and say so."""
    if find_program("go") is None:
        return  # which was said, or is what a test says
    for registry in (OLAREG, DISTRIBUTION_3):
        begun_s = time.monotonic()
        try:
            if registry.built(_say):
                _say(f"{registry.name} {registry.version} is there, after {time.monotonic() - begun_s:.0f} s")
        except BuildFailed as error:
            _say(str(error))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
