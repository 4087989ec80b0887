"""Every route asks who is there, in the words of its protocol; and no page from elsewhere gets in."""

import asyncio
import base64
import dataclasses
import gzip
import logging
import re
import time
from pathlib import Path

import msgspec
import pytest
from elasticsearch import Elasticsearch

from tornado_logsrv import auth, readers, receivers
from tornado_logsrv.auth import Scope
from tornado_logsrv.client import LogsrvHandler
from tornado_logsrv.gate import Gate, is_loopback
from tornado_logsrv.handler import BaseHandler, BodyHandler
from tornado_logsrv.lane import Lane
from tornado_logsrv.readers.session import SignInHandler
from tornado_logsrv.room import FREE

SECRETS = {name: auth.new_secret() for name in ("write", "read", "admin", "slow", "small")}
AGENT = "elastic-test/9.0.0"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")


def entry(name: str, scope: str, more: str = "") -> str:
    digest = auth.digest_of(SECRETS[name])
    return f'[[token]]\nname = "{name}-token"\nsha256 = "{digest}"\nscopes = ["{scope}"]\n{more}\n'


TOKENS = "\n".join(
    [
        *(entry(scope, scope) for scope in ("write", "read", "admin")),
        entry("slow", "write", "requests_per_second = 1"),
        entry("small", "write", "bytes_per_day = 300"),
    ]
)


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS[name]}"}


def with_name(name: str) -> str:
    return base64.b64encode(f"{name}:{SECRETS['write']}".encode()).decode()


@pytest.fixture
def tokens_file(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(TOKENS)
    return path


@pytest.fixture
def options(options, tokens_file):
    # No watchers: a tail that is let in would not end.
    return dataclasses.replace(
        options, tokens_file=str(tokens_file), cors_origins=("https://app.example",), max_watchers=0
    )


def routes():
    """A path that fits each route, and its handler."""
    for pattern, handler in [*receivers.ROUTES, *readers.ROUTES]:
        values = {"record_id": "0" * 24}
        yield re.sub(r"\(\?P<(\w+)>[^)]*\)", lambda group, of=values: of.get(group[1], "x"), pattern), handler
    for path, rule in (("/", receivers.FIRST_ROUTES[0]), ("/index", receivers.LAST_ROUTES[0])):
        yield path, rule.target


def methods(handler):
    return [m for m in METHODS if m in BaseHandler.allowed_methods(type("Asked", (handler,), {}).__new__(handler))]


def scope_of(handler, method):
    return handler.scope if isinstance(handler.scope, Scope) else handler.scope[method]


ASKED = [(method, path, handler) for path, handler in routes() for method in methods(handler)]
#: The token with which a request would be let in.
TOKEN_FOR = {scope: "read" if scope is Scope.OPEN else scope.value for scope in Scope}
GUARDED = [each for each in ASKED if scope_of(each[2], each[0]) is not Scope.OPEN]


def asked(fetch, method, path, headers, **more):
    body = b"{}" if method in ("POST", "PUT") else None
    return fetch(path, body=body, method=method, headers={"User-Agent": AGENT, **headers}, **more)


def test_few_routes_are_open():
    assert {path for method, path, handler in ASKED if scope_of(handler, method) is Scope.OPEN} <= {
        "/", "/ready", "/healthz", "/readyz", "/sign-in", "/sign-out", "/openapi.json", "/static/x",
        "/services/collector/health", "/services/collector/health/1.0",
    }  # fmt: skip


@pytest.mark.parametrize(("method", "path", "handler"), GUARDED)
@pytest.mark.gen_test
async def test_every_route_asks_for_its_scope(fetch, method, path, handler):
    scope = scope_of(handler, method)
    assert (await asked(fetch, method, path, {})).code == 401
    for other in Scope:
        if other is not Scope.OPEN:
            response = await asked(fetch, method, path, bearer(other))
            assert (response.code == 403) == (other is not scope), (other, response.body)
            assert response.code != 401


@pytest.mark.gen_test
async def test_what_is_open_needs_no_token(fetch):
    for path in ("/ready", "/services/collector/health", "/sign-in"):
        assert (await fetch(path)).code == 200
    assert (await fetch("/nothing")).code == 404
    assert (await fetch("/services/collector", method="OPTIONS")).code == 200


# In the words of the protocol


@pytest.mark.gen_test
async def test_jobs_are_refused_as_problems(fetch, app):
    without = await fetch("/add-job", b"1")
    assert msgspec.json.decode(without.body)["type"] == "urn:logsrv:problem:unauthenticated"
    assert without.headers["WWW-Authenticate"] == 'Bearer realm="logsrv"'
    wrong = await fetch("/add-job", b"1", headers=bearer("read"))
    problem = msgspec.json.decode(wrong.body)
    assert (problem["type"], problem["detail"]) == (
        "urn:logsrv:problem:forbidden",
        "the token read-token has not the scope write",
    )
    # Nothing has been read of them, so nothing is counted.
    assert app.ledger.total("received") == 0


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, 2),
        ({"Authorization": "Splunk"}, 403, 4),
        ({"Authorization": "Splunk wrong"}, 403, 4),
        ({"Authorization": f"Splunk {SECRETS['read']}"}, 403, 1),
        ({"Authorization": f"Splunk {SECRETS['write']}"}, 200, 0),
    ],
)
@pytest.mark.gen_test
async def test_splunks_senders_get_splunks_codes(fetch, headers, status, code):
    response = await fetch("/services/collector", b'{"event":"x"}', headers=headers)
    assert (response.code, msgspec.json.decode(response.body)["code"]) == (status, code)


