import datetime
import gzip
import json
import logging
import math
import zlib
from pathlib import Path

import bson
import pygelf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_logsrv import records
from tornado_logsrv.config import Options
from tornado_logsrv.errors import Refused, Unreadable
from tornado_logsrv.receivers import gelf
from tornado_logsrv.receivers.rows import Bad, Row, own_time

from ..process import eventually
from .batches import BEYOND_MONGODB

DATA = Path(__file__).parent.parent / "data"
NOW = 1_800_000_000_000


@pytest.fixture
def app(app):
    app.add_handlers(".*", gelf.ROUTES)
    return app


def with_options(options: Options, **changed: object) -> Options:
    return Options(**{**options.__dict__, **changed})


def row(message: object) -> Row:
    """What is read of the only message."""
    (found,) = gelf.parse(message if isinstance(message, bytes) else json.dumps(message).encode())
    assert isinstance(found, Row)
    return found


def stored(message: object) -> dict:
    """What MongoDB has of the only message."""
    read = row(message)
    time = NOW if read.time is None else own_time(read.time, NOW, read.notes)
    head = {"source": "gelf", "message": read.message}
    return bson.decode(records.encode(head, read.data, read.notes, b"i" * 12, time), bson.CodecOptions(tz_aware=True))


def at(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


# What is read


def test_the_example_of_the_documentation():
    document = stored((DATA / "gelf_curl.json").read_bytes())
    assert list(document) == ["_id", "source", "message", "data", "timestamp"]
    assert (document["source"], document["timestamp"]) == ("gelf", at(1385053862.307))
    assert document["message"] == "A short message that helps you identify what is going on"
    assert document["data"] == {
        "version": "1.1",
        "host": "example.org",
        "full_message": "Backtrace here\n\nmore stuff",
        "level": "alert",
        "level_number": 1,
        "time_unix_nano": 1385053862307200000,
        "user_id": 9001,
        "some_info": "foo",
        "some_env_var": "bar",
    }


def test_fluent_bit_sends_a_message_a_line():
    first, second = gelf.parse((DATA / "gelf_fluent_bit.ndjson").read_bytes())
    assert (first.message, first.time, first.data["level"]) == ("GET /cart 200", 1700000000123000000, "info")
    assert second.data == {
        "version": "1.1",
        "host": "web-1",
        "level": "error",
        "level_number": 3,
        "stream": "stderr",
        "kubernetes_pod_name": "cart-5d8f",
    }


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1700000000", 1700000000_000000000),
        ("1700000000.123456789", 1700000000_123456789),
        ("1700000000.000000001", 1700000000_000000001),
        ('"1700000000.5"', 1700000000_500000000),
        ("1.7e9", 1700000000_000000000),
        ("1700000000123E-3", 1700000000_123000000),
        ("-1.5", -1500000000),
        ("null", None),
        ("0", None),
    ],
)
@pytest.mark.parametrize("odd", ["", ', "_x": NaN'])
def test_a_time_is_exact_to_the_nanosecond(text, nanoseconds, odd):
    read = row(f'{{"short_message": "x", "timestamp": {text}{odd}}}'.encode())
    assert read.time == nanoseconds
    fine = nanoseconds is not None and nanoseconds % 1_000_000 != 0
    assert read.data.get("time_unix_nano") == (nanoseconds if fine else None)


@pytest.mark.parametrize("text", ['"soon"', "[1]", "true", "1e99", "1700000000123", '"NaN"', '""'])
def test_a_time_that_is_none_is_noted(text):
    document = stored(f'{{"short_message": "x", "timestamp": {text}}}'.encode())
    assert document["timestamp"] == at(NOW / 1000)
    (note,) = document["notes"]
    assert note == {
        "path": "/timestamp",
        "change": "not a time, time of acceptance taken",
        "original": text,
    }


