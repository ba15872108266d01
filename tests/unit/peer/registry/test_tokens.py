"""Anonymous tokens: asked for as the challenge says, kept until shortly before they expire."""

from __future__ import annotations

import json
import threading

import pytest

from peer.registry.tokens import AnonymousTokens, token_url
from peer.transport.cancellation import Cancellation
from proto.errors import UpstreamError
from proto.oci.upstreams import UpstreamConfig
from proto.oci.www_authenticate import Challenge

HUB = UpstreamConfig("docker.io", "https://registry-1.docker.io")
CHALLENGE = Challenge("bearer", {"realm": "https://auth.example/token", "service": "hub", "scope": "repository:a:pull"})


class TokenService:
    """Stands for the realm: answers, and notes the URLs."""

    def __init__(self, **answer: object) -> None:
        self.answer = answer
        self.urls: list[str] = []
        self.now_s = 1000.0
        self.tokens = AnonymousTokens(self.fetch, lambda: self.now_s)

    def fetch(self, upstream: UpstreamConfig, realm: str, fields: list[tuple[str, str]], cancel: Cancellation) -> bytes:
        self.urls.append(token_url(realm, fields))
        return json.dumps({"token": f"t{len(self.urls)}", **self.answer}).encode()

    def ask(self, challenge: Challenge = CHALLENGE, refused: str | None = None) -> str:
        return self.tokens.answer(HUB, "a", challenge, refused, Cancellation())


def test_the_realm_is_asked_for_the_service_and_scope_of_the_challenge() -> None:
    service = TokenService()
    service.ask()
    assert service.urls == ["https://auth.example/token?service=hub&scope=repository%3Aa%3Apull"]


def test_a_realm_with_a_query_keeps_it_and_a_missing_scope_is_to_pull() -> None:
    service = TokenService()
    service.ask(Challenge("bearer", {"realm": "https://auth.example/token?x=1"}))
    assert service.urls == ["https://auth.example/token?x=1&scope=repository%3Aa%3Apull"]


@pytest.mark.parametrize(
    ("expires_in", "still_good_s", "expired_s"), [(300, 289, 291), (None, 49, 51), (4, 1, 3), ("x", 49, 51)]
)
def test_a_token_is_kept_until_shortly_before_it_expires(
    expires_in: object, still_good_s: float, expired_s: float
) -> None:
    service = TokenService(expires_in=expires_in)
    assert service.ask() == "t1"
    service.now_s += still_good_s
    assert (service.ask(), service.tokens.remembered(HUB, "a")) == ("t1", "t1")
    service.now_s += expired_s - still_good_s
    assert service.tokens.remembered(HUB, "a") is None
    assert service.ask() == "t2"


def test_a_token_that_was_refused_is_not_given_again() -> None:
    service = TokenService()
    assert service.ask() == "t1"
    assert service.ask(refused="t1") == "t2"


def test_another_repository_has_another_token() -> None:
    service = TokenService()
    service.ask()
    assert service.tokens.remembered(HUB, "b") is None


def test_an_access_token_is_a_token() -> None:
    assert TokenService(token="", access_token="abc").ask() == "abc"


@pytest.mark.parametrize("token", [None, 5, "", "a\r\nX: y", "é"])
def test_what_cannot_stand_in_a_header_is_no_token(token: object) -> None:
    with pytest.raises(UpstreamError, match="without a token"):
        TokenService(token=token).ask()


@pytest.mark.parametrize("body", [b"[" * 200_000, b"{", b"7"], ids=["nested", "torn", "number"])
def test_an_answer_that_is_no_object_is_no_token(body: bytes) -> None:
    tokens = AnonymousTokens(lambda upstream, realm, fields, cancel: body)
    with pytest.raises(UpstreamError, match="without a token"):
        tokens.answer(HUB, "a", CHALLENGE, None, Cancellation())


@pytest.mark.parametrize("lifetime", [10**400, float("inf"), float("nan"), True])
def test_a_lifetime_beyond_sense_ends_some_day(lifetime: float) -> None:
    service = TokenService(expires_in=lifetime)
    assert service.ask() == "t1"
    assert service.tokens.remembered(HUB, "a") == "t1"
    service.now_s += 25 * 3600
    assert service.tokens.remembered(HUB, "a") is None


def test_many_threads_wait_for_one_fetch() -> None:
    service = TokenService()
    threads = [threading.Thread(target=service.ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(service.urls) == 1
