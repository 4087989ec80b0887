"""Whatever stands in the head of a request, no answer to it is a 500."""

import asyncio
import dataclasses
import ipaddress

import pytest

from tornado_logsrv import auth

NAMES = (
    "Accept", "Accept-Encoding", "Authorization", "Connection", "Content-Encoding", "Content-Type", "Cookie",
    "DD-API-KEY", "Expect", "Idempotency-Key", "If-Modified-Since", "If-None-Match", "Last-Event-ID", "Origin", "Range",
    "Sec-Fetch-Site", "User-Agent", "X-Elastic-Client-Meta", "X-Forwarded-For", "X-Forwarded-Proto", "X-Request-Id",
    "X-Scope-OrgID", "X-Splunk-Request-Channel",
)  # fmt: skip
VALUES = (
    "", '"', ";", "=", ";;;q=", "a/b;q=abc", "\xff\xfe\x80", "x" * 3000, "[", "http://[", "http://[::1", "http://a]b",
    "//", "null", "%ff", "bytes=--", 'logsrv="', "logsrv=2|1:0|x", 'a=b;;;=;"', "Bearer \xff", "Basic ////",
    "ApiKey =", "application/openmetrics-text; version=abc", 'text/plain; version="1.0.0"', "-1", "1e999",
    'application/json; charset="', "application/vnd.elasticsearch+json; compatible-with=999", "gzip, gzip",
    "multipart/form-data; boundary=", "es=999.999.999", 'W/"', "a,b,,,", "1.2.3.4:99", "::ffff:1.2.3.4%eth0",
)  # fmt: skip
REQUESTS = (
    ("GET", "/metrics"), ("GET", "/logs"), ("GET", "/sign-in"), ("GET", "/"), ("GET", "/static/x"),
    ("POST", "/add-jobs"), ("POST", "/_bulk"), ("POST", "/v1/logs"), ("POST", "/services/collector"),
    ("POST", "/loki/api/v1/push"), ("POST", "/gelf"), ("POST", "/api/v2/logs"),
)  # fmt: skip
SECRET = auth.new_secret()


@pytest.fixture
def options(options, tmp_path, monkeypatch):
    # Wrong secrets are among the values.
    monkeypatch.setattr(auth, "LONGEST_DELAY", 0.0)
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[[token]]\nname = "a"\nsha256 = "{auth.digest_of(SECRET)}"\nscopes = ["read", "write"]\n')
    networks = (ipaddress.ip_network("127.0.0.1"),)
    return dataclasses.replace(options, tokens_file=str(tokens), trusted_proxies=networks)


async def status(port: int, method: str, path: str, name: str, value: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    fields = {"Host": "127.0.0.1", "Connection": "close", "Authorization": f"Bearer {SECRET}", "Content-Length": "2"}
    lines = [f"{method} {path} HTTP/1.1", *(f"{each}: {given}" for each, given in {**fields, name: value}.items())]
    writer.write("\r\n".join([*lines, "", "{}"]).encode("latin-1"))
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test(timeout=120)
async def test_a_field_of_any_value_is_no_fault_of_the_server(http_server, http_port, app, name):
    failed = []
    for number, value in enumerate(VALUES):
        # Each with a third of them: all would take minutes. What one route alone reads is tested there.
        for method, path in REQUESTS[(number + len(name)) % 3 :: 3]:
            answered = await status(http_port, method, path, name, value)
            failed += [(method, path, value[:40])] * (answered >= 500)
    assert failed == []
