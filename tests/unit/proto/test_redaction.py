"""No secret is left in a text, however it is written there; and what is none stays to be read."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.redaction import redacted

SECRET = "hunter2%Q"


@pytest.mark.parametrize(
    "text",
    [
        '      password: "hunter2%Q"',
        "      password: hunter2%Q",
        "  password: hunter2%Q, and a comma # and a comment",
        "{username: ci, password: hunter2%Q}",
        "password: |\n  hunter2%Q\n",
        "a:\n  password: >-\n    hunter2%Q\n  b: 1\n",
        "  password:\n    hunter2%Q\n",
        "client_secrets: ['a', 'hunter2%Q']",
        '{"tokens": [\n  "a",\n  "hunter2%Q"\n ],\n "b": 1}',
        '{"tokens": [\n  "]",\n  {"a": "hunter2%Q"}\n ]}',
        'tokens = [\n  "a",\n  "hunter2%Q",',
        "secrets: [a,\n  hunter2%Q]",
        '{"auth": "hunter2%Q"}',
        '{"auths": {"r.example": {"auth": "hunter2%Q"}}}',
        '{"password": "a\\"hunter2%Q"}',
        "identity_token = 'hunter2%Q'",
        '[host."https://r.example".header]\n  Authorization = "Basic hunter2%Q"',
        '  Authorization = ["Basic hunter2%Q"]',
        '  X-Api-Key = "hunter2%Q"',
        "Authorization: Bearer hunter2%Q",
        "sent Basic hunter2%Q=",
        "Cookie: a=1; session=hunter2%Q",
        "AWS_SECRET_ACCESS_KEY=hunter2%Q",
        "LAYERCAST_JOIN=hunter2%Q",
        "Environment=HTTPS_PROXY=http://me:hunter2%Q@proxy.example",
        "HTTPS_PROXY=http://me:a@hunter2%Q@proxy.example/",
        "HTTPS_PROXY=me:hunter2%Q@proxy.example:3128",
        "GET /v2/a/blobs/sha256:00?X-Amz-Signature=hunter2%Q HTTP/1.1",
        "url=https://cdn.example/layer?sig=hunter2%Q&expires=1",
        "asked registry.example:443/v2/a/blobs/sha256:00?X-Amz-Signature=hunter2%Q",
        "join = lc1.AAAA.hunter2.BBBB",
        "-----BEGIN EC PRIVATE KEY-----\nhunter2%Q\n-----END EC PRIVATE KEY-----\n",
    ],
)
def test_a_secret_is_masked_and_the_lines_stay_as_many(text: str) -> None:
    after = redacted(text)
    assert "hunter2" not in after
    assert after.count("\n") == text.count("\n")


@pytest.mark.parametrize(
    "text",
    [
        'token_file = "/etc/layercast/operator.token"',
        "join_file = '/etc/layercast/join.token'",
        "authorities: 2",
        "image=docker.io/library/alpine:3.20@sha256:0123",
        '  location = "quay.io:443/org"',
        "supernode = 'https://10.0.0.5:65000'",
        'layercast_permissions_asked_total{answer="allowed"} 3.0',
        "2026-01-01T00:00:00 INFO peer ready address=127.0.0.1:65001 version=0.2.0",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_what_follows_a_list_of_secrets_stays_and_json_is_json() -> None:
    text = '{\n "tokens": [\n  "one",\n  "two, [three]"\n ],\n "zones": [\n  "eu"\n ]\n}'
    assert json.loads(redacted(text)) == {"tokens": ["***", "***"], "zones": ["eu"]}


@pytest.mark.parametrize("form", [SECRET, "hunter2%25Q", base64.b64encode(SECRET.encode()).decode()])
def test_a_secret_that_is_known_is_masked_wherever_it_stands(form: str) -> None:
    assert redacted(f"somewhere {form} else", [SECRET]) == "somewhere *** else"


@pytest.mark.parametrize("word", ["a", "a.", "A+", "a:", "=a", "?a="])
def test_a_long_word_takes_no_longer_than_as_much_text(word: str) -> None:
    # What takes the square of its length does not end today.
    text = word * (200_000 // len(word))
    assert redacted(f"{text}\npassword: hunter2").endswith("password: ***")


@pytest.mark.parametrize("word", ["token:[", 'token:["', "token:[a"])
def test_many_lists_that_are_never_closed_take_no_longer_and_hide_what_follows(word: str) -> None:
    text = word * (200_000 // len(word))
    assert "hunter2" not in redacted(f"{text}\npassword: hunter2")


@given(st.text(alphabet="pasword:='\"\\ \n[]{}|>-@/?&atoken", max_size=80))
def test_any_text_is_masked_in_time_and_keeps_its_lines(text: str) -> None:
    assert redacted(text).count("\n") == text.count("\n")
