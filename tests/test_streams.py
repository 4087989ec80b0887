"""Appending to the real Redis server, by every kind of URL, and what happens when the connection does not live on."""

import asyncio
import os
import signal
import ssl
from pathlib import Path

import pytest
import redis.exceptions
import tornado.test
from tornado.testing import bind_unused_port

from tornado_logsrv import embedded, records, streams
from tornado_logsrv.errors import StartError
from tornado_logsrv.streams import FAILURES, RecordStream, connect

CERTIFICATES = Path(tornado.test.__file__).parent
ENTRIES = [[records.encode_job(n, [], bytes(11) + b"%d" % n, 0)] for n in range(3)]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://u:hunter2@h?nothing=hunter2", "nothing"),
        ("redis://h?ssl_ca_certs=/ca.pem", "ssl_ca_certs"),
        ("redis+sentinel://u:hunter2@h/service?nothing=1&sentinel_password=hunter2", "nothing"),
        ("redis://h:port", "Port could not be cast"),
    ],
)
def test_a_url_that_is_none_is_named_and_its_password_is_not(url, said):
    with pytest.raises(StartError, match=f"^--redis_url: .*{said}") as wrong:
        connect(url)
    assert "hunter2" not in str(wrong.value)


@pytest.fixture
def own_redis(tmp_path, io_loop):
    """A server of this test's own, running, and its ``url``."""
    child, url = embedded.redis(tmp_path)
    child.url = url
    io_loop.run_sync(child.start)
    yield child
    io_loop.run_sync(child.stop)


@pytest.fixture
def opened(io_loop):
    """``opened(url)``: a client, closed at the end."""
    clients = []

    def opened(url):
        clients.append(connect(url))
        return clients[-1]

    yield opened
    for client in clients:
        io_loop.run_sync(client.aclose)


@pytest.fixture
def tcp(own_redis, io_loop):
    """A password, an ACL user and a TCP port for a server of this test's own; the port."""

    async def configure():
        client = connect(own_redis.url)
        await client.acl_setuser("logger", enabled=True, passwords=["+p@ss:word/1"], keys=["*"], categories=["+@all"])
        await client.config_set("port", port)
        await client.config_set("requirepass", "s3cret")
        await client.aclose()

    probe, port = bind_unused_port()
    probe.close()
    io_loop.run_sync(configure)
    return port


async def appended(client, prefix):
    """Append one entry, then several, and read all of them back."""
    stream = RecordStream(client, prefix, "one")
    ids = [*await stream.append(ENTRIES[:1]), *await stream.append(ENTRIES[1:])]
    assert await stream.read(None, ids[-1], 10) == list(zip(ids, ENTRIES, strict=True))


@pytest.mark.gen_test
async def test_by_a_unix_socket(opened, servers, prefix):
    await appended(opened(servers.redis_url), prefix)


@pytest.mark.gen_test
async def test_by_a_database_number(opened, own_redis, prefix):
    client = opened(f"{own_redis.url}?db=3")
    await appended(client, prefix)
    assert await opened(own_redis.url).dbsize() == 0
    assert await client.dbsize() == 1


@pytest.mark.gen_test
async def test_by_tcp_with_a_password(opened, tcp, prefix):
    await appended(opened(f"redis://:s3cret@127.0.0.1:{tcp}/1"), prefix)


@pytest.mark.gen_test
async def test_by_tcp_as_an_acl_user(opened, tcp, prefix):
    client = opened(f"redis://logger:p%40ss%3Aword%2F1@127.0.0.1:{tcp}")
    await appended(client, prefix)
    assert await client.acl_whoami() == "logger"


@pytest.mark.gen_test
async def test_a_wrong_password_is_a_failure_that_does_not_tell_it(opened, tcp, prefix):
    with pytest.raises(FAILURES) as failure:
        await RecordStream(opened(f"redis://:wr0ng@127.0.0.1:{tcp}"), prefix, "one").append(ENTRIES)
    assert "wr0ng" not in str(failure.value)


