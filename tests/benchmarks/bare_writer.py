"""The least pymongo can do with records: ``bulk_write`` of 1000 after 1000 prepared documents.

``python -m tests.benchmarks.bare_writer URL DATABASE LIKE COUNT`` writes COUNT records into the collection ``logs`` of
DATABASE, indexed as that of the database LIKE, and prints ``wrote in … s``.
"""

import gc
import sys
import time
from typing import Any

import pymongo
from bson.raw_bson import RawBSONDocument
from pymongo import InsertOne, WriteConcern

from . import samples


def _copy_indexes(source: Any, target: Any) -> None:
    for name, index in source.index_information().items():
        if name != "_id_":
            keys, more = index.pop("key"), {key: value for key, value in index.items() if key not in ("v", "ns")}
            target.create_index(keys, name=name, **more)


def main(url: str, database: str, like: str, count: int) -> None:
    """Prepare, write, tell."""
    with pymongo.MongoClient[Any](url) as client:
        logs = client[database].get_collection("logs", write_concern=WriteConcern("majority", j=True))
        _copy_indexes(client[like]["logs"], logs)
        prepared = [
            [InsertOne(RawBSONDocument(record)) for record in batch]
            for batch in samples.batches(samples.encoded(count))
        ]
        # What is prepared is not the loop's doing, so the garbage collector does not walk it.
        gc.collect()
        gc.freeze()
        began = time.perf_counter()
        for batch in prepared:
            logs.bulk_write(batch, ordered=False)
        print(f"wrote in {time.perf_counter() - began} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