@pytest.mark.gen_test
async def test_elasticsearchs_clients_get_its_errors(fetch):
    response = await fetch("/_bulk", b'{"index":{}}\n{}\n')
    error = msgspec.json.decode(response.body)
    assert (response.code, error["status"], error["error"]["type"]) == (401, 401, "security_exception")
    assert response.headers["WWW-Authenticate"] == 'Basic realm="logsrv"'
    response = await fetch("/_bulk", b'{"index":{}}\n{}\n', headers=bearer("read"))
    assert (response.code, msgspec.json.decode(response.body)["error"]["type"]) == (403, "security_exception")


@pytest.mark.gen_test
async def test_lokis_clients_get_text_and_otlps_a_status(fetch):
    loki = await fetch("/loki/api/v1/push", b"{}")
    assert (loki.code, loki.headers["Content-Type"]) == (401, "text/plain; charset=utf-8")
    otlp = await fetch("/v1/logs", b"{}")
    assert (otlp.code, msgspec.json.decode(otlp.body)["code"]) == (401, 16)
    otlp = await fetch("/v1/logs", b"{}", headers=bearer("read"))
    assert (otlp.code, msgspec.json.decode(otlp.body)["code"]) == (403, 7)


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {SECRETS['write']}",
        f"Splunk {SECRETS['write']}",
        f"Basic {with_name('me')}",
        f"ApiKey {with_name('id')}",
    ],
    ids=("Bearer", "Splunk", "Basic", "ApiKey"),
)
@pytest.mark.gen_test
async def test_a_token_is_taken_as_each_sender_sends_it(fetch, authorization):
    assert (await fetch("/add-job", b"1", headers={"Authorization": authorization})).code == 202


@pytest.mark.parametrize(
    "given",
    [
        {"api_key": SECRETS["write"]},
        {"api_key": ("id", SECRETS["write"])},
        {"basic_auth": ("me", SECRETS["write"])},
        {"bearer_auth": SECRETS["write"]},
    ],
)
@pytest.mark.gen_test
async def test_elasticsearchs_own_client_sends_a_token(http_server, base_url, given):
    def send():
        with Elasticsearch(base_url, **given) as client:
            return client.info()["tagline"], client.bulk(operations=[{"create": {"_index": "i"}}, {"message": "x"}])

    tagline, answer = await asyncio.get_running_loop().run_in_executor(None, send)
    assert (tagline, answer["errors"]) == ("You Know, for Search", False)


@pytest.mark.gen_test
async def test_our_logging_handler_sends_a_token(http_server, base_url, app):
    def send():
        handler = LogsrvHandler(base_url, token=SECRETS["write"])
        handler.handle(logging.makeLogRecord({"msg": "x"}))
        handler.flush(30)
        handler.close()
        return handler.sent

    assert await asyncio.get_running_loop().run_in_executor(None, send) == 1
    assert app.ledger.total("received") == 1


# Rates and quotas


async def until_limited(fetch, path, body, name):
    for _ in range(10):
        response = await fetch(path, body, headers=bearer(name))
        if response.code >= 400:
            return response
    raise AssertionError("never limited")


