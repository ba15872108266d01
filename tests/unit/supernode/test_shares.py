"""One party takes what it likes while there is plenty, then its share; and who a party is."""

from __future__ import annotations

import pytest

from supernode.shares import is_over_share, party_of


def test_while_there_is_plenty_one_may_take_what_it_likes() -> None:
    assert not is_over_share(49, by_all=49, most=100, parties=1, least=5)


def test_one_alone_never_has_more_than_half() -> None:
    assert is_over_share(50, by_all=50, most=100, parties=1, least=5)


def test_from_half_on_each_may_have_its_share() -> None:
    assert is_over_share(25, by_all=60, most=100, parties=4, least=5)
    assert not is_over_share(24, by_all=60, most=100, parties=4, least=5)


def test_some_are_left_to_each_however_many_there_are() -> None:
    assert not is_over_share(4, by_all=90, most=100, parties=90, least=5)
    assert is_over_share(5, by_all=90, most=100, parties=90, least=5)


@pytest.mark.parametrize(
    ("host", "party"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("", ""),
    ],
)
def test_who_is_at_an_address(host: str, party: str) -> None:
    assert party_of(host) == party
