"""``/add-job`` and ``/add-jobs`` as log shippers use them, beyond JSON by POST; and ``/winston``.

    Python's HTTPHandler     a form, or a GET with a query: one record of its fields, which are all texts
    syslog-ng http()         JSON in the name of a form (libcurl's default), by POST or PUT
    pino-http-send           {"logs": […]}, each a record
    rsyslog's omhttp         JSON a line, called text/plain (newline); a JSON array (jsonarray); drops what gets a 429
    Vector http              HEAD as health check, and wants 200
    Winston http             wants exactly 200 for what it sends, and does not try again: that is /winston

Fluent Bit (json, json_stream, json_lines) and Vector send what /add-jobs reads anyway.

Sources: logging/handlers.py of CPython; modules/http/http-worker.c of syslog-ng; send.ts of pino-http-send;
src/sinks/http/config.rs of Vector; lib/winston/transports/http.js; plugins/out_http/http.c of Fluent Bit;
contrib/omhttp/omhttp.c of rsyslog (buildCurlHeaders, checkResult).
"""

import codecs
import json
import urllib.parse
from typing import Any

from ..collector import IdOf
from ..errors import RateLimited, TooLarge
from ..handler import BodyHandler, CollectingHandler, ReceiverHandler
from ..jsonlines import Block
from ..operations import TEXT as STRING
from ..operations import joined, json_of, object_of, one_of, operation, table_of
from . import jobs
from .rsyslog import is_rsyslog

FORM = "application/x-www-form-urlencoded"
#: What omhttp calls its lines of JSON, unless it is told otherwise.
TEXT = "text/plain"
#: Fields of one form; a LogRecord has some 25.
MAX_FIELDS = 10_000
#: In the query of a GET these are for the server, as in any other.
PARAMETERS = ("ack", "key_field")
_FIELDS = {"fields": table_of(STRING)}
_HINT = object_of(message=one_of("Send a job"))
_ADDED = {202: json_of(jobs.ADDED)}
_MANY_ADDED = {202: json_of(jobs.MANY_ADDED)}

_BEFORE_JSON = codecs.BOM_UTF8 + b" \t\r\n"
_ENVELOPE = "/data/logs/"


def form_as_json(form: bytes, but: tuple[str, ...] = ()) -> bytes:
    """The JSON object of a form's fields without those named in ``but``; one that is repeated is an array.

    Bytes that are not UTF-8 become lone surrogates (PEP 383), which jsontext notes. Raises TooLarge.
    """
    text = form.decode("utf-8", "surrogateescape")
    try:
        pairs = urllib.parse.parse_qsl(
            text, keep_blank_values=True, errors="surrogateescape", max_num_fields=MAX_FIELDS
        )
    except ValueError:
        raise TooLarge(f"the form has more than {MAX_FIELDS} fields") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in but:
            fields.setdefault(name, []).append(value)
    return json.dumps({name: values if len(values) > 1 else values[0] for name, values in fields.items()}).encode()


