"""Finds the real programs that the demo and the tests run, and says plainly which are missing.

Debian's own come first: another program of the same name elsewhere on PATH (a newer docker client, say) would
speak a dialect that the tests were not written for.
"""

from __future__ import annotations

import os
import shutil
from typing import Final

DEBIAN_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"

# The Debian package of each program; .ci/packages, from which they are installed, says the same.
PACKAGES: Final = {
    "buildah": "buildah",
    "chromium": "chromium",
    "containerd": "containerd",
    "ctr": "containerd",
    "curl": "curl",
    "docker": "docker.io",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "go": "golang-go",
    "ip": "iproute2",
    "nginx": "nginx-light",
    "nsenter": "util-linux",
    "podman": "podman",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "redis-server": "redis-server",
    "setpriv": "util-linux",
    "skopeo": "skopeo",
    "systemd": "systemd",
    "systemd-analyze": "systemd",
    "tc": "iproute2",
}


class ProgramMissing(Exception):
    """A program that a test needs is not installed."""


def find_program(name: str) -> str | None:
    """The path of `name`, or None."""
    return shutil.which(name, path=DEBIAN_PATH) or shutil.which(name)


def program(name: str) -> str:
    """The path of `name`. Raises ProgramMissing, which names the Debian package to install."""
    path = find_program(name)
    if path is None:
        raise ProgramMissing(f"{name} is not installed: apt-get install {PACKAGES.get(name, name)}")
    return path


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment for a program under test: no proxy, registry or container settings of the caller's."""
    kept = {key: os.environ[key] for key in ("LANG", "TMPDIR") if key in os.environ}
    return {"PATH": DEBIAN_PATH, "HOME": "/nonexistent", **kept, **extra}
