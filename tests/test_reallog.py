"""A real log, line by line over HTTP, into MongoDB."""

import http.client
import json
from pathlib import Path

from .process import eventually, running

LOG = Path(__file__).parent / "data" / "dpkg.log"


def test_every_line_of_a_real_log_is_in_mongodb_and_in_order(servers, database, prefix, collection, tmp_path):
    lines = LOG.read_text(encoding="utf-8").splitlines()
    options = [f"--mongo_url={servers.mongo_url}", f"--mongo_db={database.name}", f"--redis_url={servers.redis_url}"]
    options += ["--port=0", f"--redis_prefix={prefix}", f"--data_dir={tmp_path / 'data'}", "--flush_interval_ms=200"]
    with running(*options, log=tmp_path / "log") as process:
        connection = http.client.HTTPConnection(process.url.removeprefix("http://"))
        for line in lines:
            connection.request("POST", "/add-job", json.dumps(line), {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            assert response.status == 202
        connection.close()
        eventually(lambda: process.get("/queue-size")["queueSize"] == 0, "all is stored")
        stored = [document["data"] for document in collection.find().sort([("timestamp", 1), ("_id", 1)])]
        assert stored == lines
        newest = process.get("/logs?limit=10")
        assert [record["data"] for record in newest] == lines[:-11:-1]
