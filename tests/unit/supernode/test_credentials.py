"""The operator's logins, wherever they are kept."""

from __future__ import annotations

import base64
import json
import stat
from typing import TYPE_CHECKING

import pytest

from peer.registry.base import IDENTITY_TOKEN, Login
from proto.errors import LocalError
from proto.oci.upstreams import UpstreamConfig
from supernode.credentials import ASKED_AGAIN_S, KEPT_S, OperatorLogins

if TYPE_CHECKING:
    from pathlib import Path

HOST = "registry.example"


def upstream(credentials: str, host: str = HOST) -> UpstreamConfig:
    return UpstreamConfig(host, f"https://{host}", credentials=credentials)


def docker_config(folder: Path, config: object) -> OperatorLogins:
    (folder / "config.json").write_text(json.dumps(config))
    return OperatorLogins({"DOCKER_CONFIG": str(folder), "PATH": str(folder)})


def helper(folder: Path, name: str, answer: str) -> None:
    """A program that notes what it is asked, and answers this."""
    program = folder / f"docker-credential-{name}"
    program.write_text(f'#!/bin/sh\n[ "$1" = get ] || exit 1\n/bin/cat >> {folder}/asked\n{answer}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "login").write_text("robot:pass:word\n")
    assert OperatorLogins().login(upstream(f"file:{tmp_path}/login")) == Login("robot", "pass:word")


def test_of_dockers_configuration(tmp_path: Path) -> None:
    auth = base64.b64encode(b"robot:password").decode()
    logins = docker_config(tmp_path, {"auths": {f"https://{HOST}": {"auth": auth}}})
    assert logins.login(upstream("docker-config")) == Login("robot", "password")


def test_an_identity_token_of_dockers_configuration(tmp_path: Path) -> None:
    auth = base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode()
    logins = docker_config(tmp_path, {"auths": {HOST: {"auth": auth, "identitytoken": "the-token"}}})
    login = logins.login(upstream("docker-config"))
    assert login == Login(IDENTITY_TOKEN, "the-token")


def test_an_identity_token_of_a_helper(tmp_path: Path) -> None:
    helper(tmp_path, "vault", """echo '{"Username": "<token>", "Secret": "the-token"}'""")
    login = docker_config(tmp_path, {"credsStore": "vault"}).login(upstream("helper:vault"))
    assert login is not None
    assert login.is_identity_token


def test_docker_hub_has_the_name_that_docker_gives_it(tmp_path: Path) -> None:
    logins = docker_config(tmp_path, {"auths": {"https://index.docker.io/v1/": {"username": "a", "password": "b"}}})
    assert logins.login(upstream("docker-config", "docker.io")) == Login("a", "b")


@pytest.mark.parametrize("config", [{"credHelpers": {HOST: "vault"}}, {"credsStore": "vault", "auths": {HOST: {}}}])
def test_dockers_configuration_may_name_a_helper(tmp_path: Path, config: object) -> None:
    helper(tmp_path, "vault", """echo '{"Username": "robot", "Secret": "from the vault"}'""")
    assert docker_config(tmp_path, config).login(upstream("docker-config")) == Login("robot", "from the vault")
    assert (tmp_path / "asked").read_text() == HOST


def test_a_helper_is_asked_again_when_what_it_gave_is_refused_and_after_some_minutes(tmp_path: Path) -> None:
    helper(
        tmp_path,
        "ecr",
        f"""echo "{{\\"Username\\": \\"AWS\\", \\"Secret\\": \\"$(/usr/bin/wc -c < {tmp_path}/asked)\\"}}" """,
    )
    now = [0.0]
    logins = OperatorLogins({"PATH": str(tmp_path)}, lambda: now[0])
    first = logins.login(upstream("helper:ecr"))
    assert first is not None
    assert logins.login(upstream("helper:ecr")) == first
    assert logins.login(upstream("helper:ecr"), first) is None  # it was asked a moment ago
    now[0] += ASKED_AGAIN_S
    second = logins.login(upstream("helper:ecr"), first)
    assert second not in (None, first)
    now[0] += KEPT_S
    assert logins.login(upstream("helper:ecr")) not in (first, second)


def test_a_helper_that_fails_is_not_asked_for_each_blob(tmp_path: Path) -> None:
    helper(tmp_path, "vault", "exit 1")
    now = [0.0]
    logins = OperatorLogins({"PATH": str(tmp_path)}, lambda: now[0])
    for _ in range(3):
        with pytest.raises(LocalError, match="docker-credential-vault ended with status 1: log in with it"):
            logins.login(upstream("helper:vault"))
    assert (tmp_path / "asked").read_text() == HOST
    helper(tmp_path, "vault", """echo '{"Username": "robot", "Secret": "back"}'""")
    now[0] += ASKED_AGAIN_S
    assert logins.login(upstream("helper:vault")) == Login("robot", "back")


@pytest.mark.parametrize("credentials", ["file:/nowhere/login", "helper:nowhere", "docker-config"])
def test_what_is_wrong_is_one_line_that_names_the_registry(tmp_path: Path, credentials: str) -> None:
    with pytest.raises(LocalError, match=HOST) as caught:
        OperatorLogins({"PATH": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)}).login(upstream(credentials))
    assert "\n" not in str(caught.value)


def test_no_error_repeats_what_a_helper_says(tmp_path: Path) -> None:
    helper(tmp_path, "chatty", "echo the-secret; echo the-secret >&2; exit 3")
    with pytest.raises(LocalError) as caught:
        OperatorLogins({"PATH": str(tmp_path)}).login(upstream("helper:chatty"))
    assert "the-secret" not in str(caught.value)


def test_an_upstream_without_credentials_has_none() -> None:
    assert OperatorLogins().login(upstream("")) is None


def test_a_login_is_shown_without_its_password() -> None:
    assert "secret" not in repr(Login("robot", "secret"))


def test_what_is_wrong_with_logins_is_told_by_upstream(tmp_path: Path) -> None:
    (tmp_path / "login").write_text("robot:password")
    (tmp_path / "login").chmod(0o600)
    good, bad = upstream(f"file:{tmp_path}/login"), upstream("file:/nowhere", "bad.example.com")
    problems = OperatorLogins().problems([good, bad, upstream("", "public.example.com")])
    assert list(problems) == ["bad.example.com"]
    assert "password" not in str(problems)