@pytest.mark.parametrize("name", ["slow", "small"])
@pytest.mark.gen_test
async def test_too_much_is_429_and_says_when_to_come_again(fetch, app, name):
    response = await until_limited(fetch, "/add-job", b'{"a":"' + b"x" * 100 + b'"}', name)
    assert (response.code, msgspec.json.decode(response.body)["type"]) == (429, "urn:logsrv:problem:rate-limited")
    assert int(response.headers["Retry-After"]) >= 1
    assert (await fetch("/add-job", b"1", headers=bearer("write"))).code == 202
    assert app.ledger.total("refused") == 0


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/_bulk", b'{"index":{}}\n{}\n', 429, b"es_rejected_execution_exception"),
        ("/services/collector", b'{"event":"x"}', 503, b'"code":9'),
        ("/loki/api/v1/push", b'{"streams":[{"stream":{},"values":[["1","x"]]}]}', 429, b"over its"),
        ("/v1/logs", b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}', 429, b'"code":8'),
        ("/gelf", b'{"short_message":"x"}', 429, b"rate-limited"),
        ("/api/v2/logs", b'{"message":"x"}', 429, b'"status":"429"'),
    ],
)
@pytest.mark.gen_test
async def test_too_much_is_told_in_the_words_of_the_protocol(fetch, path, body, status, said):
    response = await until_limited(fetch, path, body, "slow")
    assert response.code == status
    assert said in response.body
    assert "Retry-After" in response.headers


# The fast lane


@pytest.fixture
def lanes(monkeypatch):
    """Of each request that the fast lane has seen, whether it has answered."""
    call, seen = Lane.__call__, []

    def watched(lane, *request):
        answer = call(lane, *request)
        seen.append(answer is not None)
        return answer

    monkeypatch.setattr(Lane, "__call__", watched)
    return seen


class TestFastLane:
    """Plain requests; Tornado's own client sends none."""

    @pytest.fixture
    def options(self, options):
        return dataclasses.replace(options, transport="httptools")

    @pytest.fixture
    def send(self, http_server, http_port):
        """The status of a job sent with such headers."""

        async def send(body=b"1", ack="memory", **headers):
            lines = {"Host": "localhost", "Content-Length": len(body), **headers}
            head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
            reader, writer = await asyncio.open_connection("127.0.0.1", http_port)
            writer.write(f"POST /add-job?ack={ack} HTTP/1.1\r\n{head}\r\n".encode() + body)
            status = int((await reader.readline()).split()[1])
            writer.close()
            await writer.wait_closed()
            return status

        return send

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Content-Type": "application/json; charset=utf-8", "Accept": "*/*"}, 503),
            # .NET's client, and curl.
            ({"Content-Type": "application/json; charset=utf-8"}, 429),
            ({"Content-Type": "application/json; charset=utf-8", "Accept": "*/*", "User-Agent": "curl/8.0"}, 429),
        ],
    )
    @pytest.mark.gen_test
    async def test_too_much_is_503_to_rsyslog_which_drops_what_gets_a_429(self, send, headers, status):
        statuses = [await send(**headers, **bearer("slow")) for _ in range(3)]
        assert (statuses[0], statuses[-1]) == (202, status)

    @pytest.mark.gen_test
    async def test_a_token_that_is_known_goes_by_it(self, send, lanes):
        statuses = [await send(**bearer(name)) for name in ("write", "write", "read")]
        assert (statuses, lanes) == ([202, 202, 403], [False, True, False])
        assert (await send(), lanes[-1]) == (401, False)

    @pytest.mark.parametrize("name", ["slow", "small"])
    @pytest.mark.parametrize("ack", ["memory", "journal"])
    @pytest.mark.gen_test
    async def test_it_knows_rates_and_quotas(self, app, send, lanes, name, ack):
        statuses = [await send(b'"%b"' % (b"x" * 30), ack, **bearer(name)) for _ in range(5)]
        assert (statuses[0], statuses[-1]) == (202, 429)
        assert lanes[:2] == [False, True]
        assert lanes[-1] is False

    @pytest.mark.gen_test
    async def test_a_token_that_is_taken_away_is_taken_from_it(self, send, app, tokens_file, lanes):
        assert [await send(**bearer("write")) for _ in range(2)] == [202, 202]
        tokens_file.write_text(entry("read", "read"))
        app.gate.reload()
        assert (await send(**bearer("write")), lanes) == (401, [False, True, False])

    @pytest.mark.gen_test
    async def test_names_and_pages_from_elsewhere_do_not_go_by_it(self, send, lanes):
        assert [await send(**bearer("write")) for _ in range(2)] == [202, 202]
        for more in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
            assert await send(**{**bearer("write"), **more}) == 403
        assert lanes == [False, True, False, False, False]


