"""Programs in Go that tests run and Debian does not have: built from the Go module proxy once, and kept.

They lie in the user's cache folder (XDG_CACHE_HOME, `layercast-tests`), one file a program and version. What else the
build takes, some hundred MB, is removed after it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.programs import DEBIAN_PATH, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Of one program, all attempts.
BUILD_TIMEOUT_S: Final = 2400.0
# Before the module proxy is asked again.
PAUSES_S: Final = (5.0, 20.0, 60.0)
# From here on a Go fetches a newer one by itself where a module wants that; an older one is helped.
_FETCHES_TOOLCHAINS: Final = (1, 21)
_TOOLCHAIN: Final = "1.25.3"
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_KEPT_SETTINGS: Final = (
    *("GOENV", "GOPROXY", "GOPRIVATE", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOINSECURE"),
    *("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)
_ERROR_LENGTH_MAX: Final = 300
# What Go says where it cannot reach, or may not ask, the module proxy.
_UNREACHABLE: Final = (
    "dial tcp",
    "connection re",
    "i/o timeout",
    "no such host",
    "TLS handshake",
    "403 Forbidden",
    "404 Not Found",
    "500 Internal",
    "502 Bad",
    "503 Service",
    "504 Gateway",
    "unexpected EOF",
    "x509:",
)


class BuildFailed(Exception):
    """One line that says what could not be built, and why."""


class OutOfReach(BuildFailed):
    """No Go, or no module proxy: the program is missing, as one is whose Debian package cannot be installed."""


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program of a module at a version: its package there, or a main package of ours that uses it.

    That is `source`, or the files of `folder`, which may use other modules too: `also` has them as (module, version).
    """

    name: str
    module: str
    version: str
    package: str = ""
    source: str = ""
    folder: Path | None = None
    also: tuple[tuple[str, str], ...] = ()

    def built(self, say: Callable[[str], None] = lambda line: None, place: Path | None = None) -> Path:
        """The program, built if it was not; `say` is told what takes its time. Raises BuildFailed.

        `place` is a workshop that several programs share.
        """
        folder = _cache()
        kept = folder / f"{self.name}-{self._key()}"
        with (folder / f"{kept.name}.lock").open("w") as lock:
            # Another run may be building it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                say(f"building {self.name} {self.version} from the Go module proxy, some minutes, once")
                with contextlib.nullcontext(place) if place is not None else workshop() as here:
                    self._build(kept, say, here)
        return kept

    def _modules(self) -> list[tuple[str, str]]:
        return [(self.module, self.version), *self.also]

    def _sources(self) -> dict[str, str]:
        if self.folder is not None:
            return {file.name: file.read_text() for file in sorted(self.folder.glob("*.go"))}
        return {"main.go": self.source or "package main\n\nfunc main() {}\n"}

    def _key(self) -> str:
        """Its version; where a main package of ours makes it, that too."""
        if self.folder is None and not self.source:
            return self.version
        parts = json.dumps([self._modules(), self._sources()])
        return hashlib.sha256(parts.encode()).hexdigest()[:12]

    def _build(self, kept: Path, say: Callable[[str], None], place: Path) -> None:
        environment, here = _environment(place), place / self.name
        here.mkdir()
        requires = "".join(f"require {module} {version}\n" for module, version in self._modules())
        (here / "go.mod").write_text(f"module main\n\ngo 1.21\n\n{requires}")
        for name, text in self._sources().items():
            (here / name).write_text(text)
        run = _Runs(f"{self.module}@{self.version}", environment, here, say)
        go, built = _new_enough(program("go"), run), here / "built"
        run([go, "build", "-mod=mod", "-o", str(built), f"{self.module}/{self.package}" if self.package else "."])
        shutil.move(built, kept)


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A folder to build in: what programs have in common is fetched and compiled once."""
    with tempfile.TemporaryDirectory(dir=_cache()) as place:
        yield Path(place)


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "layercast-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _environment(work: Path) -> dict[str, str]:
    """All that Go writes is below `work`; of the caller's settings those stay that say where modules come from."""
    places = {name: str(work / name.lower()) for name in ("GOPATH", "GOCACHE", "GOTMPDIR", "HOME")}
    for place in places.values():
        Path(place).mkdir(exist_ok=True)
    settings = {name: os.environ[name] for name in _KEPT_SETTINGS if name in os.environ}
    # What `go env -w` wrote.
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    settings.setdefault("GOENV", str(config / "go" / "env"))
    flags = {"CGO_ENABLED": "0", "GOFLAGS": "-p=2 -modcacherw -trimpath -buildvcs=false", "GOTOOLCHAIN": "auto"}
    return {"PATH": DEBIAN_PATH, **settings, **places, **flags}


def _new_enough(go: str, run: _Runs) -> str:
    """This Go, or a newer one from the module proxy, where newer ones lie as modules."""
    version = re.search(r"go(\d+)\.(\d+)", run([go, "version"]))
    if version is not None and (int(version[1]), int(version[2])) >= _FETCHES_TOOLCHAINS:
        return go
    machine = _MACHINES.get(platform.machine(), platform.machine())
    module = f"golang.org/toolchain@v0.0.1-go{_TOOLCHAIN}.linux-{machine}"
    run([go, "mod", "download", module])
    folder = Path(run.environment["GOPATH"]) / "pkg" / "mod" / module
    for tool in [*folder.glob("bin/*"), *folder.glob("pkg/tool/*/*")]:
        tool.chmod(0o755)  # a module has no programs
    return str(folder / "bin" / "go")


class _Runs:
    """Runs Go until it has what it asks of the module proxy. What came stays; the next attempt asks for the rest."""

    def __init__(self, what: str, environment: dict[str, str], here: Path, say: Callable[[str], None]) -> None:
        self._what = what
        self.environment = environment
        self._here = here
        self._say = say
        self._deadline_s = time.monotonic() + BUILD_TIMEOUT_S

    def __call__(self, argv: list[str]) -> str:
        """What it printed. Raises BuildFailed; OutOfReach after the last attempt."""
        for pause_s in (*PAUSES_S, None):
            done = self._run(argv)
            if not done.returncode:
                return done.stdout
            told = " ".join(done.stderr.split())[-_ERROR_LENGTH_MAX:]
            if not any(word in done.stderr for word in _UNREACHABLE):
                raise BuildFailed(f"{self._what} cannot be built: {told}")
            if pause_s is not None:
                self._say(f"{self._what}: the Go module proxy did not answer; again in {pause_s:g} s: {told}")
                time.sleep(pause_s)
        times = f"{len(PAUSES_S) + 1} times"
        raise OutOfReach(f"{self._what} cannot be built: the Go module proxy (GOPROXY) did not answer, {times}: {told}")

    def _run(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        left_s = self._deadline_s - time.monotonic()
        try:
            return subprocess.run(
                argv, env=self.environment, cwd=self._here, capture_output=True, text=True, timeout=max(1.0, left_s)
            )
        except subprocess.TimeoutExpired:
            raise OutOfReach(f"{self._what} was not built within {BUILD_TIMEOUT_S / 60:.0f} minutes") from None
        except OSError as error:
            raise OutOfReach(f"{self._what} cannot be built: {argv[0]}: {error.strerror}") from None
