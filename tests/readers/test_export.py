"""GET /logs as a stream: all that is selected, in constant memory, and never a part that looks like the whole."""

import asyncio
import contextlib
import csv
import dataclasses
import http.client
import io
import json
import logging
import time
import urllib.request

import pytest

from tornado_logsrv import auth, records, sessions
from tornado_logsrv.errors import StoreUnavailable
from tornado_logsrv.readers import export

from ..process import PATIENCE, eventually, running

START = 1_767_323_045_678
NDJSON = {"Accept": "application/x-ndjson"}
SECRETS = {name: auth.new_secret() for name in ("reading", "other")}


async def stored(app, values):
    ids = records.Ids(lambda: 1_700_000_000)
    await app.store.write([records.encode_job(v, [], ids.next(), START + n) for n, v in enumerate(values)])


def lines(response):
    return [json.loads(line) for line in response.body.splitlines()]


@pytest.mark.gen_test
async def test_lines_are_the_elements_of_the_array_and_as_many_as_there_are(fetch, app):
    await stored(app, [{"n": n} for n in range(2500)])
    response = await fetch("/logs?order=asc", headers=NDJSON)
    assert response.headers["Content-Type"] == "application/x-ndjson"
    assert [line["data"]["n"] for line in lines(response)] == list(range(2500))
    assert lines(response)[:1000] == json.loads((await fetch("/logs?order=asc&limit=1000")).body)


@pytest.mark.gen_test
async def test_what_selects_a_page_selects_an_export(fetch, app):
    await stored(app, [{"n": n, "level": "error" if n % 2 else "info", "k": {"a.b": n}} for n in range(2400)])
    response = await fetch("/logs?q=level:error&limit=1100&fields=n", headers=NDJSON)
    assert [list(line) for line in lines(response)] == [["_id", "data"]] * 1100
    assert [line["data"] for line in lines(response)] == [{"n": n} for n in range(2399, 199, -2)]
    page = await fetch("/logs?q=level:error&limit=3")
    behind = page.headers["Link"].partition(">")[0].removeprefix("<").replace("limit=3", "limit=4")
    assert [line["data"]["n"] for line in lines(await fetch(behind, headers=NDJSON))] == [2393, 2391, 2389, 2387]


@pytest.mark.gen_test
async def test_csv_has_a_line_of_names_and_the_rest_of_a_record_as_json(fetch, app):
    await stored(app, [{"level": "warn", "a": [1, 2.5]}, 'a "quoted", one', "=1+1", {"level": 3}])
    response = await fetch("/logs?order=asc", headers={"Accept": "text/csv"})
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    head, *rows = csv.reader(io.StringIO(response.body.decode(), newline=""))
    assert head == ["_id", "timestamp", "level", "source", "message", "data"]
    assert [row[2:] for row in rows] == [
        ["warn", "", "Job processed", '{"level":"warn","a":[1,2.5]}'],
        ["", "", "Job processed", 'a "quoted", one'],
        ["", "", "Job processed", "=1+1"],
        ["3", "", "Job processed", '{"level":3}'],
    ]
    assert rows[0][1] == "2026-01-02T03:04:05.678Z"
    assert all(len(row[0]) == 24 for row in rows)


@pytest.mark.gen_test
async def test_csv_has_the_columns_that_are_asked_for(fetch, app):
    await stored(app, [{"user": {"id": 7}, "ok": True, "tags": ["a", "b"], "none": None}])
    response = await fetch("/logs?format=csv&fields=user.id,ok,tags,none,_id,away")
    head, row = csv.reader(io.StringIO(response.body.decode(), newline=""))
    assert head == ["_id", "user.id", "ok", "tags", "none", "away"]
    assert row[1:] == ["7", "true", '["a","b"]', "", ""]


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", None),
        ("*/*", None),
        ("application/json", None),
        ("text/csv", export.CSV),
        ("text/html, text/csv;q=0.9", export.CSV),
        ("application/json, text/csv", None),
        ("APPLICATION/X-NDJSON", export.NDJSON),
        ("application/jsonl", export.NDJSON),
    ],
)
def test_the_first_media_type_that_is_known_decides(accept, form):
    assert export.form({}, accept) is form


