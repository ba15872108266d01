"""kill -9 at any moment: no verified piece is lost, none is held that does not match."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import blake3

from peer.store.disk import DiskStore
from tests.support.blobs import some_blob

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 12
BLOB = some_blob(64 * 1024 * 400 - 7, piece_size_bytes=64 * 1024)

# Four threads write the missing pieces, every third one corrupt; each verified piece is reported on a line.
WRITER = """
import sys, threading
from pathlib import Path
from peer.store.disk import DiskStore
from proto.errors import PieceCorrupt
from tests.support.blobs import some_blob
blob = some_blob(64 * 1024 * 400 - 7, piece_size_bytes=64 * 1024)
store = DiskStore(Path(sys.argv[1]), size_limit_bytes=1 << 30, free_floor_bytes=0)
handle = store.open(blob.digest, blob.layout)
handle.trust_hashes(0, blob.hashes)
print("ready", flush=True)
def work(number):
    for piece in range(number, blob.layout.count, 4):
        if handle.held >> piece & 1:
            continue
        for content in (bytes(blob.layout.length(piece)), blob.piece(piece))[piece % 3 != 0:]:
            writer = handle.writer(piece)
            try:
                for start in range(0, len(content), 8192):
                    writer.write(memoryview(content)[start:start + 8192])
                writer.finish()
                sys.stdout.write(f"{piece}\\n")
                sys.stdout.flush()
            except PieceCorrupt:
                pass
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
handle.check_digest()
print("complete", flush=True)
"""


def run_and_kill(root: Path, after_s: float, *, after_a_line: bool) -> list[str]:
    """The lines that the writer had printed when it was killed, so long after it was ready or had printed one."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        text = process.stdout.readline() if after_a_line else ""
        time.sleep(after_s)
        process.kill()
        text += process.stdout.read()
    # A line that was cut off is no report.
    return text[: text.rfind("\n") + 1].split()


def test_kill_9_loses_no_verified_piece_and_holds_no_other(tmp_path: Path) -> None:
    moments = random.Random(9)
    reported: set[int] = set()
    for number in range(ROUNDS):
        lines = run_and_kill(tmp_path, moments.uniform(0.0, 0.06), after_a_line=number % 2 == 1)
        reported |= {int(line) for line in lines if line != "complete"}
        store = DiskStore(tmp_path, size_limit_bytes=1 << 30, free_floor_bytes=0)
        handle = store.get(BLOB.digest)
        assert handle is not None
        held = {piece for piece in range(BLOB.layout.count) if handle.held >> piece & 1}
        assert reported <= held
        with open(handle.fileno(), "rb", closefd=False) as file:
            for piece in held:
                file.seek(BLOB.layout.offset(piece))
                content = file.read(BLOB.layout.length(piece))
                assert blake3.blake3(content).digest() == BLOB.hashes[piece * 32 : (piece + 1) * 32]
        handle.close()
        store.close()
    assert reported
