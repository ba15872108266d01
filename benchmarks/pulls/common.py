"""What the pull benchmarks share: an origin with a counting proxy before it, random blobs, flags, progress."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from rich.console import Console

from benchmarks.harness.counting_proxy import CountingProxyProcess
from benchmarks.harness.programs import ProgramMissing
from benchmarks.harness.registry import Registry
from benchmarks.report import machine, write_json
from proto.config.values import parse_rate, parse_size
from proto.errors import ConfigError, LocalError

if TYPE_CHECKING:
    import argparse
    import random
    from collections.abc import Callable, Iterator

T = TypeVar("T")

REPOSITORY: Final = "bench/blob"
console: Final = Console(stderr=True, highlight=False)


@contextlib.contextmanager
def counted_origin(
    registry_netns: str | None = None, host: str = "127.0.0.1"
) -> Iterator[tuple[Registry, CountingProxyProcess, Path]]:
    """docker-registry, the counting proxy before it, and a folder that lives as long. Raises LocalError."""
    with tempfile.TemporaryDirectory(prefix="layercast-bench-") as name:
        directory = Path(name)
        try:
            registry = Registry(directory / "registry", listen=f"{host}:0", netns=registry_netns)
        except ProgramMissing as error:
            raise LocalError(str(error)) from None
        with registry, CountingProxyProcess(registry.host_port, f"{host}:0", netns=registry_netns) as proxy:
            yield registry, proxy, directory


def random_blob(rng: random.Random, size_bytes: int) -> bytes:
    """Incompressible bytes, made from the seed of `rng`."""
    return b"".join(rng.randbytes(min(1 << 20, size_bytes - at)) for at in range(0, size_bytes, 1 << 20))


def checked(flag: str, text: str, parse: Callable[[str], T], least: T, what: str) -> T:
    """A flag's value. Raises ConfigError that names flag, value and what would be right."""
    try:
        value = parse(text)
    except ValueError as error:
        raise ConfigError(f"{flag} {text}: {error}") from None
    if value < least:  # type: ignore[operator]  # int or float, as `least` is
        raise ConfigError(f"{flag} {text}: expected {what}")
    return value


def whole(text: str) -> int:
    """A whole number. Raises ValueError."""
    if not text.isdigit():
        raise ValueError("expected a whole number")
    return int(text)


def size_flag(arguments: argparse.Namespace) -> int:
    """--size in bytes."""
    return checked("--size", arguments.size, parse_size, 1, "at least one byte")


def rate_flag(arguments: argparse.Namespace) -> int:
    """--rate in bytes a second."""
    return checked("--rate", arguments.rate, parse_rate, 12_500, "at least 100kbit")


def finish(document: dict[str, object], json_path: str | None, problems: list[str]) -> int:
    """Write the JSON if asked, name what is wrong; the exit status."""
    document["machine"] = machine()
    document["problems"] = problems
    if json_path:
        try:
            write_json(Path(json_path), document)
        except OSError as error:
            raise LocalError(f"--json {json_path}: {error.strerror}") from None
    for problem in problems:
        console.print(f"NOT REACHED: {problem}", style="red", markup=False)
    return 1 if problems else 0
