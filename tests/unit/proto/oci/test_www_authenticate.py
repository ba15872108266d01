"""WWW-Authenticate as registries write it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proto.oci.www_authenticate import Challenge, bearer_challenge, insufficient_scope, parse_challenges

NAMES = st.sampled_from(["realm", "service", "scope", "error"])
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)
CHALLENGES = st.builds(
    Challenge, st.sampled_from(["bearer", "basic", "digest"]), st.dictionaries(NAMES, VALUES, min_size=1, max_size=4)
)


@given(st.lists(CHALLENGES, max_size=3))
def test_printed_challenges_are_read_back_from_one_line(challenges: list[Challenge]) -> None:
    assert parse_challenges([", ".join(str(challenge) for challenge in challenges)]) == challenges


@given(st.lists(st.text(max_size=60), max_size=3))
def test_any_text_is_read_without_an_error(headers: list[str]) -> None:
    parse_challenges(headers)


def test_commas_inside_quotes_part_nothing() -> None:
    header = 'Bearer realm="https://auth.example/token?a=1,2",service="r",scope="repository:a/b:pull,push"'
    challenge = bearer_challenge([header])
    assert challenge is not None
    assert challenge.get("realm") == "https://auth.example/token?a=1,2"
    assert (challenge.get("service"), challenge.get("scope")) == ("r", "repository:a/b:pull,push")


def test_several_challenges_in_one_line_are_told_apart() -> None:
    found = parse_challenges(['Basic realm="r", Negotiate, NTLM TlRM==, Bearer realm=https, error="invalid_token"'])
    assert [challenge.scheme for challenge in found] == ["basic", "negotiate", "ntlm", "bearer"]
    assert found[3].get("error") == "invalid_token"


def test_a_bearer_without_a_realm_is_of_no_use() -> None:
    assert bearer_challenge(['Bearer service="x"', 'Basic realm="y"']) is None


def test_insufficient_scope_asks_for_the_right_repository() -> None:
    challenge = Challenge("bearer", {"realm": "https://auth.example/token", "service": "quay.io"})
    text = str(insufficient_scope(challenge, "org/name"))
    assert text == (
        'Bearer realm="https://auth.example/token",service="quay.io",'
        'scope="repository:org/name:pull",error="insufficient_scope"'
    )
