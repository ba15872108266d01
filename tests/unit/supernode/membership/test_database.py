"""The database of tokens and nodes: shared with commands beside it, kept over restarts."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from proto.errors import ConfigError
from proto.wire.join import JoinToken
from proto.wire.tickets import Identity
from supernode.membership.database import FILE, MemberDatabase

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = JoinToken.generate("fingerprint")
NODE = Identity.generate().peer


def test_what_a_command_changes_beside_it_is_noticed(tmp_path: Path) -> None:
    running, command = MemberDatabase(tmp_path, make=True), MemberDatabase(tmp_path, make=True)
    running.add_token(TOKEN, 60.0, None)
    assert running.admit(NODE, TOKEN.id, 1e10, "10.0.0.1")
    before = running.stamp()
    assert running.stamp() == before
    assert command.revoke_node(NODE)
    assert running.stamp() != before
    assert running.revoked() == {NODE}
    running.close()
    command.close()


def test_tokens_and_nodes_outlive_a_restart_and_the_secret_is_not_kept(tmp_path: Path) -> None:
    database = MemberDatabase(tmp_path, make=True)
    database.add_token(TOKEN, 60.0, 3)
    database.admit(NODE, TOKEN.id, 1e10, "10.0.0.1")
    database.close()
    assert TOKEN.secret not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    database = MemberDatabase(tmp_path, make=True)
    assert [(token.id, token.uses, token.uses_max) for token in database.tokens()] == [(TOKEN.id, 1, 3)]
    assert [node.peer for node in database.nodes()] == [NODE]
    database.close()


def test_a_node_that_a_lost_book_had_is_back_when_it_connects(tmp_path: Path) -> None:
    database = MemberDatabase(tmp_path, make=True)
    database.record_seen([(NODE, "10.0.0.7", 1e10)])
    node = database.nodes()[0]
    assert (node.peer, node.address, node.expires_unix_s) == (NODE, "10.0.0.7", 1e10)
    database.close()


def test_two_uses_are_two_even_when_asked_for_at_once(tmp_path: Path) -> None:
    one, other = MemberDatabase(tmp_path, make=True), MemberDatabase(tmp_path, make=True)
    one.add_token(TOKEN, 60.0, 1)
    taken = [database.admit(Identity.generate().peer, TOKEN.id, 1e10, "") for database in (one, other)]
    assert taken == [True, False]
    one.close()
    other.close()


def test_a_book_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    MemberDatabase(tmp_path, make=True).close()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(ConfigError, match="has schema 99"):
        MemberDatabase(tmp_path, make=True)
