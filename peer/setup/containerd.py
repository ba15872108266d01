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
    path, keys, said, folder = _configured(files)
    texts: dict[str, str] = {}
    notes = []
    if not said:
        values: dict[tuple[str, ...], object] = {} if config else {("version",): _VERSION_NEW}
        texts[path] = toml_text.put(files.read(path) or "", {**values, keys: folder}, path)
    if path != CONFIG:
        notes.append(f"{path} has the CRI plugin's section, which replaces all of it in {CONFIG}: config_path is there")
    hosts, more = hosts_toml.plan(files, wanted, folder, "containerd")
    notes += more
    disabled = config.get("disabled_plugins", [])
    if isinstance(disabled, list) and any(name in disabled for name in _CRI_NAMES):
        notes.append(f"{CONFIG} disables the CRI plugin, which Kubernetes needs: take it out of disabled_plugins there")
    notes.append(f"ctr reads these files with --hosts-dir {folder} alone")
    return Plan(changed(files, {**hosts, **texts}), tuple(notes))


def _configured(files: Files) -> tuple[str, tuple[str, ...], str, str]:
    """The file and the key by which the CRI plugin finds hosts.toml files, what is there, and what should be.

    containerd 1 takes the plugin's section of the last file that has one, and nothing of it from others; containerd 2
    merges them, later ones over earlier. Raises SetupRefused for what the plugin does not take.
    """
    place, said, folder = CONFIG, "", ""
    keys: tuple[str, ...] = ()
    version: object = _VERSION_NEW
    for path, config in _configurations(files):
        # An imported file that names no version is read as the one that imports it.
        version = config.get("version", version if path != CONFIG or not config else 1)
        section = _section(version, path)
        registry = toml_text.table(config, (*section, "registry"), path)
        old = "mirrors" if registry.get("mirrors") else ""
        hosts = toml_text.table(config, (*section, "registry", "configs"), path)
        if any(isinstance(each, dict) and each.get("tls") for each in hosts.values()):
            old = "configs.*.tls"
        if old:
            raise SetupRefused(
                f"{path}: the CRI plugin has registry.{old} there, and does not start with that beside config_path: "
                f"move it into {CERTS}/HOST/hosts.toml, then run this again"
            )
        if path == CONFIG or toml_text.table(config, section, path):
            # A list, as in PATH; the first that has a registry counts.
            said = str(registry.get("config_path", "")).split(":")[0].rstrip("/")
            place, keys, folder = path, (*section, "registry", "config_path"), said or folder
    return place, keys, said, folder or CERTS


def _configurations(files: Files) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The file, and those that it imports and they in turn, in the order in which they are read."""
    waiting, seen = [CONFIG], {CONFIG}
    while waiting:
        path = waiting.pop(0)
        config = toml_text.parse(files.read(path) or "", path)
        yield path, config
        imports = config.get("imports", [])
        for pattern in imports if isinstance(imports, list) else []:
            folder, _, name = str(pattern).rpartition("/")
            folder = folder if folder.startswith("/") else f"{path.rpartition('/')[0]}/{folder}".rstrip("/")
            found = [f"{folder}/{each}" for each in fnmatch.filter(files.names(folder), name)]
            waiting += [each for each in found if each not in seen]
            seen.update(found)


def _section(version: object, path: str) -> tuple[str, ...]:
    if not isinstance(version, int) or version not in _SECTIONS:
        raise SetupRefused(f"{path}: version {version}: this release knows versions 1 to 3")
    return _SECTIONS[version]
