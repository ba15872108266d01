"""Which clients pull through a peer, by which way and with which login: docs/clients.md, made from what the tests did.

A test says what it shows by `@pytest.mark.pulls(CLIENT, WAY, LOGIN)`, and `how="replayed"` where it sends only what
that client is documented to send. `make test` notes how such tests ended (tests/conftest.py), and this program then
compares the table: `python -m tests.support.clients_table check|write FOLDER`. A row whose test was skipped on this
machine, for want of a program, is left as it stands; with CI=true nothing is skipped.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = ROOT / "docs" / "clients.md"
# Where a run of tests notes what it did; unset: nowhere.
RESULTS_VARIABLE: Final = "LAYERCAST_CLIENT_RESULTS"
_HEAD: Final = ("| client | way | login | |", "| --- | --- | --- | --- |")

MIRROR, PREFIX, NS, PROXY, INSECURE = (
    "registry-mirrors (docker.io)",
    "registries.conf, the registry as the path's first part",
    "hosts.toml, `?ns=`",
    "HTTPS_PROXY, intercepted",
    "insecure registry, HTTP_PROXY",
)
NAMED: Final = "named in the image, `127.0.0.1:65001/HOST/NAME`"
NO_LOGIN, BY_PASSWORD, BY_TOKEN, BY_IDENTITY = "none", "password", "token", "identity token"

# Every combination that somebody may want. What no test shows is marked not run.
ROWS: Final[tuple[tuple[str, str, str], ...]] = (
    *(("dockerd", MIRROR, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN, BY_IDENTITY)),
    *(("dockerd", PROXY, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN)),
    ("dockerd", INSECURE, NO_LOGIN),
    ("docker build (BuildKit in dockerd)", MIRROR, NO_LOGIN),
    ("Docker 29 (containerd image store)", NS, NO_LOGIN),
    ("Docker 29 (containerd image store)", NS, BY_PASSWORD),
    ("Docker 29 (containerd image store)", NS, BY_TOKEN),
    *(("containerd, ctr", NS, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN, BY_IDENTITY)),
    *(("containerd, CRI", NS, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN, BY_IDENTITY)),
    *(("containerd 2, many ranges a layer", NS, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN)),
    *(("kubelet with a pull secret", NS, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN)),
    *(("podman", PREFIX, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN)),
    ("podman", NAMED, BY_TOKEN),
    *(("podman, zstd:chunked by ranges", PREFIX, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN)),
    *(("skopeo", PREFIX, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN, BY_IDENTITY)),
    ("skopeo", NAMED, BY_PASSWORD),
    ("skopeo", NAMED, BY_TOKEN),
    *(("skopeo", PROXY, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN)),
    *(("CRI-O", PREFIX, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN)),
    *(("buildah", PREFIX, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN)),
    *(("standalone buildkitd", NS, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN)),
    *(("crane", NAMED, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN, BY_IDENTITY)),
    *(("oras", NAMED, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN, BY_IDENTITY)),
    *(("stargz-snapshotter", NS, login) for login in (NO_LOGIN, BY_PASSWORD, BY_TOKEN)),
    ("curl", PROXY, NO_LOGIN),
)

Row = tuple[str, str, str]


def note_results(outcomes: Iterable[tuple[Row, str, str]]) -> None:
    """(row, how, outcome) of each test of a run, where the variable names a folder."""
    folder, lines = os.environ.get(RESULTS_VARIABLE), list(outcomes)
    if folder and lines:
        Path(folder, f"{uuid.uuid4()}.json").write_text(json.dumps(lines))


def marks(folder: Path, before: dict[Row, str]) -> dict[Row, str]:
    """What each row is to be marked. `before`: as the document has it."""
    seen: defaultdict[Row, list[tuple[str, str]]] = defaultdict(list)
    for file in sorted(folder.glob("*.json")):
        for row, how, outcome in json.loads(file.read_text()):
            seen[tuple(row)].append((how, outcome))
    unknown = set(seen) - set(ROWS)
    if unknown:
        raise SystemExit(f"tests name rows that tests/support/clients_table.py has not: {sorted(unknown)}")
    return {row: _mark(seen[row], before.get(row, "")) for row in ROWS}


def _mark(tests: list[tuple[str, str]], before: str) -> str:
    passed = {how for how, outcome in tests if outcome == "passed"}
    for how in ("run", "replayed"):
        if how in passed:
            # Where the test that runs it was skipped here, it was run elsewhere.
            skipped = how == "replayed" and ("run", "skipped") in tests
            return before if skipped else how
    return before if any(outcome == "skipped" for _, outcome in tests) else "not run"


def table(marked: dict[Row, str]) -> list[str]:
    return [*_HEAD, *(f"| {client} | {way} | {login} | {marked[client, way, login]} |" for client, way, login in ROWS)]


def split(text: str) -> tuple[list[str], list[str], list[str]]:
    """The document's lines before its table, the table's, and those after."""
    lines = text.splitlines()
    start = lines.index(_HEAD[0])
    end = next((at for at in range(start, len(lines)) if not lines[at].startswith("|")), len(lines))
    return lines[:start], lines[start:end], lines[end:]


def read(lines: Sequence[str]) -> dict[Row, str]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[len(_HEAD) :]]
    return {(client, way, login): mark for client, way, login, mark in cells}


def main(command: str, folder: str) -> int:
    before, lines, after = split(DOCUMENT.read_text())
    wanted = table(marks(Path(folder), read(lines)))
    if command == "write":
        DOCUMENT.write_text("\n".join([*before, *wanted, *after]) + "\n")
        return 0
    differing = [line for line in wanted if line not in lines] + [line for line in lines if line not in wanted]
    if differing or lines != wanted:
        print(f"{DOCUMENT.relative_to(ROOT)} is not what the tests did; these lines differ:")
        print("\n".join(differing))
        print(f"run the tests with {RESULTS_VARIABLE}=FOLDER, then: python -m tests.support.clients_table write FOLDER")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
