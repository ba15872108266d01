"""The files of this machine, or of a folder in place of its root: read, replaced whole, removed. Decides nothing."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from peer.setup.contract import SetupRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

# No program's configuration is larger.
_BYTES_MAX: Final = 4 * 1024 * 1024
_FILE_MODE: Final = 0o644
_FOLDER_MODE: Final = 0o755


class DiskFiles:
    """See contract.Files; paths are absolute and taken below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def at(self, path: str) -> Path:
        """Where it lies."""
        return self._root / path.lstrip("/")

    def read(self, path: str) -> str | None:
        """See contract.Files."""
        try:
            real = self.at(path).resolve()
            # A symbolic link that leads out of the folder that stands for the root is another machine's.
            if not real.is_relative_to(self._root) or not real.exists():
                return None
            if not real.is_file() or real.stat().st_size > _BYTES_MAX:
                raise SetupRefused(f"{self.at(path)}: no file, or larger than {_BYTES_MAX >> 20} MiB")
            return real.read_bytes().decode()
        except OSError as error:
            raise SetupRefused(f"{self.at(path)}: {error.strerror}: run this as root") from None
        except UnicodeDecodeError:
            raise SetupRefused(f"{self.at(path)}: not UTF-8: mend it first") from None

    def names(self, folder: str) -> tuple[str, ...]:
        """See contract.Files."""
        try:
            return tuple(sorted(entry.name for entry in self.at(folder).iterdir()))
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise SetupRefused(f"{self.at(folder)}: {error.strerror}: run this as root") from None

    def check_writable(self, path: str) -> None:
        """Raises SetupRefused where write() or remove() would not do."""
        where = self.at(path)
        if where.is_symlink():
            raise SetupRefused(
                f"{where} is a symbolic link to {os.readlink(where)}: who manages that file must change it"
            )
        for folder in where.parents:
            if folder == self._root or folder == Path("/"):
                break
            if folder.is_symlink() and self._root != Path("/"):
                raise SetupRefused(f"{folder} is a symbolic link, which may lead out of {self._root}")
        folder = next(each for each in where.parents if each.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise SetupRefused(f"{folder} is not writable: run this as root, on a disk that is not read-only")
        if where.exists() and not (where.is_file() and os.access(where, os.W_OK)):
            raise SetupRefused(f"{where} is not a writable file: run this as root")

    def write(self, path: str, text: str, mode: int | None = None) -> None:
        """Replace it whole, or make it with its folders; owner and mode stay as they are. Raises OSError."""
        where = self.at(path)
        for folder in reversed(self.missing_folders(path)):
            self.at(folder).mkdir()
            # Whatever the umask is: the client's daemon may be another user.
            self.at(folder).chmod(_FOLDER_MODE)
        before = where.stat() if where.exists() else None
        part = _part(where)
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if before is not None and os.geteuid() == 0:
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                kept = mode if mode is not None else before.st_mode & 0o7777 if before is not None else _FILE_MODE
                os.fchmod(descriptor, kept)
                if before is not None:
                    _copy_attributes(where, descriptor)
                file.write(text.encode())
                file.flush()
                os.fsync(descriptor)
            part.replace(where)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def remove(self, path: str) -> None:
        """Raises OSError."""
        self.at(path).unlink(missing_ok=True)

    def remove_part(self, path: str) -> None:
        """What a write() that was killed left beside the file."""
        with contextlib.suppress(OSError):
            _part(self.at(path)).unlink()

    def remove_folders(self, paths: Iterable[str]) -> None:
        """Those of them that are empty, the deepest first."""
        for path in sorted(paths, key=len, reverse=True):
            with contextlib.suppress(OSError):
                self.at(path).rmdir()

    def mode(self, path: str) -> int | None:
        """None where there is no such file."""
        with contextlib.suppress(OSError):
            return self.at(path).stat().st_mode & 0o7777
        return None

    def missing_folders(self, path: str) -> list[str]:
        """Those that write() would make, the deepest first."""
        missing = [folder for folder in self.at(path).parents if not folder.exists()]
        return [f"/{folder.relative_to(self._root)}" for folder in missing]


def _part(where: Path) -> Path:
    return where.with_name(f".{where.name}.layercast.part")


def _copy_attributes(source: Path, target: int) -> None:
    """Access lists and security labels, so far as this disk and this user may."""
    with contextlib.suppress(OSError):
        for name in os.listxattr(source):
            with contextlib.suppress(OSError):
                os.setxattr(target, name, os.getxattr(source, name))
