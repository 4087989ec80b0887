"""sessions.py: how long a sign-in lasts, whatever the clock has done."""

import logging

import pytest
from tornado.web import create_signed_value

from tornado_logsrv import sessions

KEY = "k" * 32
DIGEST = "ab" * 32
#: Seconds since 1970.
NOW = 1_767_323_045.5
DAY = 86_400


def made(at: float) -> str:
    return sessions.new_value(KEY, DIGEST, lambda: at)


def found(value: str, at: float = NOW) -> str | None:
    return sessions.digest_in(KEY, value, lambda: at)


@pytest.mark.parametrize("age", [0, 1, sessions.SECONDS - 1, -1, -sessions.SKEW_SECONDS])
def test_a_sign_in_is_good_for_its_time_and_where_clocks_differ_a_little(age):
    assert found(made(NOW - age)) == DIGEST


@pytest.mark.parametrize("age", [sessions.SECONDS + 1, 400 * DAY, -sessions.SKEW_SECONDS - 1, -DAY, -400 * DAY])
def test_it_has_ended_after_that_and_has_not_begun_before(age):
    assert found(made(NOW - age)) is None


def test_one_that_was_made_while_the_clock_was_ahead_is_none_when_it_is_right_again():
    value = made(NOW + 400 * DAY)
    assert found(value, NOW + 400 * DAY) == DIGEST
    assert found(value) is None
    # Until its time comes, and then no longer than any other.
    assert found(value, NOW + 400 * DAY - sessions.SKEW_SECONDS) == DIGEST
    assert found(value, NOW + 400 * DAY + sessions.SECONDS + 1) is None


def test_one_that_was_made_while_the_clock_was_behind_is_old_when_it_is_right_again():
    value = made(NOW - DAY)
    assert found(value, NOW - DAY) == DIGEST
    assert found(value) is None


def test_a_time_that_was_changed_is_not_signed():
    value, later = made(NOW - sessions.SECONDS - 60), made(NOW)
    fields, others = value.split("|"), later.split("|")
    assert fields[2] != others[2]
    assert found("|".join([*fields[:2], others[2], *fields[3:]])) is None


@pytest.mark.parametrize(
    "value", ["", "2|", "2|1:0|", "2|1:0|10:x", "x", "\xe9", "2|1:0|3:abc|6:logsrv|4:YWI=|" + "0" * 64]
)
def test_what_is_no_cookie_of_ours_is_none(value):
    assert found(value) is None


def test_a_cookie_of_the_old_format_is_none_and_is_not_logged(caplog):
    value = create_signed_value(KEY, sessions.COOKIE, DIGEST, version=1, clock=lambda: NOW).decode()
    with caplog.at_level(logging.DEBUG):
        assert found(value) is None
        assert found("hunter2|1767323045|0") is None
    assert caplog.text == ""
