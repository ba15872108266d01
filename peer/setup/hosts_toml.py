"""A folder of hosts.toml files, as containerd and new dockers read it: `_default`, and one folder a registry. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from peer.setup import toml_text
from peer.setup.contract import MARK, SetupRefused, origin_url

if TYPE_CHECKING:
    from peer.setup.contract import Files, Wanted

DEFAULT: Final = "_default"
_FILE: Final = "hosts.toml"


def plan(files: Files, wanted: Wanted, folder: str, client: str) -> tuple[dict[str, str], list[str]]:
    """Texts and notes: `_default` for all, and a folder for each registry that was asked for. Raises SetupRefused."""
    texts = {f"{folder}/{DEFAULT}/{_FILE}": _hosts(files, wanted, folder, DEFAULT, client)}
    named = {_folder_of(files, folder, registry): registry for registry in wanted.registries}
    for name, registry in named.items():
        texts[f"{folder}/{name}/{_FILE}"] = _hosts(files, wanted, folder, name, client, registry)
    notes = [
        f"{folder}/{name} hides {DEFAULT}: {client} asks {registry} directly; add --registry {registry}"
        for name, registry in hiding(files, folder, wanted.mirror).items()
        if name not in named
    ]
    return texts, notes


def hiding(files: Files, folder: str, mirror: str) -> dict[str, str]:
    """Folders of registries that are asked directly, since what is said of all does not count for them."""
    names = [name for name in files.names(folder) if name != DEFAULT]
    return {name: _registry(name) for name in names if not goes_through(files, f"{folder}/{name}/{_FILE}", mirror)}


def goes_through(files: Files, path: str, mirror: str) -> bool:
    """Whether a hosts.toml names the peer first. Raises SetupRefused."""
    text = files.read(path)
    if text is None:
        return False
    hosts = toml_text.table(toml_text.parse(text, path), ("host",), path)
    return next(iter(hosts), "").rstrip("/") == mirror


def _hosts(files: Files, wanted: Wanted, folder: str, name: str, client: str, registry: str = "") -> str:
    path = f"{folder}/{name}/{_FILE}"
    text = files.read(path)
    if text is not None and goes_through(files, path, wanted.mirror):
        return text
    mark = MARK.format(client=client)
    if text is None:
        top = _beside_certificates(files.names(f"{folder}/{name}"), registry)
        lines = [mark, *top, f"[host.{json.dumps(wanted.mirror)}]", '  capabilities = ["pull", "resolve"]', ""]
        return "\n".join(lines)
    before = toml_text.parse(text, path)
    hosts = toml_text.table(before, ("host",), path)
    if any(each.rstrip("/") == wanted.mirror for each in hosts):
        raise SetupRefused(f"{path}: {wanted.mirror} stands there behind others, which are asked first: move it up")
    own: dict[str, Any] = {"capabilities": ["pull", "resolve"]}
    after = {**before, "host": {wanted.mirror: own, **hosts}}
    return toml_text.put_table_first(
        text, f"[host.{json.dumps(wanted.mirror)}]", ['  capabilities = ["pull", "resolve"]'], after, path
    )


def _beside_certificates(names: tuple[str, ...], registry: str) -> list[str]:
    """With a hosts.toml, certificates that lie in the folder count only if it names them."""
    authorities = [name for name in names if name.endswith(".crt")]
    pairs = [(name, f"{name[:-5]}.key") for name in names if name.endswith(".cert")]
    lines = []
    if authorities:
        lines.append(f"ca = {json.dumps(authorities)}")
    if pairs:
        lines.append(f"client = {json.dumps([list(pair) for pair in pairs])}")
    # What is said of all registries names no server: the one that is asked for stays the fallback.
    return [f"server = {json.dumps(origin_url(registry))}", *lines] if lines and registry else lines


def _folder_of(files: Files, folder: str, registry: str) -> str:
    """As it is called already: containerd also takes HOST_PORT_."""
    host, colon, port = registry.rpartition(":")
    other = f"{host}_{port}_"
    return other if colon and other in files.names(folder) else registry


def _registry(name: str) -> str:
    host, _, port = name.removesuffix("_").rpartition("_")
    return f"{host}:{port}" if name.endswith("_") and port.isdigit() else name
