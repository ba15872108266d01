"""dockerd: `registry-mirrors` for Docker Hub; all other registries by a proxy, or by hosts.toml where it reads them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from peer.setup import hosts_toml, json_text
from peer.setup.contract import MARK, Plan, SetupRefused, changed
from proto.oci.upstreams import DOCKER_HUB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peer.setup.contract import Files, Wanted

CONFIG: Final = "/etc/docker/daemon.json"
CERTS: Final = "/etc/docker/certs.d"
CA: Final = "/etc/docker/layercast-ca.pem"
DROP_INS: Final = "/etc/systemd/system/docker.service.d"
_DROP_INS: Final = (DROP_INS, "/run/systemd/system/docker.service.d", "/usr/lib/systemd/system/docker.service.d")
DROP_IN: Final = f"{DROP_INS}/layercast.conf"
# Where else dockerd is told by its service.
_UNITS: Final = (
    "/etc/systemd/system/docker.service",
    "/lib/systemd/system/docker.service",
    "/usr/lib/systemd/system/docker.service",
    "/etc/default/docker",
    "/etc/sysconfig/docker",
)
_PROXY_SET: Final = re.compile(r"^[^#;\n]*\b(HTTPS?_PROXY|SSL_CERT_FILE)\s*=", re.MULTILINE | re.IGNORECASE)
_FILE_FLAG: Final = re.compile(r"^[^#;\n]*--config-file[= ][\"']?([^\s\"']+)", re.MULTILINE)
_MIRROR_FLAG: Final = re.compile(r"^[^#;\n]*--registry-mirror\b", re.MULTILINE)


def plan(files: Files, wanted: Wanted) -> Plan:
    """Raises SetupRefused."""
    text = files.read(CONFIG) or ""
    config = json_text.parse(text, CONFIG)
    by_hosts = _reads_hosts(config)
    others = [registry for registry in wanted.registries if registry != DOCKER_HUB]
    if others and not wanted.proxy and not by_hosts:
        raise SetupRefused(
            f"docker has mirrors for Docker Hub alone: {others[0]} goes through the peer by a proxy; add --proxy, and "
            "mind that docker's pulls then fail while the peer is down"
        )
    _refuse_flags(files)
    texts, notes = {}, []
    mirrors = config.get("registry-mirrors", [])
    if not isinstance(mirrors, list) or wanted.mirror not in [_bare(each) for each in mirrors]:
        texts[CONFIG] = json_text.put_first(text, "registry-mirrors", wanted.mirror, CONFIG)
    elif _bare(mirrors[0]) != wanted.mirror:
        notes.append(f"{CONFIG}: {mirrors[0]} stands before the peer among registry-mirrors, and is asked first")
    if by_hosts:
        found, more = hosts_toml.plan(files, wanted, CERTS, "docker")
        texts |= found
        notes += more
    if wanted.proxy:
        texts |= _proxy(files, wanted, config)
    return Plan(changed(files, texts), tuple(notes))


def _reads_hosts(config: dict[str, object]) -> bool:
    """Whether images are kept in containerd's store, and hosts.toml read: the default of new installs of Docker 29."""
    features = config.get("features")
    return isinstance(features, dict) and features.get("containerd-snapshotter") is True


def _proxy(files: Files, wanted: Wanted, config: dict[str, object]) -> dict[str, str]:
    """The files by which everything goes through the peer's forward proxy."""
    if not wanted.ca:
        raise SetupRefused(
            "the certificate by which the peer intercepts registries is missing: start layercast-peer once, which "
            "makes it, or name the file with --ca-file"
        )
    if isinstance(config.get("proxies"), dict):
        raise SetupRefused(_other_proxy(CONFIG, "proxies"))
    for path, text in _service_texts(files):
        found = _PROXY_SET.search(text)
        if found is not None:
            raise SetupRefused(_other_proxy(path, found[1]))
    names = ["HTTPS_PROXY"]
    if config.get("insecure-registries"):
        # Those are asked over plain http.
        names.append("HTTP_PROXY")
    lines = [MARK.format(client="docker"), "[Service]"]
    lines += [f'Environment="{name}={wanted.mirror}"' for name in names]
    lines += [f'Environment="SSL_CERT_FILE={CA}"', ""]
    return {CA: wanted.ca, DROP_IN: "\n".join(lines)}


def _refuse_flags(files: Files) -> None:
    """dockerd does not start where an option stands both in its file and among its flags, and may read another file."""
    for path, text in _service_texts(files):
        if _MIRROR_FLAG.search(text):
            raise SetupRefused(
                f"{path}: dockerd has --registry-mirror there, and does not start with registry-mirrors in {CONFIG} "
                "too: move the flag's value into that file, restart docker, then run this again"
            )
        other = _FILE_FLAG.search(text)
        if other is not None and other[1] != CONFIG:
            raise SetupRefused(
                f"{path}: dockerd reads {other[1]} and not {CONFIG}: put its options there and drop --config-file, or "
                f'write "registry-mirrors" into that file by hand'
            )


def _service_texts(files: Files) -> Iterator[tuple[str, str]]:
    drop_ins = [f"{folder}/{name}" for folder in _DROP_INS for name in files.names(folder) if name.endswith(".conf")]
    for path in (*_UNITS, *drop_ins):
        text = files.read(path) if path != DROP_IN else None
        if text is not None:
            yield path, text


def _other_proxy(path: str, what: str) -> str:
    return (
        f"{path}: docker already has {what} there, and can have one proxy: give that one to the peer as egress_proxy "
        f"of its upstreams, take {what} out of the file, then run this again"
    )


def _bare(mirror: object) -> str:
    return str(mirror).rstrip("/")
