"""What Kubernetes takes, by its own OpenAPI documents: JSON schemas of several releases, from a wheel of PyPI.

The wheel (kubernetes-validate) is fetched once into the user's cache folder and read as it is: unpacked it would be
17,000 files in each environment. Its "strict" schemas refuse fields that Kubernetes does not know.
"""

from __future__ import annotations

import functools
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jsonschema
from referencing import Registry, Resource

from tests.support.missing import skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PACKAGE: Final = "kubernetes-validate==1.37.0"
_SHA256: Final = "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9"
_WHEEL: Final = "kubernetes_validate-1.37.0-py3-none-any.whl"
_TIMEOUT_S: Final = 300.0


def faults(document: Mapping[str, Any], release: str) -> Iterator[str]:
    """What Kubernetes of this release ("1.34") finds wrong with a manifest, a kind that it does not know among it."""
    group = str(document["apiVersion"]).rpartition("/")[0].partition(".")[0]
    version = str(document["apiVersion"]).rpartition("/")[2]
    name = "-".join(part for part in (str(document["kind"]).lower(), group, version) if part)
    try:
        schema = _read(release, name)
    except KeyError:
        yield f"{document['kind']} of {document['apiVersion']}: Kubernetes {release} has no such kind"
        return
    validator = jsonschema.Draft202012Validator(schema, registry=_definitions(release))
    for error in validator.iter_errors(document):
        where = ".".join(str(part) for part in error.absolute_path)
        yield f"{document['kind']} {document['metadata']['name']}: {where}: {error.message[:300]}"


@functools.cache
def _definitions(release: str) -> Registry[Any]:
    resource: Resource[Any] = Resource.from_contents(_read(release, "_definitions"))
    return resource @ Registry()


@functools.cache
def _read(release: str, name: str) -> Any:
    return json.loads(
        _schemas().read(f"kubernetes_validate/kubernetes-json-schema/v{release}.0-local-strict/{name}.json")
    )


@functools.cache
def _schemas() -> zipfile.ZipFile:
    # Open until the process ends: its list of files takes longer to read than a schema.
    return zipfile.ZipFile(io.BytesIO(_wheel().read_bytes()))


def _wheel() -> Path:
    """The running test is skipped, or in CI fails, where it cannot be had."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "layercast-tests"
    kept = folder / _WHEEL
    if kept.exists():
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        wanted = Path(place) / "wanted.txt"
        wanted.write_text(f"{_PACKAGE} --hash=sha256:{_SHA256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        done = subprocess.run(
            [*pip, "--dest", place, "-r", str(wanted)], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode:
            skip_or_fail(f"the schemas of Kubernetes ({_PACKAGE}) cannot be fetched: {done.stderr.strip()[-200:]}")
        # Two runs may fetch it at once: each has the whole of it.
        (Path(place) / _WHEEL).replace(kept)
    return kept