def test_a_time_over_a_day_ahead_or_finer_than_nanoseconds_is_noted():
    document = stored(b'{"short_message": "x", "timestamp": %d}' % (NOW // 1000 + 86401))
    assert document["timestamp"] == at(NOW / 1000)
    assert [note["path"] for note in document["notes"]] == ["/timestamp"]
    document = stored(b'{"short_message": "x", "timestamp": 1700000000.0000000015, "_big": 18446744073709551616}')
    assert sorted((note["path"], note["original"]) for note in document["notes"]) == [
        ("/data/big", "18446744073709551616"),
        ("/timestamp", "1700000000.0000000015"),
    ]


@pytest.mark.parametrize(
    ("level", "data"),
    [
        *((number, {"level_number": number, "level": word}) for number, word in enumerate(gelf.LEVELS)),
        ("4", {"level_number": "4", "level": "warning"}),
        (3.0, {"level_number": 3.0, "level": "error"}),
        (8, {"level_number": 8}),
        (-1, {"level_number": -1}),
        ("error", {"level": "error"}),
        ("ERROR", {"level": "error", "severity_text": "ERROR"}),
        (None, {"level": None}),
        (True, {"level": True}),
        ([3], {"level": [3]}),
    ],
)
def test_levels(level, data):
    assert row({"short_message": "x", "level": level}).data == data


@pytest.mark.parametrize(
    ("sent", "data"),
    [
        ({"_a": 1, "_b.c": 2, "_$d": 3, "_": 4, "__e": 5}, {"a": 1, "b.c": 2, "$d": 3, "_": 4, "_e": 5}),
        ({"_a": 1, "a": 2}, {"_a": 1, "a": 2}),
        ({"_x": 1, "x": 2, "__x": 3}, {"_x": 1, "x": 2, "__x": 3}),
        ({"_host": 1, "_level": 2, "_time_unix_nano": 3}, {"_host": 1, "_level": 2, "_time_unix_nano": 3}),
        ({"level_number": 1, "level": 3}, {"level_number": 1, "level": "error"}),
        ({"_id": 7, "facility": "f", "file": "a.c", "line": 3}, {"id": 7, "facility": "f", "file": "a.c", "line": 3}),
    ],
)
def test_names_lose_their_underscore_unless_that_name_is_taken(sent, data):
    assert row({"short_message": "x", **sent}).data == data


@pytest.mark.parametrize(
    ("sent", "message", "data"),
    [
        ({"short_message": "s", "message": "m"}, "s", {"message": "m"}),
        ({"message": "m"}, "m", {}),
        ({"full_message": "f"}, "f", {"full_message": "f"}),
        ({"short_message": 5, "full_message": "f"}, "f", {"short_message": 5, "full_message": "f"}),
        ({}, "", {}),
    ],
)
def test_the_message_is_the_first_text_there_is(sent, message, data):
    read = row(sent)
    assert (read.message, read.data) == (message, data)


def test_notes_have_the_paths_of_the_record():
    body = rb'{"short_message": "\ud800", "_a/b": {"c": NaN}, "_k": 1, "_k": 2, "_n\u0000": 3}'
    document = stored(body)
    assert document["message"] == "\\ud800"
    assert (document["data"]["k#1"], document["data"]["k"], document["data"]["n\\u0000"]) == (1, 2, 3)
    assert {note["path"] for note in document["notes"]} == {"/message", "/data/a~1b/c", "/data/k", "/data/n\\u0000"}


@pytest.mark.parametrize("body", [b"", b"\n \n", b"x", b"[]", b"5", b'"text"', b'{"a":', b"\xff", b"[" * 10_000])
def test_what_is_no_message_is_refused(body):
    with pytest.raises(Unreadable):
        list(gelf.parse(body))


def test_a_line_that_is_no_message_costs_no_other():
    body = b'{"short_message":"a","timestamp":1.5}\r\nno\n\n[1]\n{"short_message":"b","_n":NaN,"timestamp":2.5}'
    found = list(gelf.parse(body))
    assert [(each.message, each.time) if isinstance(each, Row) else each.raw for each in found] == [
        ("a", 1500000000),
        b"no",
        b"[1]",
        ("b", 2500000000),
    ]


FIELDS = st.dictionaries(
    st.text(max_size=8) | st.sampled_from(["_a", "a", "__a", "_host", "level", "timestamp", "message", "_id", "_"]),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.integers()),
    max_size=8,
)
TIMES = st.decimals(min_value=1, max_value=1_800_000_000, places=9, allow_nan=False)


@settings(max_examples=300, deadline=None)
@given(FIELDS, TIMES, st.integers(0, 7), st.text(min_size=1), st.booleans())
def test_nothing_is_lost(fields, time, level, text, in_bulk):
    given_fields = {name: value for name, value in fields.items() if name not in ("timestamp", "level")}
    rest = json.dumps({**given_fields, "short_message": text, "level": level})
    body = f'{rest[:-1]}, "timestamp": {time}}}'.encode()
    read = list(gelf.parse(body + b"\n" + body if in_bulk else body))
    assert len(read) == 1 + in_bulk
    for each in read:
        data = dict(each.data)
        assert (each.message, each.time) == (text, int(time * 10**9))
        assert data.pop("time_unix_nano", each.time) == each.time
        assert (data.pop("level"), data.pop("level_number", level)) == (gelf.LEVELS[level], level)
        assert not [note for note in each.notes if note["path"] == "/timestamp"]
        back = {name if name in given_fields else f"_{name}": value for name, value in data.items()}
        given_fields.pop("short_message", None)
        if not each.notes:
            assert back == {name: value for name, value in given_fields.items() if name != "level_number"}


PIECES = st.sampled_from(
    [
        b'{"short_message":"a"}',
        b"{",
        b"}",
        b"\n",
        b'"',
        b"\\",
        b"\xff",
        b"timestamp",
        b":1e9",
        b"NaN",
        b"[" * 300,
        b"\0",
    ]
)
MESSAGE = b'{"version":"1.1","short_message":"a","timestamp":1.5,"level":3,"_a":[1,{"b":null}]}\n{"message":"b"}'


@settings(max_examples=1500, deadline=None)
@given(
    st.binary(max_size=100)
    | st.lists(PIECES | st.binary(max_size=4), max_size=20).map(b"".join)
    | st.tuples(st.integers(0, len(MESSAGE)), st.integers(0, 9), st.binary(max_size=6)).map(
        lambda cut: MESSAGE[: cut[0]] + cut[2] + MESSAGE[cut[0] + cut[1] :]
    )
)
def test_no_bytes_break_the_parser(body):
    try:
        found = list(gelf.parse(body))
    except Refused:
        return
    for each in found:
        if isinstance(each, Bad):
            assert each.raw in body
            continue
        time = NOW if each.time is None else own_time(each.time, NOW, each.notes)
        records.encode({"source": "gelf", "message": each.message}, each.data, each.notes, b"i" * 12, time)


# Over HTTP


@pytest.mark.gen_test
async def test_a_message_is_answered_as_graylog_does_and_stored(fetch, app, collection):
    response = await fetch("/gelf", (DATA / "gelf_curl.json").read_bytes())
    assert (response.code, response.body, "Content-Type" in response.headers) == (202, b"", False)
    await app.writer.flush()
    document = collection.find_one()
    assert (document["source"], document["data"]["user_id"]) == ("gelf", 9001)
    assert app.ledger.row("gelf") == {"received": 1, "stored": 1, "quarantined": 0, "refused": 0, "queued": 0}


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, lambda body: zlib.compress(body, wbits=12), bytes])
@pytest.mark.parametrize("coding", ["", "gzip,deflate", "deflate, gzip"])
@pytest.mark.gen_test
async def test_a_packed_body_is_known_by_its_first_bytes(fetch, app, pack, coding):
    headers = {"Content-Encoding": coding} if coding else {}
    response = await fetch("/gelf", pack(b'{"short_message":"%b"}' % (b"x" * 200_000)), headers=headers)
    assert response.code == 202
    assert bson.decode(app.records[0])["message"] == "x" * 200_000


