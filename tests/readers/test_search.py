"""GET /logs with q, relative times and fields, on the real store."""

import functools
import json
from urllib.parse import quote

import pytest
from motor import motor_tornado
from pymongo.monitoring import CommandListener

from tornado_logsrv import jsontext, records
from tornado_logsrv.config import Options
from tornado_logsrv.errors import BadParameter, QueryTimeout
from tornado_logsrv.readers import logs, projection
from tornado_logsrv.reading import Deadline, Selection

START = 1_767_323_045_678  # 2026-01-02T03:04:05.678Z
IDS = records.Ids(lambda: 1_700_000_000)
JOBS = [
    {"level": "error", "service": "checkout", "latency_ms": 250, "message": "Connection refused by peer"},
    {"level": "ERROR", "service": "checkout-v2", "latency_ms": "90", "user": {"id": "u1", "name": "Ann"}},
    {"level": "info", "service": "checkout", "user.id": "u2", "$set": {"a.b": 1}},
    "a plain text: time out",
    [{"n": 1}, {"n": 2}],
]


async def store(app, values, moment=START):
    made = [
        records.encode_job(*jsontext.read(json.dumps(value).encode()), IDS.next(), moment + place)
        for place, value in enumerate(values)
    ]
    await app.store.write(made)


async def places(fetch, query, **arguments):
    """Which of JOBS a query finds."""
    path = f"/logs?order=asc&q={quote(query)}" + "".join(f"&{name}={value}" for name, value in arguments.items())
    response = await fetch(path)
    assert response.code == 200, response.body
    every = json.loads((await fetch("/logs?order=asc")).body)
    return [every.index(found) for found in json.loads(response.body)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("refused", [0]),
        ('"connection refused"', [0]),
        ('"refused connection"', []),
        ("level:error", [0, 1]),
        ("service:checkout AND NOT level:info", [0]),
        ("service:check*", [0, 1, 2]),
        ("latency_ms:[100 TO *]", [0]),
        ("latency_ms:<100", [1]),
        ("user.id:u1 OR user.id:u2", [1, 2]),
        ("$set.a.b:1", [2]),
        ("_exists_:user", [1]),
        ("/time.out/", [3]),
        ("n:2", [4]),
        ("timestamp:[2026-01-02T03:04:05.679Z TO 2026-01-02T03:04:05.680Z]", [1, 2]),
    ],
)
@pytest.mark.gen_test
async def test_a_query_finds_what_it_means(fetch, app, query, expected):
    await store(app, JOBS)
    assert await places(fetch, query) == expected


@pytest.mark.gen_test
async def test_q_and_from_and_to_narrow_each_other(fetch, app):
    await store(app, JOBS)
    assert await places(fetch, "level:*", **{"from": "2026-01-02T03:04:05.679Z"}) == [1, 2]
    assert await places(fetch, "timestamp:>=2026-01-02T03:04:05.680Z", to="2026-01-02T03:04:05.681Z") == [2]


@pytest.mark.gen_test
async def test_from_may_be_relative_to_now(fetch, app):
    await store(app, ["old"], app.now_ms() - 3_600_000)
    await store(app, ["new"], app.now_ms() - 60_000)
    found = {}
    for query in ("from=now-15m", "to=now-15m", "from=now-2h&to=now", "from=now%2B1h"):
        found[query] = [each["data"] for each in json.loads((await fetch(f"/logs?{query}")).body)]
    assert list(found.values()) == [["new"], ["old"], ["new", "old"], []]


@pytest.mark.parametrize(
    ("query", "column", "said", "nearest"),
    [
        ("level:", 7, "nothing to look for", "level:*"),
        ("(a OR b", 1, "not closed", "(a OR b)"),
        ("a AND", 3, "nothing stands behind AND", "a"),
        ("x:[1 TO]", None, "range", None),
        ("/(a+)+$(/", None, "", None),
        ("a" * 2001, 2001, "2000 characters", None),
    ],
)
@pytest.mark.gen_test
async def test_a_wrong_query_is_a_400_that_points_at_the_column(fetch, query, column, said, nearest):
    response = await fetch(f"/logs?q={quote(query)}")
    problem = json.loads(response.body)
    assert (response.code, problem["type"]) == (400, "urn:logsrv:problem:bad-parameter")
    assert problem["parameter"] == "q"
    assert problem.get("nearest") == nearest
    assert 1 <= problem["column"] <= len(query) + 1
    assert column is None or problem["column"] == column
    assert said in problem["detail"]


