"""How credentials are told apart, and when a token ends."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.permission.credentials import CredentialKeys, expires_unix_s
from peer.registry.base import Caller


def jwt(claims: object) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "signature"])


def test_a_key_is_of_one_credential_and_one_process() -> None:
    keys, one, other = CredentialKeys(), Caller("Basic one"), Caller("Basic other")
    assert keys.key_of(one) == keys.key_of(Caller("Basic one"))
    assert len({keys.key_of(one), keys.key_of(other), keys.key_of(Caller()), CredentialKeys().key_of(one)}) == 4


def test_a_credential_in_another_header_counts_and_what_clients_accept_does_not() -> None:
    keys = CredentialKeys()
    plain = Caller("Basic one", lines=(("User-Agent", "docker"), ("Accept", "a")))
    assert keys.key_of(plain) == keys.key_of(Caller("Basic one", lines=(("accept", "b"), ("User-Agent", "docker"))))
    assert keys.key_of(plain) != keys.key_of(Caller("Basic one", lines=(*plain.lines, ("Private-Token", "t"))))


def test_no_two_credentials_run_into_each_other() -> None:
    keys = CredentialKeys()
    assert keys.key_of(Caller(lines=(("x-a", "bc"),))) != keys.key_of(Caller(lines=(("x-ab", "c"),)))


def test_a_caller_is_shown_without_its_credential() -> None:
    assert "secret" not in repr(Caller("Basic secret", lines=(("Private-Token", "secret"),)))


def test_a_token_says_when_it_ends() -> None:
    assert expires_unix_s(f"Bearer {jwt({'exp': 1700000000})}") == 1700000000
    assert expires_unix_s(f"bearer  {jwt({'exp': 12.5})}") == 12.5


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Basic YTpi", "Bearer opaque", "Bearer a.b.c", f"Bearer {jwt({'exp': True})}", f"Bearer {jwt([])}",
     f"Bearer {jwt({'exp': 1e400})}", f"Bearer {jwt({'exp': float('nan')})}", f"Bearer {jwt({'exp': '5'})}"],
)  # fmt: skip
def test_of_any_other_nothing_is_known(authorization: str | None) -> None:
    assert expires_unix_s(authorization) is None


@given(st.text())
def test_no_text_is_an_accident(text: str) -> None:
    expires_unix_s(f"Bearer {text}.{text}.{text}")
    CredentialKeys().key_of(Caller(text, lines=((text, text),)))
