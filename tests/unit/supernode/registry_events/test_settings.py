"""What an operator sets of registry events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proto.config.settings import reloaded
from proto.errors import ConfigError
from supernode.config import SupernodeConfig, load
from supernode.registry_events.rules import Rule

if TYPE_CHECKING:
    from pathlib import Path

RULE = '[preheat."apps"]\nrepositories = ["quay.io/team/*"]\n'


def config(tmp_path: Path, text: str) -> SupernodeConfig:
    """Of a file with this text, and one with a secret beside it."""
    (tmp_path / "token").write_text("0123456789abcdef")
    file = tmp_path / "supernode.toml"
    file.write_text(text)
    return load(["--config", str(file)], {})


def test_without_anything_set_nobody_may_send_and_there_are_no_rules(tmp_path: Path) -> None:
    found = config(tmp_path, "")
    assert (found.rules, found.senders.exist) == ((), False)


def test_rules_and_the_secret_come_from_the_file_and_change_while_it_runs(tmp_path: Path) -> None:
    before = config(tmp_path, "")
    after = reloaded(before, config(tmp_path, f'event_token_file = "{tmp_path / "token"}"\n{RULE}'))
    assert after.rules == (Rule("apps", ("quay.io/team/*",)),)
    assert after.senders.has_token("0123456789abcdef")


def test_a_rule_names_registries_that_are_allowed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'\[preheat."apps"\]: .*--allow-upstream'):
        config(tmp_path, RULE.replace("quay.io", "private.example"))


@pytest.mark.parametrize("text", ['preheat = "all"', '[preheat]\nrepositories = ["quay.io/a"]'])
def test_a_rule_without_a_name_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="preheat: expected sections"):
        config(tmp_path, text)


def test_a_peer_has_no_rules(tmp_path: Path) -> None:
    from peer.config import load as load_peer

    file = tmp_path / "peer.toml"
    file.write_text(RULE)
    with pytest.raises(ConfigError, match="unknown key 'preheat'"):
        load_peer(["--config", str(file)], {})


def test_printed_settings_name_the_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "supernode.toml"
    file.write_text(RULE)
    with pytest.raises(SystemExit):
        load(["--config", str(file), "--print-config"], {})
    assert 'preheat."apps"  # repositories' in capsys.readouterr().out
