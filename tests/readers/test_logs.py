import json

import pytest
from bson import ObjectId

from tornado_logsrv import records
from tornado_logsrv.config import Options
from tornado_logsrv.errors import BadParameter
from tornado_logsrv.readers import logs, paging
from tornado_logsrv.reading import Position

START = 1_767_323_045_678  # 2026-01-02T03:04:05.678Z


async def stored(app, count):
    ids = records.Ids(lambda: 1_700_000_000)
    await app.store.write([records.encode_job(n, [], ids.next(), START + n // 3) for n in range(count)])


def link(response):
    url, _, relation = response.headers["Link"].partition("; ")
    assert relation == 'rel="next"'
    return url.strip("<>")


@pytest.mark.gen_test
async def test_an_empty_store_is_an_empty_array(fetch):
    response = await fetch("/logs")
    assert (response.code, response.body, "Link" in response.headers) == (200, b"[]", False)


@pytest.mark.gen_test
async def test_newest_first_and_a_hundred_by_default(fetch, app):
    await stored(app, 150)
    response = await fetch("/logs")
    documents = json.loads(response.body)
    assert [document["data"] for document in documents] == list(range(149, 49, -1))
    assert list(documents[0]) == ["_id", "message", "data", "timestamp"]
    assert ObjectId.is_valid(documents[0]["_id"])
    assert json.loads((await fetch(link(response))).body)[0]["data"] == 49


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.gen_test
async def test_link_leads_through_all_pages_while_records_arrive(fetch, app, order):
    await stored(app, 10)
    path, found = f"/logs?limit=3&order={order}", []
    for _ in range(4):
        response = await fetch(path)
        found += [document["data"] for document in json.loads(response.body)]
        path = link(response) if "Link" in response.headers else None
        await app.store.write(
            [records.encode_job("late", [], records.Ids().next(), START + (10**6 if order == "desc" else -(10**6)))]
        )
    assert path is None
    assert found == (list(range(10)) if order == "asc" else list(range(9, -1, -1)))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("from=2026-01-02T03:04:05.679Z", [3, 4, 5, 6, 7, 8, 9]),
        ("to=2026-01-02T03:04:05.679Z", [0, 1, 2]),
        ("from=2026-01-02T04:04:05.679%2B01:00&to=2026-01-02T03:04:05.680", [3, 4, 5]),
        ("from=2026-01-02T04:04:05.679+01:00&limit=2", [3, 4]),
        ("from=2027-01-01", []),
    ],
)
@pytest.mark.gen_test
async def test_from_is_inclusive_and_to_is_not(fetch, app, query, expected):
    await stored(app, 10)
    response = await fetch(f"/logs?order=asc&{query}")
    assert [document["data"] for document in json.loads(response.body)] == expected


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=-1", "limit"),
        ("limit=%D9%A3", "limit"),
        ("order=up", "order"),
        ("from=yesterday", "from"),
        ("to=2026-13-01", "to"),
        ("from=2026-02-01&to=2026-01-01", "from"),
        ("cursor=x", "cursor"),
        ("cursor=ZGVzYzoxOjEy", "cursor"),
        ("cursor=%C3%A4", "cursor"),
        ("cursor=YXNjOjk5OTk5OTk5OTk5OTk5OTk5OTowMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA=", "cursor"),
        ("lmit=5", "lmit"),
    ],
)
@pytest.mark.gen_test
async def test_a_wrong_parameter_is_a_400_that_names_it(fetch, query, parameter):
    response = await fetch(f"/logs?{query}")
    problem = json.loads(response.body)
    assert (response.code, problem["parameter"]) == (400, parameter)
    assert problem["detail"].startswith(f"{parameter}: ")


def test_a_cursor_belongs_to_its_order():
    cursor = str(paging.Cursor("asc", Position(0, ObjectId())))
    assert logs.parse({"cursor": cursor}, START).order == "asc"
    with pytest.raises(BadParameter, match="order=asc"):
        logs.parse({"cursor": cursor, "order": "desc"}, START)


class TestAway:
    """MongoDB is not there."""

    @pytest.fixture
    def options(self, options: Options) -> Options:
        return Options(**{**options.__dict__, "mongo_url": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"})

    @pytest.mark.gen_test
    async def test_reading_is_a_503_and_accepting_goes_on(self, fetch, app, caplog):
        response = await fetch("/logs")
        assert (response.code, response.headers["Retry-After"]) == (503, "5")
        assert json.loads(response.body)["type"] == "urn:logsrv:problem:store-unavailable"
        assert (await fetch("/add-job", b"1")).code == 202
        assert not [record for record in caplog.records if record.exc_info]
