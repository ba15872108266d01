"""Join tokens: they are read as they were printed, show their secret to nobody, and prove one request each."""

from __future__ import annotations

import pytest

from proto.wire.join import JoinToken, check_join, fingerprint_of, node_host, parse_join_token, prove_join

TOKEN = JoinToken("abcdefgh", bytes(range(32)), fingerprint_of(b"a public key"))


def test_a_token_is_read_as_it_was_printed() -> None:
    assert parse_join_token(f" {TOKEN.text}\n") == TOKEN


def test_its_secret_is_in_no_repr() -> None:
    assert repr(TOKEN) == f"JoinToken({TOKEN.id})"


@pytest.mark.parametrize(
    "text",
    ["", "lc1", "lc2" + TOKEN.text[3:], TOKEN.text[:-1], TOKEN.text + ".x", TOKEN.text.upper(), "a.b.c.ü"],
)
def test_what_is_no_token_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match="expected a join token") as refused:
        parse_join_token(text)
    assert len(text) < 10 or text not in str(refused.value)


def test_a_proof_is_of_one_request_and_one_token() -> None:
    proof = prove_join(TOKEN.proof_key, b"request")
    assert check_join(TOKEN.proof_key, b"request", proof)
    assert not check_join(TOKEN.proof_key, b"another", proof)
    assert not check_join(JoinToken.generate(TOKEN.fingerprint).proof_key, b"request", proof)


def test_a_node_s_host_name_fits_into_dns() -> None:
    label, _, domain = node_host(bytes(range(32))).partition(".")
    assert len(label) <= 63
    assert label.isalnum()
    assert domain == "node.layercast"
