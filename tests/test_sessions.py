"""sessions.py: how long a sign-in lasts, whatever the clock has done."""

import logging

import pytest
from tornado.web import create_signed_value

from tornado_logsrv import sessions
from tornado_logsrv.errors import StartError

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


# Those that were ended


@pytest.fixture
def ended(tmp_path):
    """``ended(at)``: what a process that starts at that time knows."""
    return lambda at=NOW: sessions.Ended(tmp_path, lambda: at)


def test_no_two_sign_ins_are_the_same():
    assert made(NOW) != made(NOW)


def test_what_was_ended_stays_so_in_the_next_process_and_nothing_else_is(ended, tmp_path):
    one, other = made(NOW - 60), made(NOW - 60)
    first = ended()
    first.add(one)
    assert not (tmp_path / "ended-sessions").with_suffix(".part").exists()
    for each in (first, ended(), ended(NOW + 60)):
        assert one in each
        assert other not in each


def test_what_has_ended_by_itself_is_forgotten(ended):
    first = ended()
    first.add(made(NOW - sessions.SECONDS + 10))
    first.add(made(NOW))
    assert [len(ended(NOW + after)) for after in (0, 11, sessions.SECONDS + 1)] == [2, 1, 0]


def test_they_take_no_more_than_so_much_and_none_of_them_comes_back(ended, monkeypatch, tmp_path):
    monkeypatch.setattr(sessions, "MOST_ENDED", 20)
    first, values = ended(), [made(NOW - 1000 + n) for n in range(100)]
    for value in values:
        first.add(value)
    for each in (first, ended()):
        assert len(each) <= 20
        assert all(value in each for value in values)
        assert made(NOW) not in each
        # The price: what is as old as one that is not remembered.
        assert made(NOW - 1000) in each
    assert len((tmp_path / "ended-sessions").read_text().splitlines()) <= 21


def test_many_that_end_by_themselves_leave_others_as_they_are(ended, monkeypatch, tmp_path):
    monkeypatch.setattr(sessions, "MOST_ENDED", 20)
    old, now = made(NOW), [NOW]
    each = sessions.Ended(tmp_path, lambda: now[0])
    for _ in range(10):
        for _ in range(15):
            each.add(made(now[0]))
        now[0] += sessions.SECONDS + 1
        assert made(now[0]) not in each
    assert old not in each
    assert len((tmp_path / "ended-sessions").read_text().splitlines()) <= 41


def test_the_file_has_nothing_that_signs_in_and_is_for_its_owner_alone(ended, tmp_path):
    value = made(NOW)
    ended().add(value)
    path = tmp_path / "ended-sessions"
    assert path.stat().st_mode & 0o077 == 0
    text = path.read_text()
    assert value not in text
    assert DIGEST not in text


@pytest.mark.parametrize("rest", ["17", "1767323045 abc", "x", "\xff", "1767323045 " + "0" * 64 + "0"])
def test_a_line_that_was_cut_off_is_passed_over(ended, tmp_path, rest):
    value = made(NOW)
    ended().add(value)
    with (tmp_path / "ended-sessions").open("a", encoding="latin-1") as file:
        file.write(rest)
    assert value in ended()
    assert len(ended()) == 1


def test_a_sign_out_that_cannot_be_written_holds_until_the_next_start_and_is_told(ended, tmp_path, caplog):
    first, value = ended(), made(NOW)
    (tmp_path / "ended-sessions").mkdir()
    first.add(value)
    assert value in first
    assert "a sign-out holds only until the next start" in caplog.text
    (tmp_path / "ended-sessions").rmdir()
    first.add(made(NOW))
    assert value in ended()


def test_a_file_that_cannot_be_read_is_a_start_error(ended, tmp_path):
    (tmp_path / "ended-sessions").mkdir()
    with pytest.raises(StartError, match=r"--data_dir: .*ended-sessions cannot be used"):
        ended()
