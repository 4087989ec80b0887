"""Tokens that are bound to a source or a tenant: on every route, they write and read their own records alone."""

import asyncio
import dataclasses
import json
import re
from pathlib import Path

import pytest
from bson import ObjectId
from pymongo.errors import OperationFailure

from tornado_logsrv import auth, readers, records, watch
from tornado_logsrv.auth import Scope
from tornado_logsrv.handler import BaseHandler
from tornado_logsrv.lane import Lane

from .tails import Tail, until
from .test_gate import AGENT, methods, routes, scope_of

#: Each with all scopes: what it may not is so because of what it is bound to.
TOKENS = {
    "all": {},
    "till": {"source": "till"},
    "shop": {"source": "shop"},
    "acme": {"tenant": "acme"},
    "beta": {"tenant": "beta"},
    "both": {"tenant": "acme", "source": "till"},
}
SECRETS = {name: auth.new_secret() for name in TOKENS}
BOUND = [name for name, binding in TOKENS.items() if binding]
#: Whose records a token sees: its tenant's, of its source.
SEES = {
    "all": {"all", "till", "shop"},
    "till": {"till"},
    "shop": {"shop"},
    "acme": {"acme", "both"},
    "beta": {"beta"},
    "both": {"both"},
}
#: About all records: these refuse who is bound.
REFUSING = {"/metrics", "/queue-size"}


def bearer(name):
    return {"Authorization": f"Bearer {SECRETS[name]}"}


def collection_of(name):
    tenant = TOKENS[name].get("tenant")
    return f"logs_{tenant}" if tenant else "logs"


def tokens_file(path):
    lines = []
    for name, binding in TOKENS.items():
        lines += ["[[token]]", f'name = "{name}"', f'sha256 = "{auth.digest_of(SECRETS[name])}"']
        lines += ['scopes = ["write", "read", "admin"]', *(f'{key} = "{value}"' for key, value in binding.items())]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture
def options(options, tmp_path):
    return dataclasses.replace(options, tokens_file=tokens_file(tmp_path / "tokens.toml"))


@pytest.fixture
def post(fetch):
    async def post(name, path, body, status=None, **headers):
        response = await fetch(path, body, headers={**bearer(name), **headers})
        assert response.code == status if status else response.code < 300, response.body
        return response

    return post


@pytest.fixture
def get(fetch):
    """The status of an answer, and what it is."""

    async def get(name, path, method="GET", **more):
        response = await fetch(path, method=method, headers=bearer(name), **more)
        return response.code, json.loads(response.body) if response.body else None

    return get


# Every route


GUARDED = [
    (method, path, handler)
    for path, handler in routes()
    for method in methods(handler)
    if scope_of(handler, method) is not Scope.OPEN
]


@pytest.mark.parametrize("name", ["till", "acme", "both"])
@pytest.mark.gen_test
async def test_a_route_that_does_not_say_that_it_keeps_to_bounds_refuses_who_has_some(fetch, name):
    refusing = set()
    for method, path, handler in GUARDED:
        if handler.keeps_bounds:
            continue
        refusing.add(path)
        body = b"{}" if method in ("POST", "PUT") else None
        response = await fetch(path, body=body, method=method, headers={"User-Agent": AGENT, **bearer(name)})
        assert response.code == 403, (method, path)
        assert method == "HEAD" or b"is bound to a part of the records" in response.body
    assert refusing == REFUSING


def test_a_new_route_refuses_until_it_says_so():
    assert not BaseHandler.keeps_bounds
    # Whatever is open has nothing of any record, and asks for no token.
    assert {path for _, path, handler in GUARDED if not handler.keeps_bounds} == REFUSING


def test_no_reader_takes_more_than_it_is_given():
    """A handler's ``reader`` and ``quarantine`` have what its token may see; those of the store have all."""
    reaching = re.compile(r"application\.store\b(?!\.reader\.deadline\(\))")
    found = {path.name for path in Path(readers.__file__).parent.glob("*.py") if reaching.search(path.read_text())}
    # It keeps to the bounds by itself.
    assert found == {"receipt.py"}


# Writing: each receiver


