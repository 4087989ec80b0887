"""Nothing of a request that was refused stays in memory until the garbage collector looks, which it seldom does."""

import contextlib
import gc

import pytest
from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from tests.failpoints import failing

from .test_stored_timeout import JSON, SENDERS

PLAIN = {
    "job": ("/add-job", JSON, b'"a"'),
    "jobs": ("/add-jobs", JSON, b'["a","b"]'),
    "lines": ("/add-jobs", {"Content-Type": "application/x-ndjson"}, b'"a"\n"b"\n'),
}
REQUESTS = PLAIN | {name: sender[:3] for name, sender in SENDERS.items()}
#: Of mocks and weak proxies isinstance() asks what they stand for.
OF_REQUESTS = (HTTPServerRequest, RequestHandler)
each_request = pytest.mark.parametrize("request_name", REQUESTS)


@contextlib.contextmanager
def held():
    """The list of what of requests is found to be in cycles, after the block."""
    found = []
    gc.collect()
    # What is there now is none of it, and need not be looked at again.
    gc.freeze()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += [type(each).__name__ for each in gc.garbage if issubclass(type(each), OF_REQUESTS)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()


async def code(fetch, name, ack, body=None):
    path, headers, given = REQUESTS[name]
    return (await fetch(f"{path}?ack={ack}", given if body is None else body, headers=headers)).code


class TestRedisAway:
    @pytest.fixture
    def options(self, options):
        return type(options)(**{**options.__dict__, "redis_url": "redis://127.0.0.1:9"})

    @each_request
    @pytest.mark.gen_test
    async def test_redis_takes_nothing(self, fetch, request_name):
        with held() as found:
            assert await code(fetch, request_name, "journal") == 503
        assert found == []


class TestFull:
    @pytest.fixture
    def options(self, options):
        return type(options)(**{**options.__dict__, "queue_max_bytes": 2000})

    @each_request
    @pytest.mark.parametrize("ack", ["memory", "journal"])
    @pytest.mark.gen_test
    async def test_the_queue_is_full(self, fetch, request_name, ack):
        assert (await fetch("/add-job?ack=memory", b'"%b"' % (b"x" * 1880))).code == 202
        with held() as found:
            assert await code(fetch, request_name, ack) in (429, 503)
        assert found == []


class TestNotStored:
    @pytest.fixture
    def options(self, options):
        return type(options)(**{**options.__dict__, "stored_timeout": 0.1})

    @each_request
    @pytest.mark.gen_test
    async def test_mongodb_does_not_confirm(self, fetch, app, mongo, request_name):
        with failing(mongo, "alwaysOn", failCommands=["insert"], errorCode=262), held() as found:
            await code(fetch, request_name, "stored")
        assert app.unsettled
        assert found == []


@each_request
@pytest.mark.gen_test
async def test_it_cannot_be_read(fetch, request_name):
    _, headers, body = REQUESTS[request_name]
    with held() as found:
        await code(fetch, request_name, "memory", body[:-2] + b"\xff")
        await fetch(REQUESTS[request_name][0], b"x", headers=headers | {"Content-Encoding": "gzip"})
    assert found == []
