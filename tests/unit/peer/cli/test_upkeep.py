"""`layercast verify`, `evict` and `gc`: on a store that no service has open, and by the one that has."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from peer.cli.main import main
from peer.store.disk import DiskStore
from peer.store.paths import StoreRoot
from peer.store.upkeep import Upkeep
from proto.runtime.operator_socket import OperatorSocket
from tests.support.blobs import fill, some_blob
from tests.support.rot import flip, stored_path

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.blobs import SomeBlob

BLOB = some_blob(10_000, piece_size_bytes=1000)
OTHER = some_blob(5_000, piece_size_bytes=1000, seed=2)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Of a peer that ended, with two blobs."""
    store = open_store(tmp_path)
    fill(store, BLOB).close()
    fill(store, OTHER).close()
    store.close()
    return tmp_path


def open_store(data_dir: Path) -> DiskStore:
    return DiskStore(data_dir / "store", size_limit_bytes=1 << 30, free_floor_bytes=0)


def layercast(data_dir: Path, *words: str) -> int:
    return main([*words, "--data-dir", str(data_dir)])


def test_verify_says_what_it_read(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert layercast(data_dir, "verify") == 0
    assert capsys.readouterr().out == "verified 2 blobs, 0.0 MiB: all as they should be\n"


def test_verify_drops_what_has_rotted_and_says_so(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(stored_path(data_dir, str(BLOB.digest)), 2_000)
    assert layercast(data_dir, "verify", str(OTHER.digest)) == 0
    assert layercast(data_dir, "verify", str(BLOB.digest)) == 3
    shown = capsys.readouterr().out.splitlines()
    assert shown[1:] == [
        f"{BLOB.digest}: 1 piece was rotten and dropped; to be fetched again with the next pull",
        "verified 1 blobs, 0.0 MiB: 1 piece was rotten",
    ]
    assert not stored_path(data_dir, str(BLOB.digest)).exists()


def test_evict_deletes_one_blob(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert layercast(data_dir, "evict", str(BLOB.digest)) == 0
    assert capsys.readouterr().out == f"evicted {BLOB.digest}, 0.0 MiB\n"
    store = open_store(data_dir)
    assert [line.digest for line in store.inventory()] == [OTHER.digest]
    store.close()


def use_long_ago(data_dir: Path, blob: SomeBlob) -> None:
    """A month."""
    meta = StoreRoot(data_dir / "store")
    meta.of(blob.digest).touch(time.time_ns() - 30 * 86_400 * 10**9)
    meta.close()


def test_gc_deletes_what_was_not_used_for_a_week(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    use_long_ago(data_dir, BLOB)
    assert layercast(data_dir, "gc", "--dry-run") == 0
    assert layercast(data_dir, "gc") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{BLOB.digest} 0.0 MiB",
        "would evict 1 blobs, 0.0 MiB; 0 blobs are kept",
        f"{BLOB.digest} 0.0 MiB",
        "evicted 1 blobs, 0.0 MiB; 0 blobs are kept",
    ]
    store = open_store(data_dir)
    assert [line.digest for line in store.inventory()] == [OTHER.digest]
    store.close()


def test_gc_leaves_what_is_kept_or_in_use(data_dir: Path) -> None:
    store = open_store(data_dir)
    store.keep([BLOB.digest])
    handle = store.get(OTHER.digest)
    assert handle is not None
    Upkeep(store, "").gc("0", print)
    assert len(store.inventory()) == 2
    handle.close()
    Upkeep(store, "").gc("0", print)
    assert [line.digest for line in store.inventory()] == [BLOB.digest]
    store.close()


def test_what_is_kept_is_not_evicted_by_hand(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(data_dir)
    store.keep([BLOB.digest])
    store.close()
    assert layercast(data_dir, "evict", str(BLOB.digest)) == 1
    assert "is kept" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "evict"])
def test_a_blob_that_is_not_there_is_one_line(data_dir: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    digest = some_blob(1).digest
    assert layercast(data_dir, command, str(digest)) == 1
    assert capsys.readouterr().err == f"layercast {command}: blob {digest} is not in the store {data_dir}/store\n"


def test_a_folder_without_a_store_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert layercast(tmp_path, "verify") == 1
    assert "name the data folder" in capsys.readouterr().err


def test_a_store_whose_service_cannot_be_asked_is_one_line(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(data_dir)
    assert layercast(data_dir, "verify") == 1
    assert "in use by another process" in capsys.readouterr().err
    store.close()


def test_a_running_service_does_it(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(data_dir)
    upkeep = Upkeep(store, "being fetched again")
    door = OperatorSocket(data_dir, {"verify": upkeep.verify, "evict": upkeep.evict})
    try:
        flip(stored_path(data_dir, str(BLOB.digest)), 2_000)
        assert layercast(data_dir, "verify") == 3
        assert "1 piece was rotten and dropped; being fetched again" in capsys.readouterr().out
        handle = store.get(OTHER.digest)
        assert handle is not None
        assert layercast(data_dir, "evict", str(OTHER.digest)) == 1
        assert "is in use" in capsys.readouterr().err
        handle.close()
        assert layercast(data_dir, "evict", str(OTHER.digest)) == 0
        assert [line.digest for line in store.inventory()] == [BLOB.digest]
    finally:
        door.close()
        store.close()


def test_for_programs_the_answer_is_one_object(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(stored_path(data_dir, str(BLOB.digest)), 2_000)
    assert layercast(data_dir, "verify", "--json") == 3
    answer = json.loads(capsys.readouterr().out)
    assert (answer["code"], len(answer["said"])) == (3, 1)
    assert answer["ended"].endswith("1 piece was rotten")
    assert layercast(data_dir, "evict", str(some_blob(1).digest), "--json") == 1
    assert "is not in the store" in json.loads(capsys.readouterr().out)["ended"]
    assert layercast(data_dir, "drain", "--json") == 1
    assert "no peer runs" in json.loads(capsys.readouterr().out)["ended"]


@pytest.mark.parametrize("words", [["evict"], ["verify", "nonsense"], ["evict", "sha256:12"]])
def test_wrong_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
