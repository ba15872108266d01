"""Cookies that an operator's token was shown for."""

from __future__ import annotations

from supernode.console.logins import LIFE_S, LOGINS_MAX, Logins


def test_a_login_holds_until_its_time_is_over() -> None:
    now_s = 0.0
    logins = Logins(lambda: now_s)
    value = logins.begin()
    assert logins.holds(value)
    assert not logins.holds(value + "x")
    now_s = LIFE_S
    assert not logins.holds(value)


def test_who_logs_out_is_logged_out() -> None:
    logins = Logins()
    value = logins.begin()
    logins.end(value)
    assert not logins.holds(value)
    logins.end("never known")


def test_the_oldest_of_too_many_goes() -> None:
    logins = Logins()
    values = [logins.begin() for _ in range(LOGINS_MAX + 1)]
    assert (logins.holds(values[0]), logins.holds(values[1])) == (False, True)