@pytest.mark.gen_test
async def test_by_tls(opened, tcp, prefix):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "test.crt", CERTIFICATES / "test.key")

    async def pass_on(reader, writer):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def relay(reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", tcp)
        await asyncio.gather(pass_on(reader, inner_writer), pass_on(inner_reader, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    trust = f"ssl_ca_certs={CERTIFICATES / 'test.crt'}&ssl_check_hostname=false"
    client = opened(f"rediss://:s3cret@127.0.0.1:{port}?{trust}")
    await appended(client, prefix)
    with pytest.raises(FAILURES, match="certificate verify failed"):
        await RecordStream(opened(f"rediss://:s3cret@127.0.0.1:{port}"), prefix, "one").append(ENTRIES)
    await client.aclose()
    server.close()


@pytest.mark.gen_test
async def test_a_connection_that_was_closed_meanwhile_is_opened_again(opened, servers, prefix):
    client = opened(servers.redis_url)
    stream = RecordStream(client, prefix, "one")
    await stream.append(ENTRIES[:1])
    mine = (await client._kept.retry.call_with_retry(lambda: client_id(client._kept), None)).decode()
    await client.client_kill_filter(_id=mine)
    await stream.append(ENTRIES[1:])
    assert await stream.length() == 3


async def client_id(connection):
    await connection.send_command("CLIENT", "ID")
    return b"%d" % await connection.read_response()


@pytest.mark.gen_test
async def test_a_server_that_was_started_again_is_found(opened, own_redis, prefix):
    stream = RecordStream(opened(own_redis.url), prefix, "one")
    await stream.append(ENTRIES[:1])
    os.kill(own_redis.pid, signal.SIGKILL)
    await own_redis.stop()
    with pytest.raises(FAILURES):
        await stream.append(ENTRIES[1:2])
    await own_redis.start()
    await stream.append(ENTRIES[2:])
    assert await stream.length() == 2


@pytest.mark.gen_test
async def test_a_server_that_does_not_answer_is_given_up(opened, own_redis, prefix, monkeypatch):
    stream = RecordStream(opened(own_redis.url), prefix, "one")
    await stream.append(ENTRIES[:1])
    monkeypatch.setattr(streams, "_ANSWER_SECONDS", 0.05)
    os.kill(own_redis.pid, signal.SIGSTOP)
    try:
        with pytest.raises(redis.exceptions.TimeoutError, match="does not answer"):
            await stream.append(ENTRIES[1:2])
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)
    monkeypatch.undo()
    # What it still did of the one that was given up is not the answer to this one.
    ids = await stream.append(ENTRIES[2:])
    assert (await stream.read(None, ids[0], 10))[-1] == (ids[0], ENTRIES[2])


@pytest.mark.gen_test
async def test_an_append_that_is_cancelled_leaves_no_answer_to_the_next(opened, servers, prefix):
    stream = RecordStream(opened(servers.redis_url), prefix, "one")
    await stream.append(ENTRIES[:1])
    first = asyncio.ensure_future(stream.append(ENTRIES[1:2]))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    ids = await stream.append(ENTRIES[2:])
    assert (await stream.read(None, ids[0], 10))[-1] == (ids[0], ENTRIES[2])


@pytest.mark.gen_test
async def test_what_redis_refuses_is_a_failure_and_the_next_goes_on(opened, servers, prefix):
    client = opened(servers.redis_url)
    await client.set(f"{prefix}:backup:one", "no stream")
    stream = RecordStream(client, prefix, "one")
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        await stream.append(ENTRIES)
    await client.delete(f"{prefix}:backup:one")
    assert len(await stream.append(ENTRIES)) == 3


@pytest.mark.gen_test
async def test_two_at_once_do_not_share_a_connection(opened, servers, prefix):
    client = opened(servers.redis_url)
    one, other = (RecordStream(client, prefix, name) for name in ("one", "other"))
    await asyncio.gather(*(stream.append(ENTRIES) for stream in (one, other) for _ in range(10)))
    assert (await one.length(), await other.length()) == (30, 30)
