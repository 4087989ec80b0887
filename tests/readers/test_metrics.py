"""/metrics as Prometheus reads it, checked by its own tools."""

import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from tornado_logsrv import __version__, records
from tornado_logsrv.lane import Lane
from tornado_logsrv.writer import Backoff

README = Path(__file__).parent.parent.parent / "README.md"
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}


async def samples(fetch):
    """Value by name and labels."""
    text = (await fetch("/metrics")).body.decode()
    return {(s.name, *sorted(s.labels.items())): s.value for family in parse(text) for s in family.samples}


async def value(fetch, name, **labels):
    return (await samples(fetch)).get((name, *sorted(labels.items())))


async def every_metric(fetch, app):
    """The text of /metrics of a server that has done all there is to do."""
    await fetch("/add-job", b'{"n":1}')
    await fetch("/add-job?ack=journal", b"2")
    await app.writer.flush()
    await fetch("/add-job", b"{")
    return (await fetch("/metrics")).body.decode()


def lint(text):
    """What promtool has to say."""
    check = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    return check.stdout + check.stderr


@pytest.mark.gen_test
async def test_promtool_finds_nothing_to_say(fetch, app):
    text = await every_metric(fetch, app)
    assert lint(text) == ""


def listed():
    """The metrics that the README lists, with what is in braces spelled out."""
    table = README.read_text(encoding="utf-8").partition("| Metric | |\n")[2].partition("\n\n")[0]
    for name in re.findall(r"`(logsrv_[\w{},]+)`", table):
        before, _, rest = name.partition("{")
        words, _, after = rest.partition("}")
        yield from (f"{before}{word}{after}" for word in words.split(","))


@pytest.mark.gen_test
async def test_every_metric_is_in_the_readme_and_no_other(fetch, app):
    named = re.findall(r"^# TYPE (logsrv_\w+) ", await every_metric(fetch, app), re.MULTILINE)
    assert {name.removesuffix("_info") for name in named} == {name.removesuffix("_info") for name in listed()}


@pytest.mark.gen_test
async def test_openmetrics_is_given_to_who_asks_for_it(fetch, app):
    await every_metric(fetch, app)
    plain = await fetch("/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain; version=")
    response = await fetch("/metrics", headers=OPENMETRICS)
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    names, plain_names = (
        {sample.name for family in read(answer.body.decode()) for sample in family.samples}
        for read, answer in ((parse_openmetrics, response), (parse, plain))
    )
    assert names == plain_names


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ('application/openmetrics-text; version="1.0.0"', True),
        ("application/openmetrics-text; version=abc", True),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2", True),
        ("Application/OpenMetrics-Text ; Q=0.0, text/plain", False),
        ("application/openmetrics-text;q=0", False),
        ('text/plain; version="1.0.0"', False),
        (",;=;,", False),
    ],
)
@pytest.mark.gen_test
async def test_whatever_is_accepted_there_is_a_form_of_it(fetch, accept, wanted):
    response = await fetch("/metrics", headers={"Accept": accept})
    assert response.code == 200
    form = "application/openmetrics-text; version=1.0.0; " if wanted else "text/plain; version=0.0.4; "
    assert response.headers["Content-Type"].startswith(form)


@pytest.mark.gen_test
async def test_names_keep_to_base_units_and_each_metric_has_a_help(fetch, app):
    families = list(parse(await every_metric(fetch, app)))
    assert [family.name for family in families if not family.documentation] == []
    own = [family.name for family in families if family.name.startswith("logsrv_")]
    assert len(own) > 25
    assert [name for name in own if re.search(r"_(ms|milliseconds|kb|mb|kib|mib|percent)(_|$)", name)] == []


@pytest.mark.gen_test
async def test_what_waits_and_what_is_written_is_told(fetch, app):
    await fetch("/add-job", b"1")
    await fetch("/add-job", b"2")
    assert await value(fetch, "logsrv_queue_records") == 2
    assert await value(fetch, "logsrv_queue_bytes") == sum(map(len, app.records))
    assert await value(fetch, "logsrv_queue_max_bytes") == app.options.queue_max_bytes
    app.waiting._looks[0] = (app.waiting._looks[0][0], app.waiting._clock() - 60)
    assert 60 <= await value(fetch, "logsrv_queue_oldest_age_seconds") < 70
    await app.writer.flush()
    assert await value(fetch, "logsrv_queue_oldest_age_seconds") == 0
    assert await value(fetch, "logsrv_batch_records_bucket", le="1.0") == 0
    assert await value(fetch, "logsrv_batch_records_bucket", le="10.0") == 1
    assert await value(fetch, "logsrv_batch_records_sum") == 2
    assert await value(fetch, "logsrv_batch_duration_seconds_count") == 1


class TestMongoAway:
    @pytest.fixture
    def options(self, options):
        return type(options)(**{**options.__dict__, "mongo_url": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=50"})

    @pytest.mark.gen_test
    async def test_the_backoff_is_told(self, fetch, app):
        app.writer._backoff = Backoff(8.0, 8.0, rand=lambda: 1.0)
        await fetch("/add-job", b"1")
        await app.writer.flush()
        assert await value(fetch, "logsrv_batch_failures_total") == 1
        assert await value(fetch, "logsrv_writer_consecutive_failures") == 1
        assert 0 < await value(fetch, "logsrv_writer_backoff_seconds") <= 8
        assert await value(fetch, "logsrv_store_up") == 0
        assert await value(fetch, "logsrv_records_queued", source="jobs") == 1


@pytest.mark.gen_test
async def test_what_is_in_redis_is_told(fetch, app):
    await fetch("/add-job?ack=journal", b"1")
    assert await value(fetch, "logsrv_journal_append_duration_seconds_count") == 1
    assert await value(fetch, "logsrv_stream_entries") == 1


@pytest.mark.gen_test
async def test_what_is_in_quarantine_is_told(fetch, app):
    await app.store.write([records.encode_bad(b"x", "unreadable", "why", "jobs", records.Ids().next(), 0)])
    assert await value(fetch, "logsrv_quarantine_documents") == 1


@pytest.mark.gen_test
async def test_requests_are_counted_whichever_way_they_take(fetch, app, monkeypatch):
    name = "logsrv_http_request_duration_seconds_count"
    jobs = {"method": "POST", "route": "/add-job"}
    await fetch("/add-job", b"1")
    await fetch("/add-job?ack=journal", b"1")
    assert await value(fetch, name, **jobs, status="202") == 2
    monkeypatch.setattr(Lane, "__call__", lambda lane, *request: None)
    await fetch("/add-job", b"1")
    assert await value(fetch, name, **jobs, status="202") == 3
    await fetch("/add-job", b"{")
    assert await value(fetch, name, **jobs, status="400") == 1
    monkeypatch.undo()
    app.queue._max_bytes = 0
    await fetch("/add-job", b"1")
    assert await value(fetch, name, **jobs, status="503") == 1
    await fetch(f"/quarantine/{'0' * 24}")
    assert await value(fetch, name, method="GET", route="/quarantine/*", status="404") == 1
    for path in ("/x/1", "/x/2"):
        await fetch(path)
    assert await value(fetch, name, method="GET", route="other", status="404") == 2
    await fetch("/logs", method="BREW", allow_nonstandard_methods=True)
    assert await value(fetch, name, method="other", route="/logs", status="405") == 1


@pytest.mark.gen_test
async def test_the_build_is_told(fetch):
    found = [key for key in await samples(fetch) if key[0] == "logsrv_build_info"]
    assert dict(found[0][1:])["version"] == __version__