def is_form(content_type: str, begin: bytes) -> bool:
    """Whether a body of this media type that begins so is a form.

    A form's names do not begin with what JSON's arrays, objects and texts do: these are escaped in a form. Many senders
    let libcurl call their JSON a form.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == FORM and begin.lstrip()[:1] not in (b"{", b"[", b'"', b"")


def is_envelope(block: Block) -> bool:
    """Whether ``block`` is one object ``{"logs": [{…}, …]}``, at the beginning of a body."""
    if block.first or block.count != 1 or not block.values:
        return False
    (value,) = block.values
    logs = value.get("logs") if isinstance(value, dict) and len(value) == 1 else None
    return isinstance(logs, list) and bool(logs) and all(isinstance(log, dict) for log in logs)


def unwrapped(envelope: Block) -> Block:
    """The objects of an envelope as the items of a body; the notes go with them."""
    logs: list[Any] = envelope.values[0]["logs"]
    block = Block(0, logs, range(len(logs)))
    for note in envelope.notes.get(0, []):
        number, _, rest = note["path"].removeprefix(_ENVELOPE).partition("/")
        block.notes.setdefault(int(number), []).append(note | {"path": f"/data/{rest}"})
    return block


class WrappedJobs(jobs.Jobs):
    """Jobs that may come as one envelope; NDJSON says of itself that each line is a record."""

    def __init__(self, id_of: IdOf, now_ms: int, ndjson: bool | None = None, key_field: str | None = None) -> None:
        super().__init__(id_of, now_ms, ndjson, key_field)
        self._may_wrap = not ndjson
        self._begin = b""
        self._held: Block | None = None

    def take(self, piece: bytes) -> None:
        """Encode what values ``piece`` completes. Raises Refused."""
        self._begin = self._begin or piece.lstrip(_BEFORE_JSON)[:1]
        super().take(piece)

    def _encode(self, block: Block) -> None:
        """Encode ``block``; what may be an envelope waits until it is known to be all of the body."""
        if self._held is not None and block.count:
            super()._encode(self._held)
            self._held = None
        if self._may_wrap and self._begin == b"{" and is_envelope(block):
            self._held = block
        else:
            super()._encode(block)

    def _ended(self) -> None:
        if self._held is not None:
            super()._encode(unwrapped(self._held))


class _ShipperHandler(CollectingHandler):
    """What both have besides POST, and another answer for rsyslog."""

    @property
    def _query(self) -> bytes:
        """The fields of the query as JSON. Raises TooLarge."""
        return form_as_json(self.request.query.encode("latin-1"), but=PARAMETERS)

    def write_problem(self, problem: dict[str, Any], error: BaseException | None) -> None:
        """Answer with the problem. rsyslog drops for good what gets any 4xx: what may pass is 503 to it."""
        if isinstance(error, RateLimited) and is_rsyslog(self.request):
            problem = problem | {"status": 503}
        super().write_problem(problem, error)

    @operation({200: {}})
    def head(self) -> None:
        """200."""
        self.finish()

    async def put(self) -> None:
        """As POST."""
        await self.post()

    @operation({200: json_of(_HINT), 202: json_of({"anyOf": [jobs.ADDED, jobs.MANY_ADDED]})}, _FIELDS)
    async def get(self) -> None:
        """202 with one record of the query's fields; without any, and without a body, 200 and nothing is taken."""
        if not self._received and self._query == b"{}":
            self.answer(200, {"message": "Send a job"})
        else:
            await self.post()


class JobHandler(_ShipperHandler, jobs.JobHandler):
    """Takes one job: JSON, a form or the query of a GET."""

    media_types = ("application/json", FORM)
    bodies = joined({FORM: table_of(STRING)})

    def take(self, piece: bytes) -> None:
        """Keep a piece of the body: what it is shows when it is there."""
        BodyHandler.take(self, piece)

    @operation(_ADDED)
    async def post(self) -> None:
        """202, with the record's id and how it was acknowledged."""
        self._collector.take(self._json())
        await super().post()

    def _json(self) -> bytes:
        sent = self.body
        if self.request.method == "GET" and not sent:
            return self._query
        return form_as_json(sent) if is_form(self.request.headers.get("Content-Type", ""), sent) else sent


class JobsHandler(_ShipperHandler, jobs.JobsHandler):
    """Takes many jobs: JSON, NDJSON or ``{"logs": […]}``; or one, as a form or the query of a GET."""

    media_types = (*jobs.JobsHandler.media_types, FORM, TEXT)
    bodies = joined({FORM: table_of(STRING), TEXT: STRING})
    collect = WrappedJobs

    def prepare(self) -> None:
        """Raises what CollectingHandler does."""
        super().prepare()
        self._form: bool | None = None

    def take(self, piece: bytes) -> None:
        """Give the collector a piece of the body; a form is kept. Raises Refused."""
        if self._form is None:
            self._form = is_form(self.request.headers.get("Content-Type", ""), piece)
        if self._form:
            BodyHandler.take(self, piece)
        else:
            super().take(piece)

    @operation(_MANY_ADDED)
    async def post(self) -> None:
        """202 with how many were accepted, how many lines are in quarantine, and how it was acknowledged."""
        # Of a body that comes out at its end alone it is only known now what it is.
        self.end_body()
        if self._form:
            self._collector.take(form_as_json(self.body))
        elif self.request.method == "GET" and not self._received:
            self._collector.take(self._query)
        await super().post()


class WinstonHandler(jobs.JobsHandler):
    """``/add-jobs`` for Winston's http transport: it takes any status but 200 for a failure, and retries none."""

    knows_stored_timeout = False
    answer_fields = ReceiverHandler.answer_fields

    @operation({200: json_of(jobs.MANY_ADDED)})
    async def post(self) -> None:
        """200, as /add-jobs answers 202."""
        await super().post()

    def answer(self, status: int, value: Any) -> None:
        """200 where another client gets 202."""
        super().answer(200 if status == 202 else status, value)


ROUTES = [("/add-job", JobHandler), ("/add-jobs", JobsHandler), ("/winston", WinstonHandler)]
#: What the fast lane makes of plain requests.
LANES = {"/add-job": jobs.Job, "/add-jobs": WrappedJobs}
