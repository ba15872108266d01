"""Sets a client up, or takes that back: all of its files or none of them.

What was set up before is taken back first, in memory: a second run of the same changes nothing, one with other
registries leaves no trace of the first.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peer.setup.contract import Overlay, SetupRefused
from peer.setup.disk import DiskFiles
from peer.setup.meaning import is_taken_back
from peer.setup.record import Record, RecordFolder
from peer.setup.reversal import ChangedSince, ours, undone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from peer.setup.contract import Client, Wanted


@dataclass(frozen=True, slots=True)
class FileChange:
    """None: no such file."""

    path: str
    before: str | None
    after: str | None


class Change:
    """What is to be done to the files of a client; nothing is, before carry_out()."""

    def __init__(
        self,
        files: DiskFiles,
        folder: RecordFolder,
        targets: Mapping[str, str | None],
        record: Record,
        before: Record,
    ) -> None:
        self._files = files
        self._folder = folder
        self._record = record
        # What an earlier run left.
        self._before = before
        self._paths = list(targets)
        found = [FileChange(path, files.read(path), after) for path, after in targets.items()]
        self.changes = [each for each in found if each.before != each.after]
        self.notes: tuple[str, ...] = ()

    @property
    def backups(self) -> Path:
        """Where what is replaced is kept."""
        return self._folder.backups

    def check(self) -> None:
        """Raises SetupRefused where it cannot be carried out."""
        for change in self.changes:
            self._files.check_writable(change.path)

    def carry_out(self) -> None:
        """Raises SetupRefused; then everything is as it was."""
        self.check()
        done: list[FileChange] = []
        written = [change.path for change in self.changes if change.after is not None]
        made = [folder for path in written for folder in self._files.missing_folders(path)]
        self._record.made = list(dict.fromkeys([*self._before.made, *made]))
        modes = {change.path: self._files.mode(change.path) for change in self.changes}
        try:
            # First what is needed to take it back, also if this is killed on the way.
            if self._record.files:
                self._folder.write(self._record)
            for change in self.changes:
                self._put(change.path, change.after)
                done.append(change)
        except OSError as error:
            where = error.filename or self._folder.path
            raise SetupRefused(f"{where}: {error.strerror}: {self._as_it_was(done, modes, made)}") from None
        for path in self._paths:
            self._files.remove_part(path)
        # Those of an earlier run that nothing needs now.
        self._files.remove_folders(self._before.made)
        self._keep_what_counts()

    def _as_it_was(self, done: Sequence[FileChange], modes: Mapping[str, int | None], made: Sequence[str]) -> str:
        """Put back what was written; in words, what came of it."""
        stuck = []
        for change in reversed(done):
            try:
                self._put(change.path, change.before, modes[change.path])
            except OSError:
                stuck.append(change.path)
        if stuck:
            return f"{', '.join(stuck)} could not be put back; run it again with --undo once that is mended"
        self._files.remove_folders(made)
        with contextlib.suppress(OSError):
            if self._before.files:
                self._folder.write(self._before)
            else:
                self._folder.remove()
        return "nothing was changed"

    def _keep_what_counts(self) -> None:
        """Everything is done: what a run that is killed needs is not needed any more."""
        was_interim = bool(self._record.earlier)
        self._record.earlier = {}
        self._record.files = {path: each for path, each in self._record.files.items() if each[0] != each[1]}
        if not self._record.files:
            self._folder.remove()
        elif was_interim:
            with contextlib.suppress(OSError):
                self._folder.write(self._record)

    def _put(self, path: str, text: str | None, mode: int | None = None) -> None:
        if text is not None:
            self._files.write(path, text, mode)
        else:
            self._files.remove(path)


def set_up(root: Path, client: Client, wanted: Wanted) -> Change:
    """What makes the client pull through the peer. Raises SetupRefused."""
    files = DiskFiles(root)
    folder = RecordFolder(files, client.record)
    earlier = folder.read()
    before = _taken_back(files, folder, earlier)
    bare = Overlay(files, before)
    plan = client.plan(bare, wanted)
    targets: dict[str, str | None] = {**before, **plan.texts}
    texts = {path: (bare.read(path), text) for path, text in targets.items()}
    current = {path: text for path in before if (text := files.read(path)) is not None}
    record = Record(texts, earlier=current, registries=wanted.registries, proxy=wanted.proxy)
    change = Change(files, folder, targets, record, earlier)
    change.notes = plan.notes
    return change


def undo(root: Path, client: Client) -> Change:
    """What takes that back. Raises SetupRefused, also if nothing was set up."""
    files = DiskFiles(root)
    folder = RecordFolder(files, client.record)
    earlier = folder.read()
    if not earlier.files:
        raise SetupRefused(f"{folder.path} has no record of it: {client.name} was not set up by this command")
    return Change(files, folder, _taken_back(files, folder, earlier), Record(), earlier)


def _taken_back(files: DiskFiles, folder: RecordFolder, record: Record) -> dict[str, str | None]:
    """The files without what we put into them. Raises SetupRefused."""
    found: dict[str, str | None] = {}
    for path, (before, after) in record.files.items():
        current = files.read(path)
        if current is not None and current == record.earlier.get(path):
            # The run that wrote this record was killed before it came to this file.
            found[path] = before
            continue
        try:
            found[path] = left = undone(before, after, current)
            if current is not None and left is not None and not is_taken_back(path, before, after, current, left):
                raise ChangedSince(ours(before, after))
        except ChangedSince as error:
            lines = " | ".join(line.strip() for line in error.lines if line.strip())
            raise SetupRefused(
                f"{files.at(path)} was changed since, where layercast wrote: {lines[:300]}: put these lines back, or "
                f"take them out and remove {folder.path}"
            ) from None
    return found