GELF = b'{"short_message":"x","host":"h"}'
LOKI = b'{"streams":[{"stream":{},"values":[["1700000000000000000","x"]]}]}'
OTLP = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}'
BULK = b'{"create":{"_index":"i"}}\n{"message":"x"}\n'
NDJSON = {"Content-Type": "application/x-ndjson"}
WRITES = {
    "/add-job": (b'{"source":"mine"}', "jobs", {}),
    "/add-jobs": (b'[{"source":"mine"}]', "jobs", {}),
    "/winston": (b"[1]", "jobs", {}),
    "/gelf": (GELF, "gelf", {}),
    "/loki/api/v1/push": (LOKI, "loki", {}),
    "/api/prom/push": (LOKI, "loki", {}),
    "/v1/logs": (OTLP, "otlp", {}),
    "/_bulk": (BULK, "elasticsearch", NDJSON),
    "/_bulk/": (BULK, "elasticsearch", NDJSON),
    "/x/_bulk": (BULK, "elasticsearch", NDJSON),
    "/services/collector": (b'{"event":"x","source":"mine"}', "splunk", {}),
    "/services/collector/event": (b'{"event":"x"}', "splunk", {}),
    "/services/collector/event/1.0": (b'{"event":"x"}', "splunk", {}),
    "/services/collector/raw": (b"x", "splunk", {}),
    "/services/collector/raw/1.0": (b"x", "splunk", {}),
    "/api/v2/logs": (b'{"message":"x"}', "datadog", {}),
    "/v1/input": (b'{"message":"x"}', "datadog", {}),
}


def test_these_are_all_receivers():
    taking = {path for path, handler in routes() if hasattr(handler, "accept")}
    assert taking == set(WRITES)


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.gen_test
async def test_every_receiver_writes_what_the_token_is_bound_to(post, app, database, name):
    binding, counted = TOKENS[name], {}
    for path, (body, source, headers) in WRITES.items():
        await post(name, path, body, **headers)
        origin = records.origin(binding.get("tenant", ""), binding.get("source", source))
        counted[origin] = counted.get(origin, 0) + 1
    assert {origin: app.ledger.row(origin)["queued"] for origin in app.ledger.sources} == counted
    await app.writer.flush()
    assert {origin: app.ledger.row(origin)["stored"] for origin in app.ledger.sources} == counted
    found = list(database[collection_of(name)].find())
    assert len(found) == len(WRITES)
    assert [d for d in found if d.get("tenant") != binding.get("tenant")] == []
    if "source" in binding:
        assert {d["source"] for d in found} == {binding["source"]}
    others = {collection_of(other) for other in TOKENS} - {collection_of(name)}
    assert [other for other in others if database[other].find_one()] == []


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.gen_test
async def test_what_is_refused_is_counted_so_as_well(post, app, name):
    await post(name, "/gelf", b"{", 400)
    binding = TOKENS[name]
    origin = records.origin(binding.get("tenant", ""), binding.get("source", "gelf"))
    assert app.ledger.row(origin)["refused"] == 1


class TestFastLane:
    """Plain requests, which no handler sees."""

    @pytest.fixture
    def options(self, options):
        return dataclasses.replace(options, transport="httptools")

    @pytest.mark.parametrize("ack", ["memory", "journal", "stored"])
    @pytest.mark.parametrize("path", ["/add-job", "/add-jobs"])
    @pytest.mark.parametrize("name", TOKENS)
    @pytest.mark.gen_test
    async def test_it_writes_what_the_token_is_bound_to(
        self, http_server, http_port, app, database, monkeypatch, name, path, ack
    ):
        call, answered = Lane.__call__, []

        def watched(lane, *request):
            answer = call(lane, *request)
            answered.append(answer is not None)
            return answer

        monkeypatch.setattr(Lane, "__call__", watched)
        reader, writer = await asyncio.open_connection("127.0.0.1", http_port)
        head = f"POST {path}?ack={ack} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\nAuthorization: "
        request = f'{head}{bearer(name)["Authorization"]}\r\n\r\n{{"a":1}}'.encode()
        for count in (1, 1, 3):
            # The first is the handler's, three at once may be taken together.
            writer.write(request * count)
            for _ in range(count):
                lines = await reader.readuntil(b"\r\n\r\n")
                assert lines.startswith(b"HTTP/1.1 202"), lines
                length = lines.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
                await reader.readexactly(int(length))
        writer.close()
        await writer.wait_closed()
        await app.writer.flush()
        assert answered[:2] == [False, True]
        found = list(database[collection_of(name)].find())
        binding = TOKENS[name]
        assert [(d.get("tenant"), d.get("source")) for d in found] == [
            (binding.get("tenant"), binding.get("source"))
        ] * 5
        origin = records.origin(binding.get("tenant", ""), binding.get("source", "jobs"))
        assert app.ledger.sources == [origin]


