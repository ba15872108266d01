"""What stands in for a question that was asked before, and for an origin that is down; in memory and in its file."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING

import pytest

from peer.permission import answer_file, last_answers
from peer.permission.answer_file import ANSWERS_FILE, KEY_FILE, SqliteAnswerFile, credential_key
from peer.permission.credentials import CredentialKeys
from peer.permission.last_answers import AnswerKey, LastAnswers
from peer.registry.base import Caller

if TYPE_CHECKING:
    from pathlib import Path

HOST, PATH = "registry.example", "/v2/team/app/manifests/latest"
MINE, OTHER = Caller("Basic bWluZQ=="), Caller("Basic b3RoZXI=")
LINES = [("Docker-Content-Digest", "sha256:" + "a" * 64), ("Set-Cookie", "session=1")]
STALE_S = 3600.0


class Setting:
    """Answers of one node, at a time of its own; `restart` begins anew with the same folder."""

    def __init__(self, folder: Path | None = None, stale_s: float = STALE_S) -> None:
        self.now_s = 1_000_000.0
        self.folder = folder
        self.stale_s = stale_s
        self.file: SqliteAnswerFile | None = None
        self.restart()

    def restart(self) -> None:
        self.close()
        key = None
        if self.folder is not None:
            key, self.file = credential_key(self.folder), SqliteAnswerFile(self.folder)
        self.answers = LastAnswers(
            CredentialKeys(key), self.stale_s, self.file, clock=lambda: self.now_s, unix_clock=lambda: self.now_s
        )

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def key(self, caller: Caller = MINE, *accept: str) -> AnswerKey:
        return self.answers.key(HOST, PATH, caller, accept)

    def keep(self, caller: Caller = MINE, fresh_s: float = 60.0) -> None:
        self.answers.keep(self.key(caller), caller, 200, LINES, asked_s=self.now_s, fresh_s=fresh_s)


def bearer(ends_s: float) -> Caller:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": ends_s}).encode()).rstrip(b"=").decode()
    return Caller(f"Bearer e30.{claims}.c2ln")


def test_an_answer_is_fresh_for_its_time_and_then_the_last_one() -> None:
    setting = Setting()
    setting.keep()
    setting.now_s += 59
    assert setting.answers.fresh(setting.key()) is not None
    setting.now_s += 2
    assert setting.answers.fresh(setting.key()) is None
    last = setting.answers.last(setting.key(), MINE)
    assert last is not None
    assert (last.status, last.line("docker-content-digest")) == (200, LINES[0][1])
    setting.now_s += STALE_S
    assert setting.answers.last(setting.key(), MINE) is None


@pytest.mark.parametrize(
    "other",
    [
        lambda answers: answers.key(HOST, PATH, OTHER),
        lambda answers: answers.key(HOST, PATH, Caller()),
        lambda answers: answers.key(HOST, PATH + "2", MINE),
        lambda answers: answers.key("other.example", PATH, MINE),
        lambda answers: answers.key(HOST, PATH, MINE, ["a/b"]),
    ],
)
def test_it_is_for_the_very_same_question(other: object) -> None:
    setting = Setting()
    setting.keep()
    key = other(setting.answers)  # type: ignore[operator]
    assert setting.answers.fresh(key) is None
    assert setting.answers.last(key, MINE) is None


def test_accept_lines_count_in_any_order() -> None:
    setting = Setting()
    assert setting.key(MINE, "a/b", "c/d") == setting.key(MINE, "c/d", "a/b") != setting.key(MINE, "a/b")


def test_what_is_for_one_client_once_is_not_kept() -> None:
    setting = Setting()
    setting.keep()
    last = setting.answers.last(setting.key(), MINE)
    assert last is not None
    assert last.line("Set-Cookie") is None


def test_an_answer_with_very_much_in_its_lines_is_not_kept() -> None:
    setting = Setting()
    lines = [*LINES, ("X-Long", "x" * 5000)]
    told = setting.answers.keep(setting.key(), MINE, 200, lines, asked_s=setting.now_s, fresh_s=60.0)
    assert told.line("X-Long") is not None
    assert setting.answers.fresh(setting.key()) is None
    assert setting.answers.last(setting.key(), MINE) is None


def test_a_token_is_good_until_it_ends_by_its_own_word() -> None:
    setting = Setting()
    token = bearer(setting.now_s + 30)
    setting.keep(token)
    setting.now_s += 29
    assert setting.answers.fresh(setting.key(token)) is not None
    assert setting.answers.last(setting.key(token), token) is not None
    setting.now_s += 1
    assert setting.answers.fresh(setting.key(token)) is None
    assert setting.answers.last(setting.key(token), token) is None


def test_a_refusal_ends_what_was_said_before() -> None:
    setting = Setting()
    setting.keep()
    setting.answers.forget(setting.key())
    assert setting.answers.fresh(setting.key()) is None
    assert setting.answers.last(setting.key(), MINE) is None


def test_without_the_setting_nothing_stands_in_for_an_origin() -> None:
    setting = Setting(stale_s=0.0)
    setting.keep()
    assert setting.answers.fresh(setting.key()) is not None
    assert setting.answers.last(setting.key(), MINE) is None


def test_what_is_no_secret_stands_in_whoever_asks() -> None:
    setting = Setting()
    setting.keep()
    last = setting.answers.last(setting.key(), MINE)
    assert last is not None
    assert setting.answers.last_to_anyone(setting.key(OTHER)) is None
    setting.answers.keep_for_anyone(setting.key(), last)
    assert setting.answers.last_to_anyone(setting.key(OTHER)) == last


def test_what_somebody_wrote_over_is_not_fresh() -> None:
    setting = Setting()
    setting.keep()
    setting.answers.changed(HOST, PATH)
    assert setting.answers.fresh(setting.key()) is None
    setting.now_s += 1
    setting.keep()
    assert setting.answers.fresh(setting.key()) is not None


def test_an_origin_that_was_down_is_asked_again_after_a_while() -> None:
    setting = Setting()
    setting.answers.went_down(HOST)
    assert (setting.answers.is_down(HOST), setting.answers.is_down("other.example")) == (True, False)
    setting.now_s += 11
    assert not setting.answers.is_down(HOST)


# --- its file ---------------------------------------------------------------------------------------------------------


def test_answers_outlive_the_process_with_their_age(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    setting.keep()
    kept = setting.answers.last(setting.key(), MINE)
    setting.restart()
    setting.now_s += STALE_S - 1
    assert setting.answers.last(setting.key(), MINE) == kept
    assert setting.answers.last(setting.key(OTHER), OTHER) is None
    assert setting.answers.fresh(setting.key()) is None
    setting.now_s += 2
    setting.restart()
    assert setting.answers.last(setting.key(), MINE) is None
    setting.close()


def test_it_holds_no_more_than_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_answers, "REMEMBERED_MAX", 2)
    setting = Setting(tmp_path)
    for name in ("first", "second", "third"):
        setting.keep(Caller(f"Bearer {name}"))
    setting.close()
    with contextlib.closing(sqlite3.connect(tmp_path / ANSWERS_FILE)) as file:
        assert file.execute("SELECT count(*) FROM answers").fetchone() == (2,)


def test_a_refusal_outlives_it_too(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    setting.keep()
    setting.answers.forget(setting.key())
    setting.restart()
    assert setting.answers.last(setting.key(), MINE) is None
    setting.close()


def test_no_credential_and_no_name_stands_in_it(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    setting.keep()
    setting.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert MINE.authorization is not None
    for secret in (MINE.authorization, "bWluZQ", "mine", HOST, "team/app"):
        assert secret.encode() not in content
    for name in (ANSWERS_FILE, KEY_FILE):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    setting.keep()
    setting.close()
    (tmp_path / ANSWERS_FILE).write_bytes(b"something else entirely" * 100)
    setting.file = None
    setting.restart()
    assert setting.answers.last(setting.key(), MINE) is None
    setting.keep()
    setting.restart()
    assert setting.answers.last(setting.key(), MINE) is not None
    setting.close()


def test_a_file_that_cannot_be_written_costs_nothing_but_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    setting = Setting(tmp_path)
    with sqlite3.connect(tmp_path / ANSWERS_FILE) as other:
        other.execute("DROP TABLE answers")
    setting.keep()
    assert setting.answers.last(setting.key(), MINE) is not None
    setting.close()
    assert "state_not_written" in caplog.text


def test_without_the_setting_nothing_of_it_is_left(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    setting.keep()
    setting.close()
    answer_file.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []
