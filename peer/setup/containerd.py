"""containerd: hosts.toml files, and in its configuration the folder where its CRI plugin finds them."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any, Final

from peer.setup import hosts_toml, toml_text
from peer.setup.contract import Plan, SetupRefused, changed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peer.setup.contract import Files, Wanted

CONFIG: Final = "/etc/containerd/config.toml"
CERTS: Final = "/etc/containerd/certs.d"
# Where images are configured, by the version of the file's format.
_SECTIONS: Final = {
    1: ("plugins", "cri"),
    2: ("plugins", "io.containerd.grpc.v1.cri"),
    3: ("plugins", "io.containerd.cri.v1.images"),
}
# What to begin a file with: containerd 1 and 2 both read it.
_VERSION_NEW: Final = 2
_CRI_NAMES: Final = ("cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images")


def plan(files: Files, wanted: Wanted) -> Plan:
    """Raises SetupRefused."""
    text = files.read(CONFIG) or ""
    config = toml_text.parse(text, CONFIG)
    folder = configured_folder(files)
    texts: dict[str, str] = {}
    if not folder:
        folder = CERTS
        values: dict[tuple[str, ...], object] = {} if config else {("version",): _VERSION_NEW}
        values[(*_section(config or {"version": _VERSION_NEW}), "registry", "config_path")] = folder
        texts[CONFIG] = toml_text.put(text, values, CONFIG)
    hosts, notes = hosts_toml.plan(files, wanted, folder, "containerd")
    disabled = config.get("disabled_plugins", [])
    if any(name in disabled for name in _CRI_NAMES):
        notes.append(f"{CONFIG} disables the CRI plugin, which Kubernetes needs: take it out of disabled_plugins there")
    notes.append(f"ctr reads these files with --hosts-dir {folder} alone")
    return Plan(changed(files, {**hosts, **texts}), tuple(notes))


def configured_folder(files: Files) -> str:
    """Where the CRI plugin finds hosts.toml files; empty if nowhere. Raises SetupRefused for what it does not take."""
    folder = ""
    for path, config in _configurations(files):
        registry = toml_text.table(config, (*_section(config), "registry"), path)
        old = "mirrors" if registry.get("mirrors") else ""
        hosts = toml_text.table(config, (*_section(config), "registry", "configs"), path)
        if any(isinstance(each, dict) and each.get("tls") for each in hosts.values()):
            old = "configs.*.tls"
        if old:
            raise SetupRefused(
                f"{path}: the CRI plugin has registry.{old} there, and does not start with that beside config_path: "
                f"move it into {CERTS}/HOST/hosts.toml, then run this again"
            )
        # A list, as in PATH; the first that has a registry counts.
        folder = str(registry.get("config_path", "")).split(":")[0].rstrip("/") or folder
    return folder


def _configurations(files: Files) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The file, and those that it imports, later ones over earlier."""
    config = toml_text.parse(files.read(CONFIG) or "", CONFIG)
    yield CONFIG, config
    imports = config.get("imports", [])
    for pattern in imports if isinstance(imports, list) else []:
        folder, _, name = str(pattern).rpartition("/")
        folder = folder if folder.startswith("/") else f"/etc/containerd/{folder}".rstrip("/")
        for found in fnmatch.filter(files.names(folder), name):
            path = f"{folder}/{found}"
            text = files.read(path)
            if text is not None and path != CONFIG:
                yield path, toml_text.parse(text, path)


def _section(config: Mapping[str, Any]) -> tuple[str, ...]:
    version = config.get("version", 1 if config else _VERSION_NEW)
    if version not in _SECTIONS:
        raise SetupRefused(f"{CONFIG}: version {version}: this release knows versions 1 to 3")
    return _SECTIONS[version]
