"""What every receiver says to a request that it does not take, and in whose words."""

import gzip
import json
import zlib

import cramjam
import pytest

from tornado_logsrv import auth
from tornado_logsrv.codings import zstd
from tornado_logsrv.receivers.otlp import _STATUS

from .test_stored_timeout import JSON, SENDERS

LIMIT = 1 << 16
SECRETS = {scope: auth.new_secret() for scope in ("read", "write")}
#: Of two records each, and the status of success.
REQUESTS = {name: sender[:4] for name, sender in SENDERS.items()} | {"jobs": ("/add-jobs", JSON, b'["a","b"]', 202)}
#: Those whose protocol has it that a wrong token is 403.
WRONG_IS_FORBIDDEN = ("HEC", "HEC, raw", "Datadog")
CODINGS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
    "snappy": lambda data: bytes(cramjam.snappy.compress_raw(data)),
}
each_request = pytest.mark.parametrize("name", REQUESTS)


@pytest.fixture
def options(options):
    return type(options)(**{**options.__dict__, "max_body_bytes": LIMIT})


@pytest.fixture
def send(fetch):
    """Sends the request of a name: with another body, if one is given, and more headers."""

    async def send(name, body=None, **more):
        path, headers, given, _ = REQUESTS[name]
        more = {key.replace("_", "-"): value for key, value in more.items()}
        return await fetch(f"{path}?ack=memory", given if body is None else body, headers={**headers, **more})

    return send


def told(name, response):
    """What an answer says is wrong, from where its protocol says it."""
    if name == "Loki":
        return response.body.decode()
    if name == "OTLP":
        return _STATUS.FromString(response.body).message
    answer = json.loads(response.body)
    if name == "Elasticsearch":
        return answer["error"]["reason"]
    return answer["errors"][0]["detail"] if name == "Datadog" else answer["detail"]


@each_request
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.gen_test
async def test_every_coding_is_undone_and_the_limit_holds_behind_it(send, app, name, coding):
    pack = CODINGS[coding]
    *_, body, success = REQUESTS[name]
    response = await send(name, pack(body), Content_Encoding=coding)
    assert (response.code, len(app.records)) == (success, 2)
    response = await send(name, pack(body + b" " * LIMIT), Content_Encoding=coding)
    assert (response.code, len(app.records)) == (400 if name == "Loki" else 413, 2)
    assert str(LIMIT) in told(name, response)
    response = await send(name, pack(body)[:-1], Content_Encoding=coding)
    assert (response.code, len(app.records)) == (400, 2)


@each_request
@pytest.mark.gen_test
async def test_a_server_that_stops_says_to_come_again(send, app, name):
    app.intake.closed = True
    response = await send(name)
    assert (response.code, int(response.headers["Retry-After"]) >= 1) == (503, True)
    assert "stopped" in told(name, response)


class TestTokens:
    @pytest.fixture
    def options(self, options, tmp_path):
        path = tmp_path / "tokens.toml"
        entries = [
            f'[[token]]\nname = "{scope}"\nsha256 = "{auth.digest_of(secret)}"\nscopes = ["{scope}"]\n'
            for scope, secret in SECRETS.items()
        ]
        path.write_text("".join(entries))
        return type(options)(**{**options.__dict__, "tokens_file": str(path)})

    @each_request
    @pytest.mark.gen_test
    async def test_who_has_none_a_wrong_one_or_one_that_may_not_write(self, send, app, name):
        found = [await send(name)]
        found += [await send(name, Authorization=f"Bearer {each}") for each in ("wrong", SECRETS["read"])]
        assert [each.code for each in found] == [401, 403 if name in WRONG_IS_FORBIDDEN else 401, 403]
        words = ["a token is needed", "there is no such token", "has not the scope write"]
        assert [word in told(name, each) for word, each in zip(words, found, strict=True)] == [True] * 3
        assert not app.records
        taken = await send(name, Authorization=f"Bearer {SECRETS['write']}")
        assert (taken.code, len(app.records)) == (REQUESTS[name][3], 2)
