"""The backup on the real Redis server, and on files when it is away."""

import collections
import json

import bson
import pytest

from tornado_logsrv import backup as backups
from tornado_logsrv import jsontext, records
from tornado_logsrv.backup import Backup
from tornado_logsrv.queues import RecordQueue
from tornado_logsrv.segments import Segments
from tornado_logsrv.spool import Spool
from tornado_logsrv.streams import RecordStream, connect

ANY = 1 << 30
AWAY = "redis://127.0.0.1:9"


IDS = records.Ids()


def job(value):
    return records.encode_job(*jsontext.read(json.dumps(value).encode()), IDS.next(), 1_700_000_000_000)


def values(queue):
    return [bson.decode(record)["data"] for _, record in queue.unstored()]


@pytest.fixture
def start(servers, prefix, tmp_path, io_loop):
    """``start()``: queue and backup as a new process has them."""
    clients = []

    def start(url=servers.redis_url, max_bytes=ANY, spool_bytes=0):
        queue = RecordQueue(collections.deque(), max_bytes)
        clients.append(connect(url))
        segments = Segments(tmp_path, "one")
        stream = RecordStream(clients[-1], prefix, "one")
        return queue, Backup(stream, segments, Spool(segments, spool_bytes), queue)

    yield start
    for client in clients:
        io_loop.run_sync(client.aclose)


async def recover(queue, backup):
    """How many records are read back."""
    await backup.find()
    await backup.filled()
    return len(queue)


async def store_all(queue, backup):
    while len(queue):
        queue.confirm(queue.take(len(queue), ANY))
        await trimmed(backup)


async def trimmed(backup):
    backup.trim()
    for task in (backup._filling, backup._trimming):
        if task:
            await task


@pytest.mark.gen_test
async def test_a_dump_is_read_back_in_order_and_leaves_when_it_is_stored(start, prefix, redis_client):
    queue, backup = start()
    queue.offer([job(n) for n in range(5000)])
    await backup.dump()
    key = f"{prefix}:backup:one"
    assert redis_client.xlen(key) > 1
    queue, backup = start()
    assert await recover(queue, backup) == 5000
    assert values(queue) == list(range(5000))
    assert redis_client.xlen(key) > 1
    await store_all(queue, backup)
    assert redis_client.xlen(key) == 0


@pytest.mark.gen_test
async def test_what_is_held_already_is_not_dumped_again_and_what_was_put_back_stays_held(start, prefix, redis_client):
    queue, backup = start()
    queue.offer([job(n) for n in range(4)])
    await backup.dump()
    queue, backup = start()
    await recover(queue, backup)
    queue.offer([job("new")])
    queue.confirm(queue.take(3, ANY), [1])
    await trimmed(backup)
    await backup.dump()
    assert redis_client.xlen(f"{prefix}:backup:one") == 2
    queue, backup = start()
    await recover(queue, backup)
    assert values(queue) == [0, 1, 2, 3, "new"]


@pytest.mark.gen_test
async def test_without_redis_the_dump_is_a_file_that_mongorestore_could_read(start, tmp_path):
    queue, backup = start(AWAY)
    queue.offer([job(n) for n in range(3)])
    await backup.dump()
    (path,) = tmp_path.glob("backup-one-*.bson")
    assert [document["data"] for document in bson.decode_all(path.read_bytes())] == [0, 1, 2]
    assert path.stat().st_mode & 0o777 == 0o600
    queue, backup = start()
    assert await recover(queue, backup) == 3
    assert path.exists()
    await store_all(queue, backup)
    assert not path.exists()


@pytest.mark.gen_test
async def test_redis_failing_in_the_middle_of_a_dump_loses_nothing(start, tmp_path, monkeypatch):
    monkeypatch.setattr(backups, "ENTRY_BYTES", 200)
    monkeypatch.setattr(backups, "ROUND_TRIP_ENTRIES", 2)
    queue, backup = start()
    queue.offer([job(n) for n in range(20)])
    append, calls = backup._stream.append, []

    async def fails_later(entries):
        calls.append(entries)
        if len(calls) == 3:
            raise ConnectionResetError("gone")
        return await append(entries)

    backup._stream.append = fails_later
    await backup.dump()
    queue, backup = start()
    count = await recover(queue, backup)
    assert (count, sorted(values(queue))) == (20, list(range(20)))