@pytest.mark.parametrize("pack", [gzip.compress, lambda body: gzip.compress(zlib.compress(body))])
@pytest.mark.gen_test
async def test_one_that_says_how_it_is_packed_is_unpacked_too(fetch, app, pack):
    response = await fetch("/gelf", pack(b'{"short_message":"x"}'), headers={"Content-Encoding": "gzip"})
    assert (response.code, len(app.records)) == (202, 1)


@pytest.mark.parametrize("media_type", [*gelf.MEDIA_TYPES, "application/json; charset=utf-8", ""])
@pytest.mark.gen_test
async def test_the_media_type_does_not_matter(fetch, app, media_type):
    assert (await fetch("/gelf", b'{"short_message":"x"}', headers={"Content-Type": media_type})).code == 202


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.gen_test
async def test_health_checks_are_answered(fetch, app, method):
    response = await fetch("/gelf", method=method)
    assert (response.code, response.body) == (200, b"")
    wrong = await fetch("/gelf", method="DELETE")
    assert (wrong.code, wrong.headers["Allow"]) == (405, "GET, HEAD, POST, OPTIONS")


@pytest.mark.gen_test
async def test_a_bad_line_is_in_quarantine_and_its_neighbours_are_stored(fetch, app, collection, database):
    body = b'{"short_message":"a"}\nnot json\n{"short_message":"b"}\n[1]\n'
    for _ in range(2):
        response = await fetch("/gelf?ack=stored", body, headers={"Idempotency-Key": "batch-1"})
        assert response.code == 202
    assert [document["message"] for document in collection.find().sort("_id")] in (["a", "b"], ["b", "a"])
    kept = list(database["logs_quarantine"].find())
    assert {(each["original"], each["source"]) for each in kept} == {(b"not json", "gelf"), (b"[1]", "gelf")}


