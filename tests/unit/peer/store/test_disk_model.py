"""DiskStore against a model in a few lines, by random sequences of everything that can be done to it."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from peer.store.disk import DiskStore
from proto.errors import LocalError, PieceCorrupt, StoreFull
from tests.support.blobs import SomeBlob, some_blob, write_piece

if TYPE_CHECKING:
    from peer.store.base import BlobHandle
    from proto.ids import Digest

LIMIT_BYTES = 10_000
BLOBS = [some_blob(size, piece_size_bytes=1000, seed=seed) for seed, size in enumerate((4000, 3500, 3000, 2999, 0))]
INDEX = st.integers(0, len(BLOBS) - 1)
PIECE = st.integers(0, 3)


@dataclass
class Expected:
    """What the model knows of one blob in the store."""

    held: int = 0
    complete: bool = False
    handles: list[BlobHandle] = field(default_factory=list)


class DiskStoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        # Least recently used first, as in the store.
        self.model: dict[int, Expected] = {}
        self.evicted: list[Digest] = []
        self.expected_evicted: list[Digest] = []
        self.open_store()

    def open_store(self) -> None:
        self.store = DiskStore(Path(self.folder.name), size_limit_bytes=LIMIT_BYTES, free_floor_bytes=0)
        self.store.on_evicted(self.evicted.append)

    def touch(self, index: int) -> None:
        self.model[index] = self.model.pop(index)

    def pinned(self, index: int) -> Expected | None:
        expected = self.model.get(index)
        return expected if expected and expected.handles else None

    def used(self, model: dict[int, Expected]) -> int:
        return sum(BLOBS[index].layout.size_bytes for index in model)

    @rule(index=INDEX)
    def open(self, index: int) -> None:
        blob = BLOBS[index]
        if index not in self.model and not self.make_room(blob):
            with pytest.raises(StoreFull):
                self.store.open(blob.digest, blob.layout)
            return
        self.model.setdefault(index, Expected()).handles.append(self.store.open(blob.digest, blob.layout))
        self.touch(index)

    def make_room(self, blob: SomeBlob) -> bool:
        pinned = {index: expected for index, expected in self.model.items() if expected.handles}
        if self.used(pinned) + blob.layout.size_bytes > LIMIT_BYTES:
            return False
        for index in [index for index in self.model if index not in pinned]:
            if self.used(self.model) + blob.layout.size_bytes <= LIMIT_BYTES:
                break
            self.expected_evicted.append(BLOBS[index].digest)
            del self.model[index]
        return True

    @rule(index=INDEX)
    def get(self, index: int) -> None:
        handle = self.store.get(BLOBS[index].digest)
        assert (handle is not None) == (index in self.model)
        if handle is not None:
            self.model[index].handles.append(handle)
            self.touch(index)

    @rule(index=INDEX)
    def close(self, index: int) -> None:
        if expected := self.pinned(index):
            expected.handles.pop().close()

    @rule(index=INDEX, piece=PIECE)
    def write(self, index: int, piece: int) -> None:
        expected, blob = self.pinned(index), BLOBS[index]
        if expected and piece < blob.layout.count:
            write_piece(expected.handles[0], blob, piece)
            expected.held |= 1 << piece

    @rule(index=INDEX, piece=PIECE)
    def write_corrupt(self, index: int, piece: int) -> None:
        expected, blob = self.pinned(index), BLOBS[index]
        if not expected or piece >= blob.layout.count:
            return
        handle = expected.handles[0]
        known = blob.hashes[piece * 32 : (piece + 1) * 32]
        handle.trust_hashes(piece, known)
        writer = handle.writer(piece)
        writer.write(memoryview(bytes(blob.layout.length(piece))))
        with pytest.raises(PieceCorrupt):
            writer.finish()

    @rule(index=INDEX, piece=PIECE, aside_first=st.booleans())
    def race(self, index: int, piece: int, aside_first: bool) -> None:
        expected, blob = self.pinned(index), BLOBS[index]
        if not expected or piece >= blob.layout.count:
            return
        handle = expected.handles[0]
        one = handle.writer(piece, from_origin=True)
        other = handle.writer(piece, from_origin=True)
        writers = (other, one) if aside_first else (one, other)
        half = blob.layout.length(piece) // 2
        for writer in writers:
            writer.write(memoryview(blob.piece(piece))[:half])
        for writer in writers:
            writer.write(memoryview(blob.piece(piece))[half:])
            writer.finish()
        expected.held |= 1 << piece

    @rule(index=INDEX)
    def check(self, index: int) -> None:
        expected = self.pinned(index)
        if not expected:
            return
        if expected.held == BLOBS[index].layout.full_mask:
            assert expected.handles[0].check_digest()
            expected.complete = True
        else:
            with pytest.raises(LocalError):
                expected.handles[0].check_digest()

    @rule(index=INDEX)
    def void(self, index: int) -> None:
        if expected := self.pinned(index):
            expected.handles[0].void()
            if not expected.complete:
                expected.held = 0

    @rule(index=INDEX)
    def remove(self, index: int) -> None:
        removable = index in self.model and not self.model[index].handles
        assert self.store.remove(BLOBS[index].digest) == removable
        if removable:
            del self.model[index]
            self.expected_evicted.append(BLOBS[index].digest)

    @precondition(lambda self: self.model)
    @rule()
    def restart(self) -> None:
        for expected in self.model.values():
            while expected.handles:
                expected.handles.pop().close()
        self.store.close()
        self.open_store()

    @invariant()
    def the_inventory_is_the_models(self) -> None:
        found = {line.digest: (line.held, line.complete) for line in self.store.inventory()}
        assert found == {BLOBS[index].digest: (each.held, each.complete) for index, each in self.model.items()}
        assert self.store.used_bytes == self.used(self.model) <= LIMIT_BYTES
        assert self.evicted == self.expected_evicted

    @invariant()
    def held_bytes_are_the_blobs(self) -> None:
        for index, expected in self.model.items():
            blob = BLOBS[index]
            for handle in expected.handles[:1]:
                for piece in range(blob.layout.count):
                    if handle.held >> piece & 1:
                        start, length = blob.layout.offset(piece), blob.layout.length(piece)
                        assert os.pread(handle.fileno(), length, start) == blob.piece(piece)

    def teardown(self) -> None:
        for expected in self.model.values():
            for handle in expected.handles:
                handle.close()
        self.store.close()
        self.folder.cleanup()


TestDiskStoreMachine = DiskStoreMachine.TestCase
TestDiskStoreMachine.settings = settings(max_examples=40, stateful_step_count=40)