@pytest.mark.parametrize("form", ["ndjson", "csv"])
@pytest.mark.gen_test
async def test_nothing_found_is_an_empty_export_with_a_file_name(fetch, form):
    response = await fetch(f"/logs?format={form}")
    assert response.code == 200
    assert response.body == {"ndjson": b"", "csv": b"_id,timestamp,level,source,message,data\r\n"}[form]
    assert response.headers["Content-Disposition"].endswith(f'.{form}"')
    head = await fetch(f"/logs?format={form}", method="HEAD")
    assert (head.code, head.body, head.headers["Content-Type"]) == (200, b"", response.headers["Content-Type"])


@pytest.mark.parametrize("query", ["format=xml", "format=csv&limit=0", "format=csv&q=(", "format=csv&fields=,"])
@pytest.mark.gen_test
async def test_a_wrong_parameter_is_a_problem_before_anything_is_streamed(fetch, query):
    response = await fetch(f"/logs?{query}")
    assert (response.code, response.headers["Content-Type"]) == (400, "application/problem+json")
    assert "Content-Disposition" not in response.headers


@pytest.mark.gen_test
async def test_a_store_that_is_away_at_the_start_is_a_503(fetch, app, monkeypatch):
    async def fail(*given):
        raise StoreUnavailable("away", 5)

    monkeypatch.setattr(app.store.reader, "page", fail)
    response = await fetch("/logs?format=csv")
    assert (response.code, response.headers["Content-Type"]) == (503, "application/problem+json")