# Reading


@pytest.fixture
def written(post, app):
    """The ids of two records by each token, one with a source of its receiver's."""

    async def written():
        ids = {}
        for name in TOKENS:
            job = json.loads((await post(name, "/add-job", json.dumps({"by": name}).encode())).body)["id"]
            await post(name, "/gelf", json.dumps({"short_message": name, "host": "h", "_by": name}).encode())
            (gelf,) = [records.id_of(record).hex() for record in list(app.records)[-1:]]
            ids[name] = {job, gelf}
        return ids

    return written


async def check_reads(fetch, get, ids, stored):
    for name, seen in SEES.items():
        own = set().union(*(ids[each] for each in seen))
        for record_id in set().union(*ids.values()):
            status, answer = await get(name, f"/logs/{record_id}")
            assert (status, answer["state"]) == (
                (200, "stored" if stored else "queued") if record_id in own else (404, "unknown")
            )
            if status == 404:
                nothing = "0" * 24
                _, unknown = await get(name, f"/logs/{nothing}")
                for each in (answer, unknown):
                    # What a request is called by.
                    del each["instance"]
                assert unknown | {"detail": unknown["detail"].replace(nothing, record_id)} == answer
        _, ledger = await get(name, "/ledger")
        column = "stored" if stored else "queued"
        assert sum(row[column] for row in ledger["sources"].values()) == len(own) or name == "all"
        if name != "all":
            assert ledger["total"]["received"] == len(own)
            assert set(ledger) == {"started", "total", "sources"}
        if not stored:
            continue
        _, found = await get(name, "/logs?limit=1000")
        assert {each["_id"] for each in found} == own
        _, found = await get(name, "/logs?limit=1000&q=by:*")
        assert {each["_id"] for each in found} == own
        response = await fetch("/logs?format=ndjson", headers=bearer(name))
        assert {json.loads(line)["_id"] for line in response.body.splitlines()} == own
        _, found = await get(name, "/logs/fields")
        assert found["sampled"] == len(own)
        (by,) = [each for each in found["fields"] if each["name"] == "by"]
        assert {each["value"] for each in by["values"]} == seen
        _, found = await get(name, "/logs/histogram")
        assert found["total"] == len(own)


@pytest.mark.gen_test
async def test_every_read_shows_ones_own_records_and_no_others(fetch, get, written, app):
    ids = await written()
    await check_reads(fetch, get, ids, stored=False)
    await app.writer.flush()
    await check_reads(fetch, get, ids, stored=True)


@pytest.mark.gen_test
async def test_pages_lead_through_ones_own_records(fetch, written, app):
    ids = await written()
    await app.writer.flush()
    for name, seen in SEES.items():
        path, found = "/logs?limit=1", []
        while path:
            response = await fetch(path, headers=bearer(name))
            found += [each["_id"] for each in json.loads(response.body)]
            path = response.headers.get("Link", "").partition(">")[0].lstrip("<")
        assert sorted(found) == sorted(set().union(*(ids[each] for each in seen)))


@pytest.mark.gen_test
async def test_no_query_reaches_beyond_the_bounds(get, written, app):
    await written()
    await app.writer.flush()
    for q in ("source:shop", "NOT source:till", "by:shop", "_exists_:by AND NOT source:till", "tenant:acme"):
        status, found = await get("till", f"/logs?limit=1000&q={q.replace(' ', '%20')}")
        assert (status, found) in ((200, []), (400, found)), q