@pytest.mark.gen_test
async def test_a_parameter_that_is_there_twice_is_a_400(fetch):
    response = await fetch("/logs?q=a&q=b")
    assert (response.code, json.loads(response.body)["parameter"]) == (400, "q")


def link(response):
    return response.headers["Link"].partition("; ")[0].strip("<>")


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.gen_test
async def test_pages_of_a_query_hold_every_match_once_while_records_arrive(fetch, app, order):
    await store(app, [{"n": n, "odd": n % 2 == 1} for n in range(40)])
    path, found = f"/logs?limit=3&order={order}&q=odd:true", []
    while path:
        response = await fetch(path)
        found += [document["data"]["n"] for document in json.loads(response.body)]
        path = link(response) if "Link" in response.headers else None
        await store(app, [{"n": -1, "odd": True}], START + (10**6 if order == "desc" else -(10**6)))
    assert found == sorted(range(1, 40, 2), reverse=order == "desc")


def test_relative_times_of_later_pages_count_from_the_first():
    first = logs.parse({"from": "now-15m", "q": "timestamp:<now-5m"}, START)
    cursor = str(logs.paging.Cursor("desc", logs.Position(START, logs.paging.ObjectId()), START))
    later = logs.parse({"from": "now-15m", "q": "timestamp:<now-5m", "cursor": cursor}, START + 600_000)
    assert later.selection.range() == first.selection.range() == (START - 900_000, START - 300_000)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("level", {"data": {"level": "ERROR"}}),
        ("user.id", {"data": {"user": {"id": "u1"}}}),
        ("user,user.id,level", {"data": {"level": "ERROR", "user": {"id": "u1", "name": "Ann"}}}),
        ("data.service,message", {"message": "Job processed", "data": {"service": "checkout-v2"}}),
        ("_id, nothing", {}),
        ("timestamp", {"timestamp": "2026-01-02T03:04:05.679Z"}),
    ],
)
@pytest.mark.gen_test
async def test_fields_projects_by_the_names_of_q(fetch, app, fields, expected):
    await store(app, JOBS[:2])
    (document, _) = json.loads((await fetch(f"/logs?fields={quote(fields)}")).body)
    assert len(document.pop("_id")) == 24
    assert document == expected


def test_a_projection_reaches_keys_with_dots_and_into_arrays():
    document = {
        "_id": 1,
        "data": {"user.id": "u2", "$set": {"a.b": 1, "c": 2}, "rows": [{"n": 1, "m": 2}, 3, [{"n": 4}]]},
    }
    paths = [projection.path(name) for name in ("user.id", "$set.a.b", "rows.n")]
    kept = {"user.id": "u2", "$set": {"a.b": 1}, "rows": [{"n": 1}, [{"n": 4}]]}
    assert projection.project(document, paths) == {"_id": 1, "data": kept}
    assert [projection.value_at(document, path) for path in paths] == ["u2", 1, [1, 4]]


@pytest.mark.parametrize("fields", ["", "a,,b", ",".join(map(str, range(101))), ".".join("a" * 30)])
def test_fields_that_are_none_are_named(fields):
    with pytest.raises(BadParameter, match="fields: "):
        projection.names({"fields": fields})


@pytest.mark.gen_test
async def test_a_page_of_large_records_is_cut_where_it_would_be_too_large(fetch, app):
    await store(app, ["x" * 6_000_000] * 5)
    path, sizes = "/logs?limit=10", []
    while path:
        response = await fetch(path)
        sizes.append(len(json.loads(response.body)))
        path = link(response) if "Link" in response.headers else None
    assert sizes == [2, 2, 1]


