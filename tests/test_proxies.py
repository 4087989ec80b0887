"""proxies.py: whose X-Forwarded-For is believed, and where the address that it gives goes."""

import dataclasses
import json
import logging

import pytest

from tornado_logsrv import auth
from tornado_logsrv.config import networks
from tornado_logsrv.proxies import Proxies

PROXIES = Proxies(networks("10.0.0.0/8, 192.0.2.7, fd00::/16"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.1", "203.0.113.9", "198.51.100.1"),
        ("10.1.2.3", "203.0.113.9", "203.0.113.9"),
        ("::ffff:10.1.2.3", "203.0.113.9", "203.0.113.9"),
        ("fd00::1", "2001:db8::5", "2001:db8::5"),
        ("10.1.2.3", "1.1.1.1, 203.0.113.9", "203.0.113.9"),
        ("10.1.2.3", "1.1.1.1, 203.0.113.9, 192.0.2.7", "203.0.113.9"),
        ("10.1.2.3", "", "10.1.2.3"),
        ("10.1.2.3", "unknown", "10.1.2.3"),
        ("10.1.2.3", "203.0.113.9, 203.0.113.10:80", "10.1.2.3"),
        ("10.1.2.3", "10.9.9.9", "10.9.9.9"),
        ("", "203.0.113.9", ""),
    ],
)
def test_the_client_is_the_last_that_is_no_balancer(peer, forwarded, client):
    assert PROXIES.client(peer, forwarded) == client


def test_without_balancers_nobody_is_believed():
    nobody = Proxies(networks(""))
    assert not nobody
    assert nobody.client("127.0.0.1", "203.0.113.9") == "127.0.0.1"


SECRET = auth.new_secret()
GUESS = {"Authorization": "Bearer wrong", "X-Forwarded-For": "1.1.1.1, 203.0.113.9", "X-Forwarded-Proto": "https"}


class TestServer:
    @pytest.fixture(params=[True, False], ids=["of a balancer", "of anybody"])
    def believed(self, request):
        return request.param

    @pytest.fixture
    def options(self, options, believed, tmp_path):
        tokens = tmp_path / "tokens.toml"
        tokens.write_text(f'[[token]]\nname = "all"\nsha256 = "{auth.digest_of(SECRET)}"\nscopes = ["write", "read"]\n')
        proxies = networks("127.0.0.1" if believed else "192.0.2.1")
        return dataclasses.replace(
            options, tokens_file=str(tokens), trusted_proxies=proxies, request_log="yes", log_format="json"
        )

    @pytest.fixture
    def client(self, believed):
        return "203.0.113.9" if believed else "127.0.0.1"

    @pytest.mark.gen_test
    async def test_wrong_secrets_are_counted_and_audited_by_the_clients_address(self, fetch, app, client, caplog):
        caplog.set_level(logging.WARNING, "logsrv.audit")
        assert (await fetch("/logs", headers=GUESS)).code == 401
        assert f"from {client}: " in caplog.text
        # The second failure of one address waits longer than the first of another.
        assert app.gate.failures.count(client) > app.gate.failures.count("198.51.100.1")

    @pytest.mark.gen_test
    async def test_the_request_log_has_it_on_both_ways(self, fetch, app, client, capsys):
        headers = {**GUESS, "Authorization": f"Bearer {SECRET}"}
        for path, body in (("/logs", None), ("/add-job", b"1"), ("/add-job", b"2")):
            assert (await fetch(path, body, headers=headers)).code in (200, 202)
        app.look()
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if '"logsrv.request"' in line]
        assert [line["address"] for line in lines] == [client] * 3

    @pytest.mark.gen_test
    async def test_a_cookie_is_for_https_alone_where_the_client_speaks_it(self, fetch, believed):
        body = json.dumps({"token": SECRET}).encode()
        signed_in = await fetch("/sign-in", body, headers={"X-Forwarded-Proto": "https"})
        assert ("Secure" in signed_in.headers["Set-Cookie"]) == believed
