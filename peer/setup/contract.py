"""What planners are given, and what they say: texts of files, by absolute paths. No files are opened here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from proto.errors import LocalError
from proto.oci.upstreams import DOCKER_HUB, DOCKER_HUB_URL, WELL_KNOWN_HOSTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Where a peer listens for clients unless it is told otherwise.
DEFAULT_MIRROR: Final = "http://127.0.0.1:65001"
# In every file that is wholly ours, and beside what is put into others where they take comments.
MARK: Final = "# Written by `layercast setup`; `layercast setup {client} --undo` takes it away."


class SetupRefused(LocalError):
    """Nothing was changed; the message says why, and what to do."""


class Files(Protocol):
    """The files of one machine, or of a folder that stands for its root."""

    def read(self, path: str) -> str | None:
        """None where there is none. Raises SetupRefused for one that is no text, or cannot be read."""
        ...

    def names(self, folder: str) -> tuple[str, ...]:
        """Of its entries, sorted; none where there is no such folder."""
        ...


@dataclass(frozen=True, slots=True)
class Overlay:
    """`files` with some texts in place of theirs; None: as if the file were not there."""

    files: Files
    texts: Mapping[str, str | None]

    def read(self, path: str) -> str | None:
        """See Files."""
        return self.texts[path] if path in self.texts else self.files.read(path)

    def names(self, folder: str) -> tuple[str, ...]:
        """See Files. A folder of which nothing is left but what the overlay takes away is not there either."""
        inside = f"{folder.rstrip('/')}/"
        gone = {path for path, text in self.texts.items() if text is None and path.startswith(inside)}
        return tuple(name for name in self.files.names(folder) if not self._is_gone(inside + name, gone))

    def _is_gone(self, path: str, gone: set[str]) -> bool:
        if path in gone:
            return True
        below = [each for each in gone if each.startswith(f"{path}/")]
        return bool(below) and not self.names(path)


@dataclass(frozen=True, slots=True)
class Wanted:
    """`mirror` is the peer's URL. `registries` are to go through it beside those that the client sends anyway.

    `proxy`: those that the client has no mirrors for, too. `ca` is the certificate (PEM) by which the peer intercepts,
    empty where that is not known.
    """

    mirror: str
    registries: tuple[str, ...] = ()
    proxy: bool = False
    ca: str = ""

    @property
    def address(self) -> str:
        """HOST:PORT of the mirror."""
        return self.mirror.partition("://")[2]

    @property
    def named(self) -> tuple[str, ...]:
        """For clients that must be told each registry: the well-known ones and those that were asked for."""
        return tuple(dict.fromkeys((*WELL_KNOWN_HOSTS, *self.registries)))


@dataclass(frozen=True, slots=True)
class Plan:
    """`texts` are the files to write, in this order, those that change alone. `notes` are for the operator's eyes."""

    texts: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Client:
    """One that can be set up. `record` names what is kept of it: two that share their files share it.

    `restart` is the command that makes it read its files anew, empty where it does so by itself; `restart_note` says
    when. `when_down` says what its pulls do while the peer is down.
    """

    name: str
    record: str
    plan: Callable[[Files, Wanted], Plan]
    restart: str
    when_down: str
    restart_note: str = ""


def origin_url(registry: str) -> str:
    """Where a client finds it without us."""
    return DOCKER_HUB_URL if registry == DOCKER_HUB else f"https://{registry}"


def changed(files: Files, texts: Mapping[str, str]) -> dict[str, str]:
    """Those that differ from what is there."""
    return {path: text for path, text in texts.items() if files.read(path) != text}
