"""Every bar, in one place: what the ratios are to be. Those of a row without one here are for the reader to judge."""

from .rows import at_least, at_most

#: POST /add-job on Tornado's own transport, beside a bare Tornado handler.
REQUESTS = at_least(0.8)
#: Records stored a second while requests are not the limit, beside a bare pymongo loop.
STORED = at_least(0.95)
#: Records stored a second by the server that has a queue full of them after an outage, beside the same loop.
DRAINED = at_least(0.9)
#: Memory of a queued record of 170 bytes, beside its BSON size.
MEMORY = at_most(1.6)
#: Most memory while a queue is dumped or read back, beside the queue's own.
DUMP_MEMORY = at_most(1.2)
#: The time of ten times the records, beside ten times the time: linear, with room for noise.
LINEAR = at_most(1.25)
#: The issue says flat; this is what we take that to be.
FLAT = at_most(1.5)
#: Requests a second at ack=journal, beside ack=memory: one record a request on 32 connections and more; 1000 a request.
JOURNAL = at_least(0.7)
JOURNAL_BATCH = at_least(0.9)
#: The first page of a query on an indexed field, and a histogram of an hour, beside the bare motor call.
SEARCH = at_most(2)
#: The page's first paint, beside a second; a frame in a hundred while it is scrolled, beside one of plain text.
PAINT = at_most(1)
SMOOTH = at_most(2)
#: Records a second at 1000 a request, beside the same as NDJSON to /add-jobs.
OTLP_PROTOBUF = at_least(0.4)
LOKI_JSON = at_least(0.7)
BULK = at_least(0.7)
