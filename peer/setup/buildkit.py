"""buildkitd: a mirror for each registry, and that the mirror speaks plain http."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peer.setup import toml_text
from peer.setup.contract import Plan, SetupRefused, changed

if TYPE_CHECKING:
    from peer.setup.contract import Files, Wanted

CONFIG: Final = "/etc/buildkit/buildkitd.toml"


def plan(files: Files, wanted: Wanted) -> Plan:
    """Raises SetupRefused."""
    text = files.read(CONFIG) or ""
    config = toml_text.parse(text, CONFIG)
    values: dict[tuple[str, ...], object] = {}
    for registry in wanted.named:
        mirrors = toml_text.table(config, ("registry", registry), CONFIG).get("mirrors", [])
        if not isinstance(mirrors, list):
            raise SetupRefused(f"{CONFIG}: mirrors of {registry}: expected an array of strings: mend it first")
        if wanted.address not in mirrors:
            values["registry", registry, "mirrors"] = [wanted.address, *mirrors]
    is_plain = wanted.mirror.startswith("http:")
    if toml_text.table(config, ("registry", wanted.address), CONFIG).get("http", False) != is_plain:
        values["registry", wanted.address, "http"] = is_plain
    after = toml_text.put(text, values, CONFIG) if values else text
    return Plan(
        changed(files, {CONFIG: after}) if values else {},
        ("a buildkitd in a container reaches the peer only with the host's network, and needs this file inside",),
    )