@pytest.mark.gen_test
async def test_who_is_bound_to_jobs_reads_the_records_without_a_source(app):
    ids = records.Ids()
    job = records.encode_job(1, [], ids.next(), app.now_ms())
    other = records.encode({"source": "otlp", "message": ""}, {}, [], ids.next(), app.now_ms())
    await app.store.write([job, other])
    reader = app.store.reader.only("jobs")
    assert {*await reader.fetch([records.id_of(job), records.id_of(other)])} == {records.id_of(job)}


# Quarantine


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.gen_test
async def test_what_is_in_quarantine_is_there_for_its_own_alone(post, get, app, database, name):
    others = [other for other in TOKENS if name not in SEES[other]]
    await post(name, "/add-jobs", b'{"a":1}\n{"a":\n', **NDJSON)
    await app.writer.flush()
    tenant = TOKENS[name].get("tenant", "")
    assert database[f"{collection_of(name)}_quarantine"].count_documents({}) == 1
    _, (shown,) = await get(name, "/quarantine")
    assert shown["source"] == TOKENS[name].get("source", "jobs")
    path = f"/quarantine/{shown['_id']}"
    for other in others:
        assert await get(other, "/quarantine") == (200, [])
        for method, more, body in (("GET", "", None), ("DELETE", "", None), ("POST", "/replay", b"{}")):
            status, answer = await get(other, path + more, method, body=body)
            assert (status, answer["type"]) == (404, "urn:logsrv:problem:not-found")
        assert (await get(other, f"/logs/{shown['_id']}"))[0] == 404
    assert (await get(name, path))[0] == 200
    assert (await get(name, f"{path}/replay", "POST", body=b'{"a":2}'))[0] == 200
    again = database[collection_of(name)].find_one({"_id": ObjectId(shown["_id"])})
    assert (again["data"], again.get("tenant", "")) == ({"a": 2}, tenant)
    assert again.get("source") == TOKENS[name].get("source")
    assert (await get(name, "/quarantine")) == (200, [])
    for origin in app.ledger.sources:
        assert min(app.ledger.row(origin).values()) >= 0


@pytest.mark.gen_test
async def test_what_mongodb_refuses_is_in_its_tenants_quarantine_and_can_be_deleted_there(post, get, app, database):
    await app.store.of("acme").prepare()
    database["logs_acme"].create_index("data.once", unique=True, sparse=True)
    for name in ("acme", "acme", "all", "all"):
        await post(name, "/add-job", b'{"once":1}')
    await app.writer.flush()
    assert [database[each].count_documents({}) for each in ("logs", "logs_acme", "logs_acme_quarantine")] == [2, 1, 1]
    assert await get("all", "/quarantine") == (200, [])
    _, (shown,) = await get("acme", "/quarantine")
    assert (shown["source"], shown["original"]["tenant"]) == ("jobs", "acme")
    assert (await get("acme", f"/quarantine/{shown['_id']}/replay", "POST", body=b'{"once":2}'))[0] == 200
    assert database["logs_acme"].count_documents({}) == 2
    assert await app.store.count_quarantined() == 0


# The tail


@pytest.fixture
def tails(app, http_server, base_url):
    """A watcher for each token, or for some, from where they were before."""
    opened = {}

    async def tails(names=tuple(TOKENS), query="", last=None):
        found = {
            name: Tail(base_url, f"/logs/tail?{query}", (last or {}).get(name, ""), headers=bearer(name))
            for name in names
        }
        opened.update({id(each): each for each in found.values()})
        for each in found.values():
            await until(lambda each=each: each.response)
        await until(lambda: sum(len(group.watchers) for group in app.watch.groups) == len(app.watch.watchers))
        return found

    yield tails
    for each in opened.values():
        each.close()


def check_tails(found, ids, stored):
    for name, watcher in found.items():
        own = set().union(*(ids[each] for each in SEES[name]))
        assert set(watcher.ids) == own, name
        told = {record_id for each in watcher.of("stored") for record_id in each["ids"]}
        assert (told | watcher.settled if stored else told) == (own if stored else set()), name


async def seen(found, ids):
    for name, watcher in found.items():
        count = sum(len(ids[each]) for each in SEES[name])
        await until(lambda watcher=watcher, count=count: len(watcher.ids) >= count)


