import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_logsrv.receivers import fields

NOW = 1_700_000_000_000


@pytest.mark.parametrize(
    ("nanoseconds", "own_ms", "change"),
    [
        (None, NOW, None),
        (0, 0, None),
        (-1, NOW, fields.BEFORE_1970),
        (1_600_000_000_123_456_789, 1_600_000_000_123, None),
        ((NOW + fields.MAX_AHEAD_MS) * 1_000_000, NOW + fields.MAX_AHEAD_MS, None),
        ((NOW + fields.MAX_AHEAD_MS + 1) * 1_000_000, NOW, fields.TOO_FAR_AHEAD),
        (1 << 70, NOW, fields.TOO_FAR_AHEAD),
    ],
)
def test_own_time(nanoseconds, own_ms, change):
    notes: list = []
    assert fields.own_time(nanoseconds, NOW, notes) == own_ms
    expected = [] if change is None else [{"path": "/timestamp", "change": change, "original": str(nanoseconds)}]
    assert notes == expected


@pytest.mark.parametrize(
    ("text", "nanoseconds", "kept", "changes"),
    [
        ("", None, None, []),
        ("null", None, None, []),
        ("1", 1_000_000_000, None, []),
        ('"1.5"', 1_500_000_000, None, []),
        ("-1.25", -1_250_000_000, None, []),
        ("1.0005", 1_000_500_000, 1_000_500_000, []),
        ("1.0000000001", 1_000_000_000, None, [fields.FINER]),
        ("15e-1", 1_500_000_000, None, []),
        ("1.5E0", 1_500_000_000, None, []),
        ("9999999999999", None, None, [fields.NO_TIME]),
        ("true", None, None, [fields.NO_TIME]),
        ('""', None, None, [fields.NO_TIME]),
    ],
)
def test_seconds(text, nanoseconds, kept, changes):
    data: dict = {}
    notes: list = []
    assert fields.seconds(text, data, notes) == nanoseconds
    assert data.get("time_unix_nano") == kept
    assert [note["change"] for note in notes] == changes


@settings(max_examples=300, deadline=None)
@given(st.from_regex(r"-?[0-9]{0,13}(\.[0-9]{0,5})?", fullmatch=True) | st.text(max_size=4))
def test_plain_seconds_are_what_the_others_are(text):
    found = []
    for plain in (fields._plain_seconds, lambda _: None):
        data, notes = {}, []
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(fields, "_plain_seconds", plain)
            found.append((fields.seconds(text, data, notes), data, notes))
    assert found[0] == found[1]


def test_a_fraction_whose_name_is_taken_is_noted():
    data, notes = {"time_unix_nano": "mine"}, []
    fields.keep_fraction(data, 1_000_000_001, notes)
    assert data == {"time_unix_nano": "mine"}
    assert notes[0]["original"] == "1000000001"


@pytest.mark.parametrize("text", ["2026-01-31T12:00:00.123Z", "1969-12-31T23:59:59.999Z", "2026-01-31T12:00:00.000Z"])
def test_plain_moments_are_what_moment_says(text):
    assert fields.plain_moment(text) == fields.moment(text) is not None


@pytest.mark.parametrize("text", ["2026-01-31 12:00:00.123Z", "2026-13-31T12:00:00.123Z", "2026-01-31T12:00:00.1aaZ"])
def test_other_moments_are_not_plain(text):
    assert fields.plain_moment(text) is None


@pytest.mark.parametrize(
    ("data", "text", "taken"),
    [
        ({"message": "a", "log": "b"}, "a", "message"),
        ({"message": "a", "log": "a"}, "a", ""),
        ({"message": 1, "MESSAGE": "b"}, "b", ""),
        ({"line": "l", "msg": "m"}, "m", ""),
        ({}, "", ""),
    ],
)
def test_take_text(data, text, taken):
    left = {name: value for name, value in data.items() if name != taken}
    assert fields.take_text(data) == (text, taken)
    assert data == left


@pytest.mark.parametrize(
    ("data", "after"),
    [
        ({"level": "INFO"}, {"level": "info", "severity_text": "INFO"}),
        ({"level": "7"}, {"level": "7"}),
        ({"level": 3, "severity": "x"}, {"level": 3, "severity": "x"}),
        ({"severity": "Warn"}, {"severity": "Warn", "level": "warn"}),
        ({"lvl": "E"}, {"lvl": "E", "level": "e"}),
        ({"severity": 5}, {"severity": 5}),
    ],
)
def test_set_level(data, after):
    notes: list = []
    fields.set_level(data, notes, data)
    assert (data, notes) == (after, [])


def test_a_level_whose_place_is_taken_is_noted():
    data, notes = {"level": "INFO", "severity_text": "other"}, []
    fields.set_level(data, notes, data)
    assert data == {"level": "info", "severity_text": "other"}
    assert notes == [{"path": "/data/level", "change": fields.LOWER, "original": '"INFO"'}]
