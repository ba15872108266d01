"""The real clients a demo pulls with, each through one peer's mirror: skopeo where it is, else `layercast pull`.

A puller runs one program to its end and says which blobs of the image it has on disk afterwards, digest checked by us.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.harness.cluster import script
from benchmarks.harness.processes import run
from benchmarks.harness.programs import clean_environment, find_program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.origin.image import BlobFile

PULL_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class Pulled:
    """One node's pull: how long the client ran, and how many blobs have the right digest on its disk."""

    elapsed_s: float
    digests_right: int


def client_name() -> str:
    """Which client this machine pulls with."""
    return "skopeo" if find_program("skopeo") else "layercast pull"


def pull(proxy: str, repository: str, directory: Path, blobs: Sequence[BlobFile]) -> Pulled:
    """Pull `repository:latest` through the mirror at HOST:PORT into `directory`. Raises ProcessError."""
    directory.mkdir(parents=True)
    started_s = time.monotonic()
    skopeo = find_program("skopeo")
    if skopeo:
        policy = directory / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        # `dir:` keeps every blob as it came, compressed, under its digest's hex.
        words: list[str | Path] = [
            skopeo,
            "--policy",
            policy,
            "--tmpdir",
            directory,
            "copy",
            "--quiet",
            "--src-tls-verify=false",
        ]
        target = directory / "image"
        run(
            [*words, f"docker://{proxy}/{repository}:latest", f"dir:{target}"],
            env=clean_environment(HOME=str(directory)),
            timeout_s=PULL_TIMEOUT_S,
        )
        files = {blob.digest: target / blob.digest.partition(":")[2] for blob in blobs}
    else:
        target = directory / "image"
        run(
            [script("layercast"), "pull", f"{repository}:latest", "--via", f"http://{proxy}", "--output", target],
            timeout_s=PULL_TIMEOUT_S,
        )
        files = {blob.digest: target / "blobs" / blob.digest.replace(":", "/") for blob in blobs}
    elapsed_s = time.monotonic() - started_s
    return Pulled(elapsed_s, sum(_sha256(path) == digest for digest, path in files.items()))


def _sha256(path: Path) -> str:
    if not path.is_file():
        return "absent"
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