@pytest.mark.gen_test(timeout=60)
async def test_a_tail_shows_ones_own_records_and_what_becomes_of_them(tails, written, app):
    found = await tails()
    ids = await written()
    await seen(found, ids)
    check_tails(found, ids, stored=False)
    await app.writer.flush()
    for name, watcher in found.items():
        await until(lambda watcher=watcher, name=name: len(watcher.settled) == 2 * len(SEES[name]))
    check_tails(found, ids, stored=True)


@pytest.mark.parametrize("at_hand", [True, False])
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.gen_test(timeout=60)
async def test_who_comes_back_is_shown_ones_own_records_that_were_missed(
    tails, written, app, monkeypatch, at_hand, stored
):
    monkeypatch.setattr(watch, "HEARTBEAT_SECONDS", 0.05)
    before = await tails()
    await until(lambda: all(each.last_id for each in before.values()))
    for each in before.values():
        each.close()
    ids = await written()
    if stored:
        await app.writer.flush()
    await until(lambda: not app.watch._untold)
    if not at_hand:
        app.watch.recent.clear()
    found = await tails(last={name: each.last_id for name, each in before.items()})
    await seen(found, ids)
    check_tails(found, ids, stored)


@pytest.mark.gen_test(timeout=60)
async def test_who_begins_with_what_is_stored_is_shown_ones_own(tails, written, app):
    ids = await written()
    await app.writer.flush()
    found = await tails(query="from=now-1h")
    await seen(found, ids)
    check_tails(found, ids, stored=True)


@pytest.mark.gen_test(timeout=60)
async def test_nobody_is_told_what_became_of_others_records_that_are_remembered_no_more(tails, written, app):
    found = await tails()
    ids = await written()
    await seen(found, ids)
    app.watch.recent.clear()
    app.watch.recent.forgetful = True
    app.watch.recent._unsettled = 1
    await app.writer.flush()
    for name, watcher in found.items():
        await until(lambda watcher=watcher, name=name: len(watcher.settled) == 2 * len(SEES[name]))
    check_tails(found, ids, stored=True)


@pytest.mark.gen_test(timeout=60)
async def test_what_comes_too_fast_is_missed_by_those_whose_it_is(tails, post, app, monkeypatch):
    found = await tails()
    monkeypatch.setattr(watch, "UNTOLD_COUNT", 10)
    await post("acme", "/add-jobs", b"[%b]" % b",".join([b"1"] * 20))
    for name in ("acme", "beta", "till", "all", "both"):
        await post(name, "/add-job", b"1")
    for name in ("beta", "till", "all", "both"):
        await until(lambda watcher=found[name]: watcher.ids)
        assert found[name].of("missed") == []
    await until(lambda: found["acme"].of("missed"))
    assert found["acme"].of("missed") == [{"missed": 10}]


# Names


@pytest.mark.gen_test
async def test_the_same_idempotency_key_of_others_is_another(post, app):
    ids = {}
    for name in TOKENS:
        for _ in range(2):
            answer = await post(name, "/add-job", b"1", **{"Idempotency-Key": "k"})
            ids.setdefault(name, set()).add(json.loads(answer.body)["id"])
    assert all(len(found) == 1 for found in ids.values())
    assert len(set().union(*ids.values())) == len(TOKENS)


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/add-jobs?key_field=k", b'[{"k":"a"}]', {}),
        ("/_bulk", b'{"create":{"_index":"i","_id":"1"}}\n{}\n', NDJSON),
        ("/_bulk", b'{"index":{"_index":"i","_id":"1"}}\n{}\n', NDJSON),
    ],
)
@pytest.mark.gen_test
async def test_the_same_id_of_others_is_another(post, app, path, body, headers):
    for name in TOKENS:
        for _ in range(2):
            await post(name, path, body, **headers)
    ids = [records.id_of(record) for record in app.records]
    assert (len(ids), len(set(ids))) == (2 * len(TOKENS), len(TOKENS))


