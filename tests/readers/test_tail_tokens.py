"""A tail goes on no longer than whoever watches may."""

import dataclasses
import json
import logging
import time

import pytest

from tests.tails import Tail, until
from tornado_logsrv import auth, sessions

SECRETS = {name: auth.new_secret() for name in ("watching", "other")}


def entry(name: str, scopes: str = '"read", "write"', more: str = "") -> str:
    digest = auth.digest_of(SECRETS[name])
    return f'[[token]]\nname = "{name}"\nsha256 = "{digest}"\nscopes = [{scopes}]\n{more}\n'


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS[name]}"}


@pytest.fixture
def tokens_file(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(entry("watching") + entry("other"))
    return path


@pytest.fixture
def options(options, tokens_file):
    return dataclasses.replace(options, tokens_file=str(tokens_file))


@pytest.fixture
def tail(app, base_url, http_server):
    """``await tail(headers)``: a watcher that is connected."""
    opened = []

    async def tail(headers):
        opened.append(Tail(base_url, headers=headers))
        await until(lambda: opened[-1].response)
        return opened[-1]

    yield tail
    for each in opened:
        each.close()


@pytest.mark.parametrize(
    "now",
    [
        "",
        entry("watching", '"write"'),
        entry("watching", more='source = "till"'),
        entry("watching", more='tenant = "a"'),
    ],
    ids=["gone", "other scopes", "other source", "other tenant"],
)
@pytest.mark.gen_test
async def test_it_ends_when_its_token_may_no_more_or_see_other_records(fetch, app, tail, tokens_file, caplog, now):
    caplog.set_level(logging.INFO, "logsrv.audit")
    watching, other = await tail(bearer("watching")), await tail(bearer("other"))
    tokens_file.write_text(now + entry("other"))
    app.gate.reload()
    await until(lambda: watching.ended)
    assert "what was watched is ended, GET '/logs/tail' from 127.0.0.1 by watching may not any more" in caplog.messages
    response = await fetch("/add-job", b"1", headers=bearer("other"))
    assert response.code == 202
    await until(lambda: other.ids)
    assert (watching.ids, other.ids, other.ended) == ([], [json.loads(response.body)["id"]], False)
    assert len(app.watch.watchers) == len(app.gate.on_change) == 1


@pytest.mark.gen_test
async def test_it_goes_on_when_the_file_is_read_again_and_may_as_before_or_cannot_be_read(app, tail, tokens_file):
    watching = await tail(bearer("watching"))
    tokens_file.write_text(entry("watching", '"read", "admin"', "requests_per_second = 5"))
    app.gate.reload()
    tokens_file.write_text("[[token")
    with pytest.raises(auth.StartError):
        app.gate.reload()
    watching.close()
    await until(lambda: not app.watch.watchers)
    assert not app.gate.on_change


@pytest.mark.gen_test
async def test_it_ends_with_the_sign_in(fetch, app, tail, monkeypatch):
    response = await fetch("/sign-in", json.dumps({"token": SECRETS["watching"]}).encode())
    cookie = {"Cookie": response.headers["Set-Cookie"].partition(";")[0]}
    lasting, bearing = await tail(cookie), await tail(bearer("watching"))
    now = time.time()
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: now + sessions.SECONDS - 0.2)
        ending = await tail(cookie)
        await until(lambda: ending.ended)
    assert (lasting.ended, bearing.ended) == (False, False)
    assert len(app.watch.watchers) == 2


@pytest.mark.gen_test
async def test_it_ends_with_the_sign_out_of_its_sign_in_and_of_no_other(fetch, app, tail):
    cookies = []
    for _ in range(2):
        response = await fetch("/sign-in", json.dumps({"token": SECRETS["watching"]}).encode())
        cookies.append({"Cookie": response.headers["Set-Cookie"].partition(";")[0]})
    ending, lasting, bearing = [await tail(headers) for headers in (*cookies, bearer("watching"))]
    assert (await fetch("/sign-out", b"", headers=cookies[0])).code == 204
    await until(lambda: ending.ended)
    assert (lasting.ended, bearing.ended) == (False, False)
    assert len(app.watch.watchers) == len(app.gate.on_change) == 2
