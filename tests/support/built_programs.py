"""Programs that Debian does not have. `python -m tests.support.built_programs` builds them, beforehand.

What cannot be built is said in one line; the tests that need it then fail or are skipped by themselves.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import pytest

from benchmarks.cluster.programs import find_program
from tests.support.go_programs import BuildFailed, GoProgram, OutOfReach, workshop
from tests.support.missing import skip_or_fail

DISTRIBUTION_3: Final = GoProgram(
    "distribution",
    "github.com/distribution/distribution/v3",
    "v3.1.2",
    # Its own main package has the drivers of every cloud, most of what there would be to build.
    source="""package main

import (
	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

func main() { _ = registry.RootCmd.Execute() }
""",
)
# A registry of the specification 1.1, referrers and all.
OLAREG: Final = GoProgram("olareg", "github.com/olareg/olareg", "v0.1.2", package="cmd/olareg")
# crane, oras, and stargz-snapshotter's reader: see the folder.
CLIENTS: Final = GoProgram(
    "clients",
    "github.com/google/go-containerregistry",
    "v0.22.1",
    folder=Path(__file__).parent / "go_clients",
    also=(("oras.land/oras", "v1.3.6"), ("github.com/containerd/stargz-snapshotter", "v0.19.1")),
)
# Renders and lints Helm charts: see the folder. The whole of Helm takes twice as long to build.
HELM: Final = GoProgram("helm", "helm.sh/helm/v3", "v3.20.2", folder=Path(__file__).parent / "go_helm")


def built(wanted: GoProgram) -> Path:
    """The program, for the running test, which is skipped where there is no Go or no module proxy, and fails in CI."""
    try:
        return wanted.built()
    except OutOfReach as error:
        skip_or_fail(str(error))
    except BuildFailed as error:
        pytest.fail(str(error), pytrace=False)


def main() -> None:
    """Build what is not there yet, and say so."""
    if find_program("go") is None:
        return  # which was said, or is what a test says
    with workshop() as place:
        for each in (OLAREG, DISTRIBUTION_3, CLIENTS, HELM):
            begun_s = time.monotonic()
            try:
                if each.built(_say, place):
                    _say(f"{each.name} {each.version} is there, after {time.monotonic() - begun_s:.0f} s")
            except BuildFailed as error:
                _say(str(error))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