# Guesses


@pytest.mark.gen_test
async def test_only_the_answers_to_wrong_secrets_wait(fetch, app):
    app.gate.failures = auth.Failures(lambda: 0.0)
    began = time.monotonic()
    wrong = [await fetch("/add-job", b"1", headers={"Authorization": "Bearer wrong"}) for _ in range(3)]
    waited = time.monotonic() - began
    assert [response.code for response in wrong] == [401] * 3
    assert waited >= 0.1 + 0.2 + 0.4
    guesses = [fetch("/add-job", b"x" * 100_000, headers={"Authorization": "Bearer wrong"}) for _ in range(3)]
    assert (await fetch("/add-job", b"1", headers=bearer("write"))).code == 202
    assert [response.code for response in await asyncio.gather(*guesses)] == [401] * 3
    assert app.gate.failures.total == 6


@pytest.mark.parametrize("path", ["/logs", "/logs/tail", "/logs/histogram", "/logs/fields", "/queue-size"])
@pytest.mark.gen_test
async def test_a_client_that_leaves_before_its_answer_is_forgotten(http_server, http_port, app, path, caplog):
    _, writer = await asyncio.open_connection("127.0.0.1", http_port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\n\r\n".encode())
    while not app.in_progress:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    writer.transport.abort()
    while app.in_progress:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    # The answer, which nobody reads any more, is made all the same.
    await asyncio.sleep(2 * auth.FIRST_DELAY)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


# The audit


@pytest.mark.gen_test
async def test_every_refusal_and_act_of_an_administrator_is_a_line_without_the_secret(fetch, caplog):
    caplog.set_level("INFO", "logsrv.audit")
    await fetch(f"/add-job?token={SECRETS['write']}", b"1", headers={"Authorization": f"Bearer {SECRETS['write']}x"})
    await fetch("/add-job", b"1", headers=bearer("read"))
    await fetch("/add-job", b"1", headers={**bearer("write"), "Origin": "http://evil.example"})
    await fetch(f"/quarantine/{'0' * 24}", method="DELETE", headers=bearer("admin"))
    await until_limited(fetch, "/add-job", b"1", "slow")
    lines = [record.getMessage() for record in caplog.records if record.name == "logsrv.audit"]
    assert [re.sub(r", request \S+$", "", line) for line in lines] == [
        "401 POST '/add-job' from 127.0.0.1: there is no such token",
        "403 POST '/add-job' from 127.0.0.1: the token read-token has not the scope write",
        "403 POST '/add-job' from 127.0.0.1: a page from 'http://evil.example' may not use this server"
        " (--cors_origins)",
        f"404 DELETE '/quarantine/{'0' * 24}' from 127.0.0.1 by admin-token",
        "429 POST '/add-job' from 127.0.0.1: the token slow-token is over its requests_per_second",
    ]
    assert not [secret for secret in SECRETS.values() if secret in caplog.text]


# Pages from elsewhere


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:3000"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.gen_test
async def test_no_route_is_for_pages_from_elsewhere(fetch, headers):
    let_in = []
    for method, path, handler in ASKED:
        response = await asked(fetch, method, path, {**bearer(TOKEN_FOR[scope_of(handler, method)]), **headers})
        if response.code != 403 or "Access-Control-Allow-Origin" in response.headers:
            let_in.append((method, path, response.code))
    assert let_in == []


@pytest.mark.gen_test
async def test_a_link_from_elsewhere_leads_to_what_is_open_and_to_nothing_else(fetch):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert (await fetch("/ready", headers=link)).code == 200
    assert (await fetch("/ready", headers={**link, "Sec-Fetch-Dest": "iframe"})).code == 403
    assert (await fetch("/add-job?a=1", headers={**link, **bearer("write")})).code == 403
    assert (await fetch("/sign-out", b"", headers=link)).code == 403


@pytest.mark.gen_test
async def test_a_page_that_is_named_may_ask_first_and_then_send(fetch):
    page = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
    first = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    response = await fetch("/add-jobs", method="OPTIONS", headers=first)
    assert (response.code, response.headers["Access-Control-Allow-Origin"]) == (204, "https://app.example")
    assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
    response = await fetch("/add-jobs", b"[1]", headers={**page, **bearer("write")})
    assert (response.code, response.headers["Access-Control-Allow-Origin"]) == (202, "https://app.example")
    response = await fetch("/add-jobs", b"[1]", headers=page)
    assert (response.code, response.headers["Access-Control-Allow-Origin"]) == (401, "https://app.example")
    evil = await fetch("/add-jobs", method="OPTIONS", headers={**first, "Origin": "https://evil.example"})
    assert evil.code == 403


def test_loopback_is_known():
    assert [is_loopback(address) for address in ("127.0.0.1", "::1", "localhost", "127.8.8.8")] == [True] * 4
    assert [is_loopback(address) for address in ("0.0.0.0", "::", "10.0.0.1", "logs.example", "")] == [False] * 5


# Reading the file again


@pytest.mark.gen_test
async def test_a_file_that_is_wrong_leaves_the_tokens_there_were(fetch, app, tokens_file):
    for content in ("[[token", ""):
        tokens_file.write_text(content)
        if content:
            with pytest.raises(auth.StartError):
                app.gate.reload()
            assert (await fetch("/add-job", b"1", headers=bearer("write"))).code == 202
    app.gate.reload()
    assert (await fetch("/add-job", b"1", headers=bearer("write"))).code == 401


# Signing in


async def sign_in(fetch, name):
    response = await fetch("/sign-in", msgspec.json.encode({"token": SECRETS[name]}))
    assert response.code == 200
    return response.headers["Set-Cookie"]


PAGE = {"X-Logsrv-Page": "1"}


@pytest.mark.gen_test
async def test_a_sign_in_sets_a_strict_cookie_that_stands_for_the_token(fetch, app):
    assert msgspec.json.decode((await fetch("/sign-in")).body) == {"needed": True, "name": None, "scopes": []}
    given = await sign_in(fetch, "read")
    attributes = {part.strip().lower() for part in given.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= attributes
    assert "secure" not in attributes
    assert SECRETS["read"] not in given
    cookie = {"Cookie": given.partition(";")[0]}
    assert (await fetch("/logs", headers=cookie)).code == 200
    shown = msgspec.json.decode((await fetch("/sign-in", headers=cookie)).body)
    assert shown == {"needed": True, "name": "read-token", "scopes": ["read"]}
    assert (await fetch("/add-job", b"1", headers={**cookie, **PAGE})).code == 403


@pytest.mark.gen_test
async def test_what_changes_something_by_a_cookie_needs_a_header_that_no_form_sends(fetch):
    admin = {"Cookie": (await sign_in(fetch, "admin")).partition(";")[0]}
    path = f"/quarantine/{'0' * 24}"
    assert (await fetch(path, method="DELETE", headers=admin)).code == 403
    assert (await fetch(path, method="DELETE", headers={**admin, **PAGE})).code == 404
    write = {"Cookie": (await sign_in(fetch, "write")).partition(";")[0]}
    assert (await fetch("/add-job?a=1", headers=write)).code == 403
    assert (await fetch("/add-job", b"1", headers=write)).code == 403
    assert (await fetch("/add-job", b"1", headers={**write, **PAGE})).code == 202


@pytest.mark.gen_test
async def test_a_cookie_that_is_forged_old_or_of_a_token_that_is_gone_is_none(fetch, app, tokens_file, monkeypatch):
    cookie = (await sign_in(fetch, "read")).partition(";")[0]
    flipped = cookie[:-5] + ("0" if cookie[-5] != "0" else "1") + cookie[-4:]
    for wrong in (flipped, "logsrv=", "logsrv=x", cookie.replace("2|1:", "2|9:")):
        assert (await fetch("/logs", headers={"Cookie": wrong})).code == 401
    now = time.time()
    with monkeypatch.context() as moved:
        moved.setattr(time, "time", lambda: now + 12 * 3600 + 1)
        assert (await fetch("/logs", headers={"Cookie": cookie})).code == 401
    assert (await fetch("/logs", headers={"Cookie": cookie})).code == 200
    tokens_file.write_text(entry("admin", "admin"))
    app.gate.reload()
    assert (await fetch("/logs", headers={"Cookie": cookie})).code == 401


@pytest.mark.gen_test
async def test_a_sign_out_has_the_cookie_forgotten(fetch):
    response = await fetch("/sign-out", b"")
    assert response.code == 204
    assert response.headers["Set-Cookie"].startswith('logsrv="";')


@pytest.mark.gen_test
async def test_a_sign_out_ends_the_sign_in_here_for_whoever_has_the_cookie_also_after_a_restart(fetch, app, caplog):
    caplog.set_level(logging.INFO, logger="logsrv.audit")
    one, other = [{"Cookie": (await sign_in(fetch, "read")).partition(";")[0]} for _ in range(2)]
    assert one != other
    for _ in range(2):
        assert (await fetch("/sign-out", b"", headers=one)).code == 204
    assert [message for message in caplog.messages if "signed out" in message] == [
        "read-token has signed out from 127.0.0.1"
    ]
    app.gate = Gate(app.options)
    assert (await fetch("/logs", headers=one)).code == 401
    assert msgspec.json.decode((await fetch("/sign-in", headers=one)).body)["name"] is None
    assert (await fetch("/logs", headers=other)).code == 200
    assert (await fetch("/logs", headers={"Cookie": (await sign_in(fetch, "read")).partition(";")[0]})).code == 200


@pytest.mark.gen_test
async def test_what_is_no_sign_in_is_not_remembered_as_one_that_has_ended(fetch, app):
    cookie = (await sign_in(fetch, "read")).partition(";")[0]
    for wrong in (cookie[:-4] + "0000", "logsrv=", "logsrv=x", "other=1"):
        assert (await fetch("/sign-out", b"", headers={"Cookie": wrong})).code == 204
    assert len(app.gate._ended) == 0


@pytest.mark.parametrize("body", [b"", b"{", b'{"token":1}', b"[]", b'{"secret":"x"}'])
@pytest.mark.gen_test
async def test_a_sign_in_that_cannot_be_read_is_400(fetch, body):
    assert (await fetch("/sign-in", body)).code == 400


@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.gen_test
async def test_a_sign_in_is_short_so_that_a_stranger_takes_no_memory_that_others_need(fetch, app, coding):
    padded = b'{"token":"%s"%s}' % (SECRETS["read"].encode(), b" " * 3000)
    sent, headers = (gzip.compress, {"Content-Encoding": coding}) if coding else (bytes, {})
    assert (await fetch("/sign-in", sent(padded), headers=headers)).code == 200
    app.room.size = 0
    for size in (5_000, 1_000_000):
        response = await fetch("/sign-in", sent(padded + b" " * size), headers=headers)
        assert (response.code, msgspec.json.decode(response.body)["type"]) == (413, "urn:logsrv:problem:too-large")
        assert b"max_body_bytes" not in response.body


def test_no_route_that_asks_for_no_token_takes_a_large_body():
    takes = [handler for _, _, handler in ASKED if issubclass(handler, BodyHandler)]
    assert {handler for handler in takes if scope_of(handler, "POST") is Scope.OPEN} == {SignInHandler}
    assert SignInHandler.most_bytes < FREE


@pytest.mark.gen_test
async def test_a_wrong_sign_in_is_a_failure_like_others(fetch, app):
    response = await fetch("/sign-in", b'{"token":"wrong"}')
    assert (response.code, app.gate.failures.total) == (401, 1)
    assert "Set-Cookie" not in response.headers


class TestOpen:
    """There are no tokens."""

    @pytest.fixture
    def options(self, options):
        return dataclasses.replace(options, tokens_file="")

    @pytest.mark.gen_test
    async def test_everybody_may(self, fetch, app):
        assert (await fetch("/add-job", b"1", headers={"Authorization": "Bearer any"})).code == 202
        assert (await fetch(f"/quarantine/{'0' * 24}", method="DELETE")).code == 404
        shown = msgspec.json.decode((await fetch("/sign-in")).body)
        assert (shown["needed"], shown["scopes"]) == (False, ["admin", "read", "write"])
        assert (await fetch("/sign-in", b'{"token":"x"}')).code == 404
        assert not (Path(app.options.data_dir) / "session-key").exists()

    @pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
    @pytest.mark.gen_test
    async def test_but_for_pages_from_elsewhere(self, fetch, headers):
        assert (await fetch("/add-job", b"1", headers=headers)).code == 403
        assert (await fetch("/logs", headers=headers)).code == 403


@pytest.mark.gen_test
async def test_a_guess_is_counted_and_told_also_where_nothing_is_needed(fetch, app, caplog):
    caplog.set_level(logging.INFO, logger="logsrv.audit")
    for method in ("GET", "HEAD"):
        response = await fetch("/sign-in", method=method, headers={"Authorization": "Bearer wrong"})
        assert response.code == 401
        assert "401" in caplog.messages[-1]
    assert "wrong" not in caplog.text
    found = await fetch("/metrics", headers=bearer("read"))
    assert b"logsrv_auth_failures_total 2.0" in found.body