@pytest.mark.gen_test
async def test_redis_away_at_start_is_said_once_and_read_back_later(start, servers, caplog):
    queue, backup = start()
    queue.offer([job(1)])
    await backup.dump()
    queue, backup = start(AWAY)
    assert await backup.find() is False
    assert await backup.find() is False
    assert len([r for r in caplog.records if "cannot be used" in r.message]) == 1
    await backup._stream._redis.aclose()
    backup._stream._redis = start()[1]._stream._redis
    assert await recover(queue, backup) == 1


@pytest.mark.gen_test
async def test_entries_of_one_record_are_let_go_of_by_the_thousand(start, prefix, redis_client):
    _, backup = start()
    await backup._stream.append([[job(n)] for n in range(2500)])
    queue, backup = start()
    assert await recover(queue, backup) == 2500
    assert len(backup._old.holdings) == 3
    left = []
    for count in (999, 1, 1500):
        queue.confirm(queue.take(count, ANY))
        await trimmed(backup)
        left.append(redis_client.xlen(f"{prefix}:backup:one"))
    assert left == [2500, 1500, 0]


@pytest.mark.gen_test
async def test_trimming_is_tried_again_when_redis_is_back(start, servers, prefix, redis_client):
    queue, backup = start()
    queue.offer([job(1)])
    await backup.dump()
    queue, backup = start()
    await recover(queue, backup)
    good, backup._stream._redis = backup._stream._redis, connect(AWAY)
    await store_all(queue, backup)
    assert redis_client.xlen(f"{prefix}:backup:one") == 1
    await backup._stream._redis.aclose()
    backup._stream._redis = good
    await trimmed(backup)
    assert redis_client.xlen(f"{prefix}:backup:one") == 0


@pytest.mark.gen_test
async def test_a_damaged_entry_is_kept_aside_and_costs_no_other(start, prefix, redis_client, caplog):
    key = f"{prefix}:backup:one"
    redis_client.xadd(key, {"r": job(1)})
    redis_client.xadd(key, {"r": b"no bson at all"})
    redis_client.xadd(key, {"other": b"field"})
    redis_client.xadd(key, {"r": job(2)})
    queue, backup = start()
    await recover(queue, backup)
    assert values(queue) == [1, 2]
    assert redis_client.xlen(f"{key}:damaged") == 2
    assert caplog.text.count("damaged (") == 2


@pytest.mark.gen_test
async def test_a_file_cut_off_by_a_crash_gives_what_it_has_whole(start, tmp_path):
    whole = job(1) + job(2)
    (tmp_path / "backup-other-1.bson.part").write_bytes(whole + job(3)[:-5])
    queue, backup = start()
    assert await recover(queue, backup) == 2
    assert values(queue) == [1, 2]


@pytest.mark.gen_test
async def test_a_damaged_file_gives_what_stands_before_and_stays(start, tmp_path, caplog):
    path = tmp_path / "backup-one-1.bson"
    path.write_bytes(job(1) + b"\0\0\0\0 nonsense")
    queue, backup = start()
    assert await recover(queue, backup) == 1
    assert path.samefile(f"{path}.damaged")
    assert "is damaged" in caplog.text


@pytest.mark.gen_test
async def test_files_are_read_back_oldest_first_and_across_blocks(start, tmp_path, monkeypatch):
    monkeypatch.setattr("tornado_logsrv.segments._READ_BYTES", 50)
    (tmp_path / "backup-b-2.bson").write_bytes(job(3) + job(4))
    (tmp_path / "backup-a-10.bson").write_bytes(job(5))
    (tmp_path / "backup-c-1.bson").write_bytes(job(1) + job(2))
    queue, backup = start()
    assert await recover(queue, backup) == 5
    assert values(queue) == [1, 2, 3, 4, 5]


@pytest.mark.gen_test
async def test_what_a_replica_numbers_lower_is_not_trimmed_with_what_its_primary_had(
    start, redis_client, prefix, monkeypatch
):
    """Given entries that a failover lost, when they are stored, then what was appended since stays until it is, too."""
    monkeypatch.setattr(backups, "HOLD_RECORDS", 1)
    queue, backup = start()
    await backup.find()
    key = f"{prefix}:backup:one"
    for entry, value in ((b"200-7", 1), (b"200-10", 2), (b"150-0", 3), (b"150-1", 4)):
        if not entry.startswith(b"200"):
            redis_client.xadd(key, {b"r": job(value)}, id=entry)
        place = queue.next_place
        queue.restore([job(value)])
        backup.hold(entry, place, queue.next_place)
    for left in (2, 2, 1, 0):
        queue.confirm(queue.take(1, ANY))
        await trimmed(backup)
        assert redis_client.xlen(key) == left