@pytest.mark.parametrize("error", [StoreUnavailable("it went away", 5), RuntimeError("unforeseen")])
@pytest.mark.gen_test
async def test_a_failure_in_the_middle_cuts_the_answer_short(http_server, http_port, app, monkeypatch, caplog, error):
    await stored(app, list(range(1500)))
    page, calls = app.store.reader.page, []

    async def failing(*given):
        calls.append(given)
        if len(calls) > 1:
            raise error
        return await page(*given)

    monkeypatch.setattr(app.store.reader, "page", failing)
    reader, writer = await asyncio.open_connection("127.0.0.1", http_port)
    writer.write(b"GET /logs?format=ndjson HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert not answer.endswith(b"0\r\n\r\n")
    assert [record.levelno for record in caplog.records if record.name == "logsrv.http"] == [logging.ERROR]
    assert str(error) in caplog.text


class TestTokens:
    """An export goes on no longer than whoever asked for it may."""

    def entry(self, name, scopes='"read"'):
        return f'[[token]]\nname = "{name}"\nsha256 = "{auth.digest_of(SECRETS[name])}"\nscopes = [{scopes}]\n'

    @pytest.fixture
    def tokens_file(self, tmp_path):
        path = tmp_path / "tokens.toml"
        path.write_text(self.entry("reading") + self.entry("other"))
        return path

    @pytest.fixture
    def options(self, options, tokens_file):
        return dataclasses.replace(options, tokens_file=str(tokens_file))

    @pytest.fixture
    def after_a_page(self, app, monkeypatch):
        """Has something happen when the first page has been read."""

        def after_a_page(happens):
            page, calls = app.store.reader.page, []

            async def counted(*given):
                calls.append(given)
                if len(calls) == 2:
                    await happens()
                return await page(*given)

            monkeypatch.setattr(app.store.reader, "page", counted)
            return calls

        return after_a_page

    async def exported(self, port, *headers):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = "".join(f"{header}\r\n" for header in ("Host: localhost", *headers))
        writer.write(f"GET /logs?format=ndjson HTTP/1.1\r\n{head}\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer

    @pytest.mark.parametrize("now", ["", '"write"'], ids=["gone", "other scopes"])
    @pytest.mark.gen_test
    async def test_it_is_cut_short_within_a_page_of_the_removal_of_its_token(
        self, http_server, http_port, app, tokens_file, after_a_page, caplog, now
    ):
        caplog.set_level(logging.INFO, "logsrv.audit")
        await stored(app, list(range(3500)))

        async def removed():
            tokens_file.write_text((self.entry("reading", now) if now else "") + self.entry("other"))
            app.gate.reload()

        calls = after_a_page(removed)
        answer = await self.exported(http_port, f"Authorization: Bearer {SECRETS['reading']}")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert not answer.endswith(b"0\r\n\r\n")
        assert (len(calls), answer.count(b'"timestamp"')) == (2, 1000)
        assert "an export is cut short, GET '/logs' from 127.0.0.1 by reading may not any more" in caplog.messages

    @pytest.mark.parametrize("way", ["signed out", "over"])
    @pytest.mark.gen_test
    async def test_it_is_cut_short_within_a_page_of_the_end_of_its_sign_in(
        self, http_server, http_port, app, fetch, after_a_page, monkeypatch, way
    ):
        await stored(app, list(range(3500)))
        response = await fetch("/sign-in", json.dumps({"token": SECRETS["reading"]}).encode())
        cookie = response.headers["Set-Cookie"].partition(";")[0]
        later = time.time() + sessions.SECONDS + 1

        async def ends():
            if way == "over":
                monkeypatch.setattr(time, "time", lambda: later)
            else:
                await fetch("/sign-out", b"", headers={"Cookie": cookie})

        calls = after_a_page(ends)
        answer = await self.exported(http_port, f"Cookie: {cookie}")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert not answer.endswith(b"0\r\n\r\n")
        assert (len(calls), answer.count(b'"timestamp"')) == (2, 1000)

    @pytest.mark.gen_test
    async def test_it_goes_on_when_another_token_is_removed(self, fetch, app, tokens_file, after_a_page):
        await stored(app, list(range(2500)))

        async def removed():
            tokens_file.write_text(self.entry("reading"))
            app.gate.reload()

        after_a_page(removed)
        headers = NDJSON | {"Authorization": f"Bearer {SECRETS['reading']}"}
        assert len(lines(await fetch("/logs", headers=headers))) == 2500


@pytest.mark.gen_test(timeout=60)
async def test_no_more_is_read_than_the_client_takes_and_that_it_leaves_is_no_failure(
    http_server, http_port, app, monkeypatch, caplog
):
    await stored(app, ["x" * 2000 for _ in range(12_000)])
    page, calls = app.store.reader.page, []

    async def counted(*given):
        calls.append(given)
        return await page(*given)

    monkeypatch.setattr(app.store.reader, "page", counted)
    reader, writer = await asyncio.open_connection("127.0.0.1", http_port, limit=1024)
    writer.write(b"GET /logs?format=ndjson HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readexactly(100)
    before = -1
    while before != len(calls):
        before = len(calls)
        await asyncio.sleep(0.3)
    assert 1 <= before < 8
    writer.transport.abort()
    while app.in_progress:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert len(calls) <= before + 1
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_long_export_is_as_small_as_a_short_one_and_without_mongodb_it_is_no_whole_one(own_servers, tmp_path):
    options = {
        "port": 0, "instance": "one", "data_dir": tmp_path / "data", "redis_url": own_servers.redis_url,
        "mongo_url": f"{own_servers.mongo_url}&serverSelectionTimeoutMS=500",
    }  # fmt: skip
    given = [f"--{option}={value}" for option, value in options.items()]
    with running(*given, log=tmp_path / "log") as server:
        for _ in range(16):
            server.post("/add-jobs", json.dumps(["x" * 4096] * 1000).encode())
        assert server.stop() == 0
    with running(*given, log=tmp_path / "log") as server:
        eventually(lambda: server.get("/queue-size")["queueSize"] == 0, "all is stored")
        before, peak, size = server.memory, 0, 0
        with urllib.request.urlopen(f"{server.url}/logs?format=ndjson", timeout=PATIENCE) as answer:
            while part := answer.read(1 << 20):
                size += len(part)
                peak = max(peak, server.memory)
        assert size > 16_000 * 4096
        assert peak - before < size / 4
        with contextlib.closing(http.client.HTTPConnection(*server.address, timeout=PATIENCE)) as connection:
            connection.request("GET", "/logs?format=ndjson")
            answer = connection.getresponse()
            assert (answer.status, len(answer.read(65_536))) == (200, 65_536)
            own_servers.kill(own_servers.mongo)
            with pytest.raises(http.client.IncompleteRead):
                answer.read()
        eventually(lambda: "[E " in server.log, "it is logged as an error")
