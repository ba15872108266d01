"""What a remote can make us log has a limit, and what was left out is counted."""

from __future__ import annotations

import logging

import pytest

from proto.runtime.logs import LogLimit, setup, without_secrets

LOGGER = logging.getLogger(__name__)


def test_lines_beyond_the_limit_are_counted_and_told_in_the_next_period(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    limit = LogLimit(lines_max=2, period_s=60.0, clock=lambda: now_s)
    with caplog.at_level(logging.INFO):
        for number in range(5):
            limit.log(LOGGER, logging.INFO, "refused number=%d", number)
        assert caplog.messages == ["refused number=0", "refused number=1"]
        now_s = 60.0
        limit.log(LOGGER, logging.INFO, "refused number=%d", 5)
    assert caplog.messages[2:] == ["lines_left_out count=3 kind=refused", "refused number=5"]


TOKEN = f"lc1.abcdefgh.{'S' * 43}.{'F' * 43}"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"unrecognized arguments: {TOKEN}; --help", "unrecognized arguments: lc1.abcdefgh....; --help"),
        (f"--join-file {TOKEN}: No such file", "--join-file lc1.abcdefgh....: No such file"),
        ("'http://user:p@ss@host/x': expected", "'http://...@host/x': expected"),
        ("mail ops@example.com, see http://host/a", "mail ops@example.com, see http://host/a"),
    ],
)
def test_what_an_operator_put_in_a_wrong_place_is_not_shown(said: str, shown: str) -> None:
    assert without_secrets(said) == shown


@pytest.mark.parametrize("as_json", [False, True])
def test_no_line_of_the_log_has_a_token(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    try:
        setup(as_json=as_json)
        try:
            raise ValueError(TOKEN)
        except ValueError:
            LOGGER.exception("failed %s", TOKEN)
    finally:
        logging.basicConfig(force=True)
    assert "S" * 43 not in capsys.readouterr().err
