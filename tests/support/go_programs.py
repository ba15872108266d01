"""Programs in Go that tests run and Debian does not have: built from the Go module proxy once, and kept.

They lie in the user's cache folder (XDG_CACHE_HOME, `layercast-tests`), one file a program and version. What else the
build takes, some hundred MB, is removed after it.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.cluster.programs import DEBIAN_PATH, program

BUILD_TIMEOUT_S: Final = 2400.0
# From here on a Go fetches a newer one by itself where a module wants that; an older one is helped.
_FETCHES_TOOLCHAINS: Final = (1, 21)
_TOOLCHAIN: Final = "1.25.3"
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_KEPT_SETTINGS: Final = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "HTTPS_PROXY", "https_proxy", "SSL_CERT_FILE")
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
    """No Go, or no module proxy: what needs the program is left out, as where a Debian package cannot be installed."""


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program of a module at a version: its package there, or a main package of ours that uses it (`source`)."""

    name: str
    module: str
    version: str
    package: str = ""
    source: str = ""

    def built(self) -> Path:
        """The program, built if it was not. Raises BuildFailed."""
        folder = _cache()
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / f"{self.name}-{self.version}"
        with (folder / f"{kept.name}.lock").open("w") as lock:
            # Another run may be building it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                self._build(kept)
        return kept

    def _build(self, kept: Path) -> None:
        with tempfile.TemporaryDirectory(dir=kept.parent) as work:
            environment, here = _environment(Path(work)), Path(work) / "main"
            here.mkdir()
            (here / "go.mod").write_text(f"module main\n\ngo 1.21\n\nrequire {self.module} {self.version}\n")
            (here / "main.go").write_text(self.source or "package main\n\nfunc main() {}\n")
            what, built = f"{self.module}@{self.version}", here / "built"
            go = _new_enough(program("go"), environment, here)
            argv = [go, "build", "-mod=mod", "-o", str(built), f"{self.module}/{self.package}" if self.package else "."]
            _run(argv, environment, here, what)
            shutil.move(built, kept)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "layercast-tests"


def _environment(work: Path) -> dict[str, str]:
    """All that Go writes is below `work`; of the caller's settings those stay that say where modules come from."""
    places = {name: str(work / name.lower()) for name in ("GOPATH", "GOCACHE", "GOTMPDIR", "HOME")}
    for place in places.values():
        Path(place).mkdir()
    settings = {name: os.environ[name] for name in _KEPT_SETTINGS if name in os.environ}
    flags = {"CGO_ENABLED": "0", "GOFLAGS": "-p=2 -modcacherw -trimpath -buildvcs=false", "GOTOOLCHAIN": "auto"}
    return {"PATH": DEBIAN_PATH, **settings, **places, **flags}


def _new_enough(go: str, environment: dict[str, str], here: Path) -> str:
    """This Go, or a newer one from the module proxy, where newer ones lie as modules."""
    version = re.search(r"go(\d+)\.(\d+)", _run([go, "version"], environment, Path("/"), "go version"))
    if version is not None and (int(version[1]), int(version[2])) >= _FETCHES_TOOLCHAINS:
        return go
    machine = _MACHINES.get(platform.machine(), platform.machine())
    module = f"golang.org/toolchain@v0.0.1-go{_TOOLCHAIN}.linux-{machine}"
    _run([go, "mod", "download", module], environment, here, module)
    folder = Path(environment["GOPATH"]) / "pkg" / "mod" / module
    for tool in [*folder.glob("bin/*"), *folder.glob("pkg/tool/*/*")]:
        tool.chmod(0o755)  # a module has no programs
    return str(folder / "bin" / "go")


def _run(argv: list[str], environment: dict[str, str], here: Path, what: str) -> str:
    try:
        done = subprocess.run(argv, env=environment, cwd=here, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OutOfReach(f"{what} cannot be built: {error}") from None
    if done.returncode:
        told = " ".join(done.stderr.split())[-_ERROR_LENGTH_MAX:]
        if any(word in done.stderr for word in _UNREACHABLE):
            raise OutOfReach(f"{what} cannot be built; the Go module proxy must be reachable (GOPROXY): {told}")
        raise BuildFailed(f"{what} cannot be built: {told}")
    return done.stdout
