"""Clients that read or send slowly, on both transports: bounded memory, an end in time, and nobody else held up."""

import asyncio
import dataclasses
import json
import socket
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from tornado_logsrv import connection, listener
from tornado_logsrv import server as server_module
from tornado_logsrv.room import FREE

MiB = 1024 * 1024
on_both_transports = pytest.mark.parametrize("name", ["httptools", "tornado"])
GET = b"GET /logs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture
def serve(app, monkeypatch):
    @asynccontextmanager
    async def serve(name):
        """The application on a transport, as a function that connects to it."""
        monkeypatch.setattr(app, "options", dataclasses.replace(app.options, transport=name))
        async with AsyncExitStack() as stack:
            server = server_module.http_server(app)
            server.listen(0, "127.0.0.1")

            async def connect():
                sock = socket.socket()
                # A client that does not read takes little of an answer, then.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(server.sockets[0].getsockname())
                reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
                stack.push_async_callback(leave, writer)
                return reader, writer

            connect.server = server
            yield connect
            server.stop()
            await server.close_all_connections()

    return serve


@pytest.fixture
def large(collection):
    """8 MiB of records: more than sockets hold."""
    collection.insert_many([{"message": "x" * MiB} for _ in range(8)])


async def leave(writer):
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def answer(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


async def add(connect):
    reader, writer = await connect()
    writer.write(b"POST /add-job HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}")
    return (await answer(reader))[0]


@pytest.mark.gen_test(timeout=60)
@on_both_transports
async def test_answers_that_are_not_read_take_no_more_than_there_is_for_them(app, serve, large, name):
    app.room.size = 20 * MiB
    async with serve(name) as connect:
        slow = [await connect() for _ in range(2)]
        for _, writer in slow:
            writer.write(GET)
        await until(lambda: app.room.used > 16 * MiB - 2 * FREE)
        reader, writer = await connect()
        writer.write(GET)
        status, problem = await answer(reader)
        assert (status, json.loads(problem)["type"]) == (503, "urn:logsrv:problem:overloaded")
        assert await add(connect) == 202
        for _, writer in slow:
            writer.transport.abort()
        await until(lambda: app.room.used == 0)
        reader, writer = await connect()
        writer.write(GET)
        status, body = await answer(reader)
        assert (status, len(json.loads(body))) == (200, 8)
        await until(lambda: app.room.used == 0)


@pytest.mark.gen_test(timeout=60)
@on_both_transports
async def test_who_does_not_read_is_cut_off_and_who_reads_slowly_is_not(app, serve, large, monkeypatch, name):
    monkeypatch.setattr(listener, "LOOK_SECONDS", 1.0)
    monkeypatch.setattr(listener, "LEAST_BYTES", 1)
    async with serve(name) as connect:
        silent, slow, idle = await connect(), await connect(), await connect()
        silent[1].write(GET)
        slow[1].write(GET)
        await until(lambda: app.room.used > 16 * MiB - 2 * FREE)

        async def read_on():
            while len(await slow[0].read(100_000)) and connect.server.count() > 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        await asyncio.wait_for(read_on(), 30)
        assert connect.server.count() == 2
        # What is in its kernel's buffer may still come; the end is a reset, or the end.
        with suppress(ConnectionError):
            while await silent[0].read(MiB):
                pass
        idle[1].write(b"GET /queue-size HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert (await answer(idle[0]))[0] == 200


@pytest.mark.gen_test
async def test_what_was_taken_is_answered_though_there_is_no_room_for_the_answer(app, fetch):
    app.room.size = 0
    body = b"".join(b'{"create":{}}\n{"n":%d}\n' % n for n in range(1000))
    answer = await fetch("/_bulk", body[: FREE // 2], headers={"Content-Type": "application/x-ndjson"})
    assert answer.code == 200
    assert len(answer.body) > FREE
    assert app.unsettled == len(json.loads(answer.body)["items"])


def start_of_body(size):
    return (
        b"POST /add-job HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % size + b"[" + b" " * (size - 100)
    )


@pytest.mark.gen_test(timeout=60)
@on_both_transports
async def test_bodies_that_never_end_take_no_more_than_there_is_for_them(app, serve, monkeypatch, name):
    monkeypatch.setattr(connection, "FAST_WAITING", 2 * MiB)
    app.room.size = 4 * MiB
    async with serve(name) as connect:
        # On httptools the fast lane waits for two of them.
        slow = [await connect() for _ in range(12)]
        for _, writer in slow:
            writer.write(start_of_body(MiB))
        await until(lambda: app.room.used > 2 * MiB)
        await asyncio.gather(*(writer.drain() for _, writer in slow))
        assert app.room.used <= 4 * MiB
        assert await add(connect) == 202
        reader, writer = await connect()
        writer.write(start_of_body(MiB) + b" " * 99 + b"]")
        await writer.drain()
        status, problem = await answer(reader)
        assert (status, json.loads(problem)["type"]) == (503, "urn:logsrv:problem:overloaded")
        for _, writer in slow:
            writer.transport.abort()
        await until(lambda: app.room.used == 0 and getattr(connect.server, "awaited", 0) == 0)
        reader, writer = await connect()
        writer.write(start_of_body(MiB) + b" " * 98 + b"]")
        await writer.drain()
        assert (await answer(reader))[0] == 202
