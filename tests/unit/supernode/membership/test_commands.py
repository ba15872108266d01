"""`layercast-supernode token`, `node` and `ca`, as an operator types them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proto.wire.join import parse_join_token
from proto.wire.tickets import Identity
from supernode.__main__ import run
from supernode.membership.authorities import AuthorityFolder
from supernode.membership.database import MemberDatabase

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> AuthorityFolder:
    made = AuthorityFolder(tmp_path)
    made.load_or_create()
    return made


def said(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str:
    assert run([*words, "--data-dir", str(folder)]) == 0
    return capsys.readouterr().out


def test_a_token_is_printed_once_and_listed_without_its_secret(
    tmp_path: Path, folder: AuthorityFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, tmp_path, "token", "create", "--ttl", "1h", "--uses", "3").strip()
    token = parse_join_token(text)
    assert token.fingerprint == folder.load_or_create().current.fingerprint
    listed = said(capsys, tmp_path, "token", "list")
    assert f"{token.id}  open   0 of 3" in listed
    assert text.split(".")[2] not in listed


def test_a_token_is_revoked_by_its_id_or_by_itself(
    tmp_path: Path, folder: AuthorityFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [said(capsys, tmp_path, "token", "create").strip() for _ in range(2)]
    said(capsys, tmp_path, "token", "revoke", parse_join_token(texts[0]).id)
    said(capsys, tmp_path, "token", "revoke", texts[1])
    assert said(capsys, tmp_path, "token", "list").count("revoked") == 2


def test_a_node_is_revoked_by_the_beginning_of_its_id(
    tmp_path: Path, folder: AuthorityFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    database, peer = MemberDatabase(folder.path), Identity.generate().peer
    database.record_seen([(peer, "10.0.0.1", 1e10)])
    said(capsys, tmp_path, "node", "revoke", peer.hex()[:8])
    assert "revoked" in said(capsys, tmp_path, "node", "list")
    assert database.revoked() == {peer}
    database.close()


def test_a_quarantine_is_ended_by_the_beginning_of_the_nodes_id(
    tmp_path: Path, folder: AuthorityFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = Identity.generate().peer
    database = MemberDatabase(folder.path)
    database.record_seen([(peer, "10.0.0.1", 1e12)])
    assert "asked for pieces again" in said(capsys, tmp_path, "node", "lift", peer.hex()[:8])
    assert database.take_lifts() == {peer}
    assert database.take_lifts() == frozenset()
    database.close()


def test_a_rotation_says_what_follows(
    tmp_path: Path, folder: AuthorityFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "running nodes renew by themselves" in said(capsys, tmp_path, "ca", "rotate", "--overlap", "7d")
    assert "every node needs a new join token" in said(capsys, tmp_path, "ca", "rotate", "--overlap", "0")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["token", "create", "--ttl", "never"], "--ttl: 'never': expected a time"),
        (["token", "create", "--uses", "0"], "--uses: '0': expected 1 to 1000000"),
        (["token", "revoke", "abc"], "there is no token abc"),
        (["node", "revoke", "ab"], "at least 6 characters"),
        (["node", "revoke", "abcdef12"], "0 nodes begin with abcdef12"),
        (["node", "drop"], "invalid choice"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    tmp_path: Path, folder: AuthorityFolder, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    assert run([*words, "--data-dir", str(tmp_path)]) in (1, 2)
    line = capsys.readouterr().err
    assert complaint in line
    assert line.count("\n") == 1


def test_a_folder_that_no_supernode_used_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "create", "--data-dir", str(tmp_path / "wrong")]) == 2
    assert "start the supernode once, or name its folder with --data-dir" in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()


def test_the_folder_is_found_as_the_supernode_finds_it(
    tmp_path: Path, folder: AuthorityFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "supernode.toml"
    config.write_text(f'data_dir = "{tmp_path}"\nlisten = "0.0.0.0:65000"\n')
    assert run(["token", "list", "--config", str(config)]) == 0
    monkeypatch.setenv("LAYERCAST_DATA_DIR", str(tmp_path))
    assert run(["token", "list"]) == 0
    assert capsys.readouterr().err == ""