class TestTime:
    """A query may take one millisecond."""

    @pytest.fixture
    def options(self, options: Options) -> Options:
        return Options(**{**options.__dict__, "query_timeout": 0.001})

    @pytest.mark.gen_test
    async def test_a_query_that_takes_too_long_is_a_504_and_no_empty_list(self, fetch, app, caplog):
        await store(app, [{"n": n} for n in range(3000)])
        response = await fetch("/logs?q=nothing")
        problem = json.loads(response.body)
        assert (response.code, problem["type"]) == (504, "urn:logsrv:problem:query-timeout")
        assert "--query_timeout" in problem["detail"]
        assert not [record for record in caplog.records if record.exc_info]


class Asked(CommandListener):
    """What MongoDB is asked for by queries of records."""

    def __init__(self):
        self.commands = []

    def started(self, event):
        if str(event.command.get(event.command_name)).startswith("logs"):
            self.commands.append(event.command)

    def succeeded(self, event):
        """Nothing more to be seen."""

    def failed(self, event):
        """Nothing more to be seen."""


class TestEnds:
    @pytest.fixture
    def asked(self, monkeypatch):
        listener = Asked()
        client = functools.partial(motor_tornado.MotorClient, event_listeners=[listener])
        monkeypatch.setattr("tornado_logsrv.store.MotorClient", client)
        return listener

    @pytest.mark.parametrize(
        "path",
        [
            *("/logs", "/logs?q=level:error&from=now-1h", "/logs?q=$a.b:1&order=asc", "/logs?format=ndjson"),
            *("/logs/histogram?from=2026-01-01", "/logs/fields", f"/logs/{'0' * 24}"),
            *("/quarantine", f"/quarantine/{'0' * 24}"),
        ],
    )
    @pytest.mark.gen_test
    async def test_whatever_a_client_has_mongodb_look_for_has_an_end(self, asked, fetch, app, path):
        await store(app, JOBS)
        asked.commands.clear()
        await fetch(path)
        found = [command for command in asked.commands if "find" in command or "aggregate" in command]
        assert found
        assert all(0 < command["maxTimeMS"] <= 1000 * app.options.query_timeout for command in found), found


@pytest.mark.parametrize("path", ["/logs?q=x", "/logs?q=x&format=csv", "/logs/histogram?q=x", "/logs/fields?q=x"])
@pytest.mark.gen_test
async def test_what_mongodb_gives_up_is_a_504(fetch, app, mongo, path):
    await store(app, ["x"])
    fail = {"configureFailPoint": "failCommand", "data": {"failCommands": ["aggregate"], "errorCode": 50}}
    mongo.admin.command({**fail, "mode": {"times": 1}})
    response = await fetch(path)
    assert (response.code, json.loads(response.body)["type"]) == (504, "urn:logsrv:problem:query-timeout")
    assert (await fetch(path)).code == 200


@pytest.mark.gen_test
async def test_what_mongodb_does_not_take_is_a_400(fetch, app, mongo):
    await store(app, ["x"])
    fail = {"configureFailPoint": "failCommand", "data": {"failCommands": ["aggregate"], "errorCode": 51091}}
    mongo.admin.command({**fail, "mode": {"times": 1}})
    response = await fetch("/logs?q=x")
    assert (response.code, json.loads(response.body)["parameter"]) == (400, "q")


@pytest.mark.gen_test
async def test_a_search_ends_when_nobody_waits_for_it(app):
    deadline = app.store.reader.deadline()
    deadline.cut_short()
    with pytest.raises(QueryTimeout):
        await app.store.reader.page(Selection(), deadline=deadline)


def test_a_deadline_says_what_is_left_and_begins_again():
    now = [0.0]
    deadline = Deadline(2.0, lambda: now[0])
    now[0] = 1.5
    assert deadline.left_ms() == 500
    deadline.restart()
    assert deadline.left_ms() == 2000
    now[0] = 3.5
    with pytest.raises(QueryTimeout, match="2 s"):
        deadline.left_ms()
