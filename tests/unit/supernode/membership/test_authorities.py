"""The folder of authorities: made once, for its owner alone, rotated with the one before beside it for a time."""

from __future__ import annotations

import shutil
import stat
import time
from typing import TYPE_CHECKING

import pytest

from proto.errors import ConfigError, LocalError
from proto.runtime.certificates import key_pem
from proto.runtime.private_files import write_private
from supernode.membership.authorities import AuthorityFolder
from supernode.membership.certificates import new_authority, pem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_the_first_start_makes_one_and_the_next_finds_it(tmp_path: Path) -> None:
    made = AuthorityFolder(tmp_path).load_or_create()
    assert AuthorityFolder(tmp_path).load_or_create().current.fingerprint == made.current.fingerprint


@pytest.mark.parametrize("make", [AuthorityFolder.load_or_create, lambda folder: folder.rotate(100.0)])
def test_a_clock_that_was_never_set_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[AuthorityFolder], object]
) -> None:
    folder = AuthorityFolder(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 100.0)
    with pytest.raises(ConfigError, match=r"clock shows 1970-01-01 .* set it"):
        make(folder)
    assert not folder.exists()


def test_one_that_was_made_by_such_a_clock_is_refused(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path)
    folder.load_or_create()
    early = new_authority(100.0)
    write_private(folder.path / "1.key", key_pem(early.key))
    write_private(folder.path / "1.crt", pem([early.certificate]).encode())
    with pytest.raises(ConfigError, match=r"good until 19[78]\d.*Remove that folder"):
        folder.load_or_create()


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


def test_a_key_that_is_not_the_certificate_s_is_damage(tmp_path: Path) -> None:
    folder, other = AuthorityFolder(tmp_path / "one"), AuthorityFolder(tmp_path / "other")
    folder.load_or_create()
    other.load_or_create()
    shutil.copy(other.path / "1.key", folder.path / "1.key")
    with pytest.raises(ConfigError, match=r"is damaged \(1\.key is not the key of 1\.crt\)"):
        folder.load_or_create()


@pytest.mark.parametrize("index", ["[]", '{"current": null, "older_until_unix_s": 0}', "", "\ud800"])
def test_an_index_that_makes_no_sense_is_damage(tmp_path: Path, index: str) -> None:
    folder = AuthorityFolder(tmp_path)
    folder.load_or_create()
    (folder.path / "authorities.json").write_bytes(index.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match="is damaged"):
        folder.load()


def test_a_start_that_was_killed_before_the_index_stood_begins_again(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path)
    folder.load_or_create()
    (folder.path / "authorities.json").unlink()
    again = AuthorityFolder(tmp_path)
    again.load_or_create()
    assert again.operator_token()


def test_whoever_was_killed_after_the_index_stood_is_finished_by_the_next(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path)
    before = folder.load_or_create()
    key, bundle = (folder.path / "1.key").read_bytes(), (folder.path / "ca.pem").read_bytes()
    after = folder.rotate(100.0)
    (folder.path / "1.key").write_bytes(key)
    (folder.path / "ca.pem").write_bytes(bundle)
    AuthorityFolder(tmp_path).load_or_create()
    assert [path.name for path in folder.path.glob("*.key")] == ["2.key"]
    assert (folder.path / "ca.pem").read_text() == pem([after.current.certificate, before.current.certificate])


def test_a_folder_that_is_gone_is_no_reason_for_another_authority(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path)
    folder.load_or_create()
    shutil.rmtree(folder.path)
    with pytest.raises(ConfigError, match="No such file"):
        folder.load()
    assert not folder.path.exists()


def test_a_second_rotation_would_put_out_who_has_not_renewed_since_the_first(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path)
    folder.load_or_create()
    first = folder.rotate(100.0)
    with pytest.raises(LocalError, match=r"there was a rotation already: .* with --overlap 0"):
        folder.rotate(100.0)
    assert folder.load().trusted == first.trusted
    assert folder.rotate(0.0).older is None


def test_an_empty_operator_s_token_opens_nothing(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path)
    folder.load_or_create()
    (folder.path / "operator.token").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        folder.operator_token()