@pytest.mark.gen_test
async def test_a_message_too_large_for_mongodb_is_kept_in_quarantine(fetch, app, collection, database):
    large = b'{"_n":%b}' % BEYOND_MONGODB
    response = await fetch("/gelf?ack=stored", b'{"short_message":"a"}\n' + large)
    assert (response.code, collection.count_documents({})) == (202, 1)
    kept = database["logs_quarantine"].find_one({"parts": 2})
    assert (kept["code"], large.startswith(kept["original"])) == ("too-large", True)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"not json", {}, 400),
        (b"no\nno\n", {}, 400),
        (b"[1,2]", {}, 400),
        (zlib.compress(b'{"short_message":"x"}')[:-3], {}, 400),
        (b"\x1f\x8b nothing", {}, 400),
        (zlib.compress(b" " * 20_000_000), {}, 413),
        (gzip.compress(zlib.compress(b" " * 20_000_000)), {"Content-Encoding": "gzip"}, 413),
        (b"{}\n" * 250_001, {}, 413),
        (b"{}", {"Content-Encoding": "br"}, 415),
        (b"{}", {"Content-Type": "image/png"}, 415),
    ],
)
@pytest.mark.gen_test
async def test_what_is_not_taken_is_said_and_counted(fetch, app, caplog, body, headers, status):
    response = await fetch("/gelf", body, headers=headers)
    assert (response.code, json.loads(response.body)["status"]) == (status, status)
    assert (len(app.records), app.ledger.row("gelf")["refused"], caplog.records) == (0, 1, [])


class TestFull:
    @pytest.fixture
    def options(self, options):
        return with_options(options, queue_max_bytes=200)

    @pytest.mark.gen_test
    async def test_a_full_queue_is_503_with_retry_after_and_takes_nothing(self, fetch, app):
        codes = [(await fetch("/gelf", b'{"short_message":"a"}')).code for _ in range(3)]
        assert (codes, len(app.records)) == ([202, 202, 503], 2)
        response = await fetch("/gelf", b'{"short_message":"a"}\n{"short_message":"b"}')
        assert (response.code, int(response.headers["Retry-After"]) >= 1, len(app.records)) == (503, True, 2)
        # It could not be taken however long it waits.
        assert (await fetch("/gelf", b'{"short_message":"%b"}' % (b"x" * 300))).code == 413


class TestAway:
    @pytest.fixture
    def options(self, options):
        away = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"
        return with_options(options, redis_url="redis://127.0.0.1:9", mongo_url=away, stored_timeout=0.3)

    @pytest.mark.gen_test
    async def test_redis_away_is_503_and_mongodb_away_504(self, fetch, app):
        assert (await fetch("/gelf?ack=journal", b'{"short_message":"a"}')).code == 503
        assert len(app.records) == 0
        assert (await fetch("/gelf?ack=stored", b'{"short_message":"a"}')).code == 504
        assert (await fetch("/gelf?ack=memory", b'{"short_message":"a"}')).code == 202


# Real clients


@pytest.fixture
def logger():
    made = logging.Logger("shop")
    yield made
    for handler in made.handlers:
        handler.close()


def log_some(logger):
    logger.warning("räksmörgås %d", 7)
    try:
        math.sqrt(-1)
    except ValueError:
        logger.exception("no root", extra={"order": 17, "parts": ["a", "b"]})


# It leaves its connections to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize(("compress", "version"), [(True, "1.1"), (False, "1.0")])
@pytest.mark.gen_test
async def test_pygelf(app, http_server, http_port, io_loop, collection, logger, compress, version):
    handler = pygelf.GelfHttpHandler(
        "127.0.0.1", http_port, compress=compress, version=version, debug=True, include_extra_fields=True, _app="cart"
    )
    logger.addHandler(handler)
    created = []
    logger.addFilter(lambda record: created.append(record.created) or True)
    await io_loop.run_in_executor(None, log_some, logger)
    first, second = await both_stored(app, io_loop, collection)
    assert first["data"] == {
        "version": version,
        "host": handler.domain,
        "level": "warning",
        "level_number": 4,
        "_file": "test_gelf.py",
        "_line": first["data"]["_line"],
        "module": "test_gelf",
        "func": "log_some",
        "logger_name": "shop",
        "stack_info": None,
        "app": "cart",
        **fine_time(created[0]),
    }
    assert (first["message"], first["source"]) == ("räksmörgås 7", "gelf")
    assert first["timestamp"] == at(int(created[0] * 1000) / 1000)
    assert (second["message"], second["data"]["level"]) == ("no root", "error")
    assert (second["data"]["order"], second["data"]["parts"]) == (17, ["a", "b"])
    assert second["data"]["full_message"].endswith("ValueError: math domain error\n")


async def both_stored(app, io_loop, collection):
    # It does not wait for the answer.
    await io_loop.run_in_executor(None, eventually, lambda: app.unsettled == 2, "both have arrived")
    await app.writer.flush()
    return list(collection.find().sort("data.level_number", -1))


def fine_time(created):
    text = f"{created!r}"
    whole, _, fraction = text.partition(".")
    nanoseconds = int(whole) * 10**9 + int(fraction.ljust(9, "0"))
    return {"time_unix_nano": nanoseconds} if nanoseconds % 10**6 else {}
