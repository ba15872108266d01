"""Secrets that lie on this machine for Layercast, so that a support bundle can be searched for them, and for no more.

What cannot be read by whoever runs this is left out: it cannot be in what they collect either.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_BYTES_MAX: Final = 1 << 20
_FILE: Final = "file:"
# In a data folder, a peer's or a supernode's.
_FILES: Final = ("ca/operator.token", "identity.key", "interception/ca.key", "answers.key")


def known_secrets(
    tables: Iterable[Mapping[str, object]], data_dirs: Sequence[Path], files: Iterable[Path], environ: Mapping[str, str]
) -> set[str]:
    """Of settings as their TOML files have them, of data folders, of token files, and of the environment."""
    found = {environ.get("LAYERCAST_JOIN", "")}
    for path in (*files, *(folder / name for folder in data_dirs for name in _FILES)):
        found |= _lines(path)
    docker = Path(environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    # The home of services is the folder that theirs are in (docs/systemd.md).
    for folder in (docker, *(each.parent / ".docker" for each in data_dirs)):
        found |= _docker_logins(folder / "config.json")
    for table in tables:
        found |= {str(table.get("join", ""))}
        for name in ("join_file", "event_token_file"):
            found |= _lines(Path(str(table.get(name, ""))))
        upstreams = table.get("upstream", {})
        for section in upstreams.values() if isinstance(upstreams, dict) else ():
            if isinstance(section, dict):
                found |= set(_of_upstream(section))
    # A join token's secret, and the parts of a login.
    found |= {part for each in list(found) if each.startswith("lc1.") for part in each.split(".")[2:3]}
    found |= {each.partition(":")[2] for each in list(found)}
    return {each for each in found if each}


def _of_upstream(section: Mapping[str, object]) -> Iterator[str]:
    with contextlib.suppress(ValueError):
        parts = urlsplit(str(section.get("egress_proxy", "")))
        yield from (parts.password or "", unquote(parts.password or ""))
    credentials = str(section.get("credentials", ""))
    if credentials.startswith(_FILE):
        yield from _lines(Path(credentials.removeprefix(_FILE)))
    if section.get("client_key"):
        yield from _lines(Path(str(section["client_key"])))


def _lines(path: Path) -> set[str]:
    """Each by itself, as secrets are also compared by their lines (a key has many)."""
    lines = [line.strip() for line in _text(path).splitlines()]
    return {line for line in lines if line and not line.startswith("-----")}


def _docker_logins(path: Path) -> set[str]:
    found: set[str] = set()
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        for login in json.loads(_text(path) or "{}").get("auths", {}).values():
            found |= {str(login.get(name, "")) for name in ("auth", "identitytoken", "registrytoken", "password")}
            found |= {base64.b64decode(str(login.get("auth", ""))).decode()}
    return found


def _text(path: Path) -> str:
    try:
        if path.is_file() and os.path.getsize(path) <= _BYTES_MAX:
            return path.read_text(errors="replace")
    except OSError:
        pass
    return ""
