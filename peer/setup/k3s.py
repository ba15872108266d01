"""k3s: registries.yaml, of which it makes the configuration of its containerd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peer.setup import yaml_text
from peer.setup.contract import Plan, SetupRefused, changed

if TYPE_CHECKING:
    from peer.setup.contract import Files, Wanted

CONFIG: Final = "/etc/rancher/k3s/registries.yaml"
SERVER: Final = "/etc/rancher/k3s/config.yaml"
ALL: Final = "*"


def plan(files: Files, wanted: Wanted) -> Plan:
    """Raises SetupRefused."""
    text = before = files.read(CONFIG) or ""
    mirrors = yaml_text.parse(text, CONFIG).get("mirrors") or {}
    if not isinstance(mirrors, dict):
        raise SetupRefused(f"{CONFIG}: mirrors: expected a mapping: mend it first")
    # What stands by itself hides what is said of all.
    named = [ALL, *(registry for registry in wanted.registries if registry in mirrors)]
    for registry in named:
        if _has_rewrite(mirrors.get(registry)):
            raise SetupRefused(
                f"{CONFIG}: {registry} has rewrite, which would change the names that the peer is asked for, too: "
                "leave it out, or take the rewrite away"
            )
        if wanted.mirror not in _endpoints(mirrors.get(registry)):
            text = yaml_text.put_first(text, ("mirrors", registry, "endpoint"), wanted.mirror, CONFIG)
    notes = [
        f"{CONFIG} has {registry} by itself, which does not go through the peer; add --registry {registry}"
        for registry in mirrors
        if registry not in named and wanted.mirror not in _endpoints(mirrors[registry])
    ]
    notes.append("k3s of January 2024 or newer: older ones know no entry for all registries")
    if "disable-default-registry-endpoint: true" in (files.read(SERVER) or ""):
        notes.append(f"{SERVER} has disable-default-registry-endpoint: pulls fail while the peer is down")
    return Plan(changed(files, {CONFIG: text}) if text != before else {}, tuple(notes))


def _endpoints(mirror: object) -> list[str]:
    found = mirror.get("endpoint") if isinstance(mirror, dict) else None
    return [str(each).rstrip("/") for each in found] if isinstance(found, list) else []


def _has_rewrite(mirror: object) -> bool:
    return isinstance(mirror, dict) and bool(mirror.get("rewrite"))
