"""The folder of authorities: made once, for its owner alone, rotated with the one before beside it for a time."""

from __future__ import annotations

import stat
import time
from typing import TYPE_CHECKING

import pytest

from proto.errors import ConfigError
from supernode.membership.authorities import AuthorityFolder

if TYPE_CHECKING:
    from pathlib import Path


def test_the_first_start_makes_one_and_the_next_finds_it(tmp_path: Path) -> None:
    made = AuthorityFolder(tmp_path).load_or_create()
    assert AuthorityFolder(tmp_path).load_or_create().current.fingerprint == made.current.fingerprint


def test_all_of_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path)
    folder.path.mkdir(mode=0o755)
    folder.load_or_create()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder.path, *folder.path.iterdir()]}
    assert modes.pop("ca") == 0o700
    assert set(modes.values()) == {0o600}


def test_after_a_rotation_the_one_before_is_trusted_for_a_time(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path)
    before = folder.load_or_create()
    after = folder.rotate(100.0)
    assert after.current.fingerprint != before.current.fingerprint
    assert after.trusted == [after.current.certificate, before.current.certificate]
    assert after.cross is not None
    assert after.cross.issuer == before.current.name
    assert after.cross.public_key() == after.current.certificate.public_key()
    assert after.at(time.time() + 101.0).trusted == [after.current.certificate]


def test_a_rotation_without_overlap_trusts_the_new_one_alone(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path)
    folder.load_or_create()
    after = folder.rotate(0.0)
    assert (after.older, after.cross) == (None, None)
    assert folder.load_or_create().trusted == [after.current.certificate]


def test_a_running_service_sees_a_rotation_by_the_stamp(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path)
    folder.load_or_create()
    before = folder.stamp()
    assert AuthorityFolder(tmp_path).stamp() == before
    AuthorityFolder(tmp_path).rotate(1.0)
    assert folder.stamp() != before


def test_the_key_of_an_authority_that_certifies_no_more_is_gone(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path)
    folder.load_or_create()
    folder.rotate(100.0)
    assert [path.name for path in folder.path.glob("*.key")] == ["2.key"]


def test_a_damaged_folder_is_one_line(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path)
    folder.load_or_create()
    (folder.path / "1.key").write_bytes(b"rotten")
    with pytest.raises(ConfigError, match=r"is damaged .*restore it from a backup"):
        folder.load_or_create()
