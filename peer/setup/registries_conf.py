"""podman, CRI-O, skopeo and buildah: a drop-in beside registries.conf that has a mirror for each registry.

There is no entry for all registries. One in a later file replaces an earlier one of the same prefix as a whole, so what
the operator says of a registry elsewhere is said again in ours, behind the peer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from peer.setup import toml_text
from peer.setup.contract import MARK, Plan, SetupRefused, changed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peer.setup.contract import Files, Wanted

CONFIG: Final = "/etc/containers/registries.conf"
FOLDER: Final = f"{CONFIG}.d"
# Behind all others: the last one counts.
DROP_IN: Final = f"{FOLDER}/zz-layercast.conf"


def plan(files: Files, wanted: Wanted) -> Plan:
    """Raises SetupRefused."""
    entries, notes = _entries(files, wanted.named), []
    mine = []
    for registry in wanted.named:
        entry = entries.pop(registry, {"prefix": registry, "location": registry})
        if entry.get("blocked") is True:
            notes.append(f"{registry} stays blocked, as registries.conf says")
            continue
        if ":" in str(entry.get("location", registry)):
            # A reference has one colon, before its tag: with such a mirror no image of the registry could be pulled.
            notes.append(f"{registry} has a port, which no path may have, and does not go through the peer: see README")
            continue
        mine.append(_mirrored(entry, registry, wanted))
    for prefix in entries:
        host = prefix.partition("/")[0]
        if host in wanted.named or "*" in prefix:
            notes.append(f"{prefix} has an entry of its own, and does not go through the peer")
        else:
            notes.append(f"{prefix} does not go through the peer: add --registry {host}, and allow it there")
    return Plan(changed(files, {DROP_IN: _text(mine)}), tuple(notes))


def _entries(files: Files, registries: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What is said now, by prefix. Raises SetupRefused, also where ours for one of `registries` would not count."""
    found: dict[str, dict[str, Any]] = {}
    for path, config in _configurations(files):
        entries = config.get("registry", [])
        if not isinstance(entries, list):
            raise SetupRefused(f"{path}: registry: expected tables [[registry]]: mend it first")
        for entry in (*_old_entries(config, path), *entries):
            if not isinstance(entry, dict) or not _are_tables(entry.get("mirror", [])):
                raise SetupRefused(f"{path}: registry and its mirror: expected tables [[registry]]: mend it first")
            prefix = str(entry.get("prefix") or entry.get("location", ""))
            if path > DROP_IN and path != CONFIG and prefix in registries:
                raise SetupRefused(f"{path} comes after {DROP_IN} and has an entry for {prefix}: rename it")
            found[prefix] = {"prefix": prefix, **entry}
    return found


def _old_entries(config: Mapping[str, Any], path: str) -> list[dict[str, Any]]:
    """What a file of version 1 says of registries: lists of those that are blocked, and of those without TLS."""
    found: dict[str, dict[str, Any]] = {}
    for kind, option in (("block", "blocked"), ("insecure", "insecure")):
        registries = toml_text.table(config, ("registries", kind), path).get("registries", [])
        for registry in registries if isinstance(registries, list) else []:
            entry = found.setdefault(str(registry), {"prefix": str(registry), "location": str(registry)})
            entry[option] = True
    return list(found.values())


def _are_tables(found: object) -> bool:
    return isinstance(found, list) and all(isinstance(each, dict) for each in found)


def _configurations(files: Files) -> Iterator[tuple[str, Mapping[str, Any]]]:
    drop_ins = [f"{FOLDER}/{name}" for name in files.names(FOLDER) if name.endswith(".conf")]
    for path in (CONFIG, *drop_ins):
        text = files.read(path) if path != DROP_IN else None
        if text is not None and text.startswith(toml_text.BOM):
            raise SetupRefused(f"{path}: begins with a byte order mark, which its programs refuse: take that out first")
        if text is not None:
            yield path, toml_text.parse(text, path)


def _mirrored(entry: dict[str, Any], registry: str, wanted: Wanted) -> dict[str, Any]:
    """The peer in front of what else there is. It is asked for what the entry's location names."""
    location = str(entry.get("location", registry))
    mirror = {"location": f"{wanted.address}/{location}", "insecure": wanted.mirror.startswith("http:")}
    others = [each for each in entry.get("mirror", []) if each.get("location") != mirror["location"]]
    return {**entry, "location": location, "mirror": [mirror, *others]}


def _text(entries: list[dict[str, Any]]) -> str:
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment(MARK.format(client="podman").removeprefix("# ")))
    document.add("registry", tomlkit.item(entries))
    return str(tomlkit.dumps(document))
