"""What was set up, kept so that it can be taken back: below /var/lib/layercast/setup, one folder a record.

`before/PATH` is the backup of a file, `after/PATH` what was written, and `record.json` lists them with the folders that
were made. `earlier/PATH` is there while a run changes what another one set up: one that is killed leaves files of both.
A backup may hold a registry's password, as its file does: all of it is for its owner alone.
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
# Beside a record, while it is replaced.
_PART: Final = ".part"
_OLD: Final = ".old"


@dataclass(slots=True)
class Record:
    """`files` has what each was and what we made of it, None where it was not there or goes; `made` our folders.

    `earlier` has what files were when the run began that wrote this, where that was the work of an earlier one.
    """

    files: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    earlier: dict[str, str] = field(default_factory=dict)
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
        here = self._here()
        try:
            index = json.loads((here / _INDEX).read_text())
            if index["format"] != _FORMAT:
                raise SetupRefused(f"{self.path}: of another release of Layercast: undo it with that one")
            files = {str(path): (_text(here, "before", path), _text(here, "after", path)) for path in index["files"]}
            new = index.get("new")
            if new is not None and any(before is None and path not in new for path, (before, _) in files.items()):
                raise ValueError("a backup is gone")
            return Record(
                files,
                [str(folder) for folder in index["made"]],
                {str(path): _text(here, "earlier", path) or "" for path in index.get("earlier", ())},
                tuple(str(registry) for registry in index.get("registries", ())),
                bool(index.get("proxy")),
            )
        except FileNotFoundError:
            return Record()
        except OSError as error:
            raise SetupRefused(f"{self.path}: {error.strerror}: run this as root") from None
        except (ValueError, KeyError, TypeError):
            raise SetupRefused(f"{self.path} is damaged: undo by hand from {self.backups}, then remove it") from None

    def write(self, record: Record) -> None:
        """In place of what was kept; killed at any point, the one or the other is there. Raises OSError."""
        part = self._beside(_PART)
        shutil.rmtree(part, ignore_errors=True)
        make_private_folder(part)
        for path, (before, after) in record.files.items():
            for kind, text in (("before", before), ("after", after), ("earlier", record.earlier.get(path))):
                if text is not None:
                    file = part / kind / path.lstrip("/")
                    make_private_folder(file.parent)
                    write_private(file, text.encode())
        index: dict[str, object] = {"format": _FORMAT, "files": list(record.files), "made": record.made}
        index |= {"registries": record.registries, "proxy": record.proxy, "earlier": list(record.earlier)}
        index["new"] = [path for path, (before, _) in record.files.items() if before is None]
        # The last of it: a part that has it is whole.
        write_private(part / _INDEX, json.dumps(index, indent=1).encode() + b"\n")
        old = self._beside(_OLD)
        shutil.rmtree(old, ignore_errors=True)
        if self.path.exists():
            self.path.rename(old)
        part.rename(self.path)
        shutil.rmtree(old, ignore_errors=True)

    def remove(self) -> None:
        """Nothing is set up any more. First goes what makes a folder a record: half a one would take back too much."""
        for folder in (self._beside(_PART), self._beside(_OLD), self.path):
            with contextlib.suppress(OSError):
                (folder / _INDEX).unlink()
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()  # it was the last one

    def _here(self) -> Path:
        """Where it lies; a run that was killed between two names left it under another one."""
        folders = (self.path, self._beside(_PART), self._beside(_OLD))
        return next((folder for folder in folders if (folder / _INDEX).exists()), self.path)

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(f".{self.path.name}{ending}")


def _text(folder: Path, kind: str, path: str) -> str | None:
    try:
        return (folder / kind / path.lstrip("/")).read_bytes().decode()
    except FileNotFoundError:
        return None