@pytest.mark.gen_test
async def test_splunks_acknowledgements_are_ones_own(post, app):
    channel = {"X-Splunk-Request-Channel": "12345678-1234-1234-1234-123456789abc"}
    asked = {}
    for name in TOKENS:
        answer = await post(name, "/services/collector", b'{"event":"x"}', **channel)
        asked[name] = json.loads(answer.body)["ackId"]
    await app.writer.flush()
    every = json.dumps({"acks": list(asked.values())}).encode()
    for name in TOKENS:
        answer = await post(name, "/services/collector/ack", every, **channel)
        assert json.loads(answer.body)["acks"] == {str(each): each == asked[name] for each in asked.values()}


@pytest.mark.parametrize("name", BOUND)
@pytest.mark.gen_test
async def test_who_is_bound_can_sign_in(fetch, written, app, name):
    ids = await written()
    await app.writer.flush()
    signed = await fetch("/sign-in", json.dumps({"token": SECRETS[name]}).encode())
    cookie = signed.headers["Set-Cookie"].partition(";")[0]
    found = await fetch("/logs?limit=1000", headers={"Cookie": cookie})
    assert {each["_id"] for each in json.loads(found.body)} == set().union(*(ids[each] for each in SEES[name]))
    assert (await fetch("/metrics", headers={"Cookie": cookie})).code == 403


def test_a_tenant_has_one_store_and_nobody_has_the_servers(app):
    assert app.store.of("") is app.store
    assert app.store.of("acme") is app.store.of("acme")
    assert [store.name for store in app.store.all] == ["logs", "logs_acme"]


# A collection that cannot be written


class TestBroken:
    """The collection of one tenant refuses all, as MongoDB does who may not write there."""

    @pytest.fixture
    def options(self, options):
        return dataclasses.replace(options, batch_size=5)

    @pytest.fixture
    def mend(self, app, monkeypatch):
        """Let it be written again."""
        now = [0.0]
        app.store.held = app.store.held.__class__(lambda: now[0])
        app.writer.held = app.store.held.indexes
        app.writer._clock = lambda: now[0]

        async def refuse():
            raise OperationFailure("not authorized on logs_acme", 13)

        monkeypatch.setattr(app.store.of("acme"), "prepare", refuse)

        def mend():
            monkeypatch.undo()
            now[0] += 60

        return mend

    @pytest.mark.gen_test
    async def test_it_holds_up_nobody_else_and_is_written_when_it_can_be(self, post, app, database, mend, caplog):
        for n in range(12):
            await post("acme", "/add-job", b"%d" % n)
        for _ in range(3):
            await post("all", "/add-job", b"1")
            await post("beta", "/add-job", b"1")
        for _ in range(4):
            await app.writer.flush()
        assert [database[name].count_documents({}) for name in ("logs", "logs_beta", "logs_acme")] == [3, 3, 0]
        assert (app.writer.failures, app.unsettled, app.queue.floor) == (0, 12, 0)
        assert caplog.text.count("cannot write to logs_acme") == 1
        await post("acme", "/add-job", b"12")
        mend()
        await app.writer.flush()
        await app.writer.flush()
        assert [d["data"] for d in database["logs_acme"].find().sort("_id")] == [*range(13)]
        assert (app.unsettled, app.queue.floor) == (0, 19)

    @pytest.mark.gen_test
    async def test_what_is_aside_is_kept_at_a_stop(self, post, app, mend):
        for n in range(7):
            await post(("acme", "beta")[n % 2], "/add-job", b"%d" % n)
        for _ in range(3):
            await app.writer.flush()
        assert (len(app.queue), app.queue.in_flight) == (0, 4)
        await app.writer.stop()
        assert [place for place, _ in app.queue.unstored()] == [0, 2, 4, 6]
        mend()

    @pytest.mark.gen_test
    async def test_it_may_fill_half_of_the_queue_and_no_more(self, post, app, mend, monkeypatch):
        await post("acme", "/add-job", b"1")
        await app.writer.flush()
        monkeypatch.setattr(app.queue, "_max_bytes", 3 * app.queue.size_bytes)
        await post("acme", "/add-job", b"1")
        await post("acme", "/add-job", b"1", 503)
        await post("all", "/add-job", b"1")
        assert app.ledger.row("acme/jobs")["refused"] == 1
