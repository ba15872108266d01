"""Looks whether clients of this machine are set up, as `layercast setup` would do it, and whether they know it yet."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from peer.doctor import http_question
from peer.doctor.facts import ClientFacts
from peer.doctor.processes import started_unix_s
from peer.setup import docker
from peer.setup.clients import CLIENTS
from peer.setup.contract import SetupRefused, Wanted
from peer.setup.disk import DiskFiles
from peer.setup.record import RecordFolder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peer.setup.contract import Client, Plan

# By client: its program; and the files that it reads at its start alone. Others are read with each pull, or by signal.
_PROGRAMS: Final = {
    "docker": "dockerd",
    "containerd": "containerd",
    "podman": "podman",
    "crio": "crio",
    "buildkit": "buildkitd",
    "k3s": "k3s",
}
_READ_ONCE: Final = {
    "containerd": ("/etc/containerd/config.toml",),
    "buildkit": ("/etc/buildkit/buildkitd.toml",),
    "k3s": ("/etc/rancher/k3s/registries.yaml",),
}
_FOLDERS: Final = ("usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "bin", "sbin")
_DOCKER_SOCKET: Final = "/run/docker.sock"
_HERE: Final = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\]):\d+")


def installed(root: Path) -> list[str]:
    """Clients whose program is on the machine."""
    return [
        name for name, program in _PROGRAMS.items() if any((root / folder / program).exists() for folder in _FOLDERS)
    ]


def probe(names: Iterable[str], root: Path, mirror: str, registries: tuple[str, ...], ca: str) -> Iterator[ClientFacts]:
    """Each by itself. `registries` are those that the operator asked about."""
    for name in names:
        yield _probe(CLIENTS[name], root, mirror, registries, ca)


def _probe(client: Client, root: Path, mirror: str, registries: tuple[str, ...], ca: str) -> ClientFacts:
    files = DiskFiles(root)
    try:
        record = RecordFolder(files, client.record).read()
        # docker has mirrors for Docker Hub alone.
        asked = () if client.name == "docker" and not record.proxy else registries
        wanted = Wanted(mirror, tuple(dict.fromkeys((*record.registries, *asked))), record.proxy, ca)
        plan = client.plan(files, wanted)
        texts = {path: files.read(path) or "" for path in plan.texts}
        named = _named_instead(client, files, wanted, texts.values())
        port = mirror.rpartition(":")[2]
        if port in named:
            # The same peer by another of its names.
            mirror, plan = named.pop(port)
            texts = {}
    except SetupRefused as error:
        return ClientFacts(client.name, mirror, refused=str(error))
    return ClientFacts(
        client.name,
        mirror,
        wanted_files=tuple(texts),
        was_set_up=bool(record.files),
        options=" ".join(
            [*(["--proxy"] if record.proxy else []), *(f"--registry {each}" for each in record.registries)]
        ),
        other_ports=tuple(sorted(named, key=int)),
        outside=tuple(_outside(plan.notes)),
        not_read=() if root != Path("/") or texts else tuple(_not_read(client.name, mirror)),
        restart=client.restart,
    )


def _outside(notes: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Registries that notes of a plan advise to name, and why."""
    for note in notes:
        why, advice, registry = note.partition("add --registry ")
        if advice:
            yield registry.partition(",")[0], why.rstrip("; :")


def _named_instead(
    client: Client, files: DiskFiles, wanted: Wanted, texts: Iterable[str]
) -> dict[str, tuple[str, Plan]]:
    """By ports of this machine for which the client is set up: the mirror's URL, and what it leaves to say.

    Other ports that stand there are something else's: where docker tells its metrics, say.
    """
    found = {}
    for address in {address for text in texts for address in _HERE.findall(text)}:
        mirror = f"{wanted.mirror.partition('://')[0]}://{address}"
        with contextlib.suppress(SetupRefused):
            plan = client.plan(files, replace(wanted, mirror=mirror))
            if mirror != wanted.mirror and not plan.texts:
                found[address.rpartition(":")[2]] = (mirror, plan)
    return found


def _not_read(name: str, mirror: str) -> Iterator[str]:
    """Files that changed since the client began, and what a running docker says of itself."""
    started = started_unix_s(_PROGRAMS[name])
    for path in _READ_ONCE.get(name, ()):
        with contextlib.suppress(OSError):
            if started is not None and Path(path).stat().st_mtime > started + 1:
                yield path
    if name == "docker" and not _docker_knows(mirror):
        yield docker.CONFIG


def _docker_knows(mirror: str) -> bool:
    """True also where docker does not answer."""
    with contextlib.suppress(OSError, http.client.HTTPException, KeyError, TypeError, ValueError, RecursionError):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(http_question.TIMEOUT_S)
            connection.connect(_DOCKER_SOCKET)
            said = json.loads(http_question.get(connection, "docker", "/info").body)
        return mirror in [str(each).rstrip("/") for each in said["RegistryConfig"]["Mirrors"]]
    return True
