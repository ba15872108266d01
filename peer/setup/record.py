"""What was set up, kept so that it can be taken back: below /var/lib/layercast/setup, one folder a record.

`before/PATH` is the backup of a file, `after/PATH` what was written, and `record.json` lists them with the folders that
were made. A backup may hold a registry's password, as its file does: all of it is for its owner alone.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from peer.setup.contract import SetupRefused
from proto.runtime.private_files import make_private_folder, write_private

if TYPE_CHECKING:
    from pathlib import Path

    from peer.setup.disk import DiskFiles

FOLDER: Final = "/var/lib/layercast/setup"
_FORMAT: Final = 1
_INDEX: Final = "record.json"


@dataclass(slots=True)
class Record:
    """`files` has what each was and what we made of it; `made` the folders that we made."""

    files: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    # What was asked for.
    registries: tuple[str, ...] = ()
    proxy: bool = False


class RecordFolder:
    """The record of one client."""

    def __init__(self, files: DiskFiles, name: str) -> None:
        self._name = f"{FOLDER}/{name}"
        self.path = files.at(self._name)

    @property
    def backups(self) -> Path:
        """Where the files are as they were."""
        return self.path / "before"

    def read(self) -> Record:
        """An empty one if nothing is set up. Raises SetupRefused."""
        try:
            index = json.loads((self.path / _INDEX).read_text())
            if index["format"] != _FORMAT:
                raise SetupRefused(f"{self.path}: of another release of Layercast: undo it with that one")
            files = {
                str(path): (self._text("before", path), self._text("after", path) or "") for path in index["files"]
            }
            registries = tuple(str(registry) for registry in index.get("registries", ()))
            return Record(files, [str(folder) for folder in index["made"]], registries, bool(index.get("proxy")))
        except FileNotFoundError:
            return Record()
        except OSError as error:
            raise SetupRefused(f"{self.path}: {error.strerror}: run this as root") from None
        except (ValueError, KeyError, TypeError):
            raise SetupRefused(f"{self.path} is damaged: undo by hand from {self.backups}, then remove it") from None

    def write(self, record: Record) -> None:
        """In place of what was kept. Raises OSError."""
        part = self.path.with_name(f".{self.path.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        make_private_folder(part)
        for path, (before, after) in record.files.items():
            for kind, text in (("before", before), ("after", after)):
                if text is not None:
                    file = part / kind / path.lstrip("/")
                    make_private_folder(file.parent)
                    write_private(file, text.encode())
        index: dict[str, object] = {"format": _FORMAT, "files": list(record.files), "made": record.made}
        index |= {"registries": record.registries, "proxy": record.proxy}
        write_private(part / _INDEX, json.dumps(index, indent=1).encode() + b"\n")
        shutil.rmtree(self.path, ignore_errors=True)
        part.rename(self.path)

    def remove(self) -> None:
        """Nothing is set up any more."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()  # it was the last one

    def _text(self, kind: str, path: str) -> str | None:
        try:
            return (self.path / kind / path.lstrip("/")).read_bytes().decode()
        except FileNotFoundError:
            return None
