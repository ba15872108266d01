"""A folder in place of a machine's root, for tests of `layercast setup`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.setup import change
from peer.setup.clients import CLIENTS
from peer.setup.contract import Wanted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from peer.setup.change import Change

MIRROR = "http://127.0.0.1:65001"


class Machine:
    """`files` are laid below `root`; those that exist later are told without what setup keeps for itself."""

    def __init__(self, root: Path, files: Mapping[str, str] | None = None) -> None:
        self.root = root
        for path, text in (files or {}).items():
            self.write(path, text)

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())

    def read(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_bytes().decode()

    def files(self) -> dict[str, str]:
        found = [path for path in self.root.rglob("*") if path.is_file()]
        named = {f"/{path.relative_to(self.root)}": path.read_bytes().decode() for path in found}
        return {path: text for path, text in named.items() if not path.startswith("/var/lib/layercast/")}

    def folders(self) -> set[str]:
        found = {f"/{path.relative_to(self.root)}" for path in self.root.rglob("*") if path.is_dir()}
        return {path for path in found if not path.startswith("/var")}

    def set_up(self, client: str, *registries: str, mirror: str = MIRROR, proxy: bool = False, ca: str = "") -> Change:
        """Done, and what was done."""
        done = change.set_up(self.root, CLIENTS[client], Wanted(mirror, registries, proxy, ca))
        done.carry_out()
        return done

    def undo(self, client: str) -> Change:
        """Done, and what was done."""
        done = change.undo(self.root, CLIENTS[client])
        done.carry_out()
        return done
