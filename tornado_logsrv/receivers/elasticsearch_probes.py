"""What Elasticsearch's clients ask before they send, and the tongue in which they are answered.

Nothing is set up here: whatever a client looks for is there. For a probe, the source is the client named with it.
"""

import base64
import hashlib
import re
from typing import Any

import msgspec
import tornado.routing
from tornado.httputil import HTTPServerRequest

from .. import errors
from ..auth import Scope
from ..handler import BaseHandler
from ..operations import ANYTHING, COUNT, TEXT, array_of, json_of, named, object_of, operation, table_of

CLUSTER = "logsrv"
#: The version that a client is told of this server, if it does not say its own.
VERSION = "8.19.0"

#: Exception class → status and ``type`` of Elasticsearch's error; the first that fits decides. Clients send again what
#: is answered 429, 502, 503 or 504 (elastic-transport, ``retry_on_status``; Logstash, Filebeat and Fluent Bit what is
#: not 200), and Filebeat and Logstash send what is answered 413 in smaller parts.
_ERRORS: tuple[tuple[type[BaseException], int, str], ...] = (
    (errors.TooLarge, 413, "content_too_long_exception"),
    (errors.UnsupportedMedia, 415, "media_type_header_exception"),
    (errors.Unauthenticated, 401, "security_exception"),
    (errors.Forbidden, 403, "security_exception"),
    (errors.RateLimited, 429, "es_rejected_execution_exception"),
    (errors.QueueFull, 429, "es_rejected_execution_exception"),
    (errors.StoredTimeout, 504, "timeout_exception"),
    (errors.Unavailable, 503, "unavailable_shards_exception"),
    (errors.Unreadable, 400, "parse_exception"),
    (errors.Refused, 400, "illegal_argument_exception"),
)
_VENDOR_TYPE = re.compile(r"application/vnd\.elasticsearch\+json\s*;\s*compatible-with=(\d{1,2})", re.IGNORECASE)
#: What the names of programs have in common that speak to Elasticsearch.
_AGENTS = re.compile(r"elastic|opensearch|beat/|logstash|manticore|fluent|vector/", re.IGNORECASE)
_OWN_VERSION = re.compile(
    r"(?:^|,)es=(\d{1,2}\.\d{1,3}\.\d{1,3})|(?:beat|logstash|elastic\w*-\w+|elastic)/(\d{1,2}\.\d{1,3}\.\d{1,3})",
    re.IGNORECASE,
)


def looks_like_client(request: HTTPServerRequest) -> bool:
    """Whether a request is that of a program that takes this for Elasticsearch, and not of a person or a probe.

    It does not ask for HTML, and it has a header that only Elastic's clients have, or asks for their media type, or
    says the name of one of the programs that write to Elasticsearch.
    """
    headers = request.headers
    accepted = headers.get("Accept", "")
    if "text/html" in accepted:
        return False
    if "X-Elastic-Client-Meta" in headers or "X-Elastic-Product-Origin" in headers:
        return True
    return "vnd.elasticsearch" in accepted or bool(_AGENTS.search(headers.get("User-Agent", "")))


def version_for(request: HTTPServerRequest) -> str:
    """The version of Elasticsearch that suits the client: its own, since Beats refuse one that is older."""
    headers = request.headers
    said = f"{headers.get('X-Elastic-Client-Meta', '')} {headers.get('User-Agent', '')}"
    match = _OWN_VERSION.search(said)
    return (match[1] or match[2]) if match else VERSION


_CAUSE = {"type": TEXT, "reason": TEXT}
ERROR = named(
    "ElasticsearchError",
    object_of(error=object_of(root_cause=array_of(object_of(**_CAUSE)), **_CAUSE), status=COUNT),
)
#: What clients are told, to whom it is enough that there is an answer.
TOLD = json_of(table_of(ANYTHING))


class Matches(tornado.routing.PathMatches):
    """A path, and a client of Elasticsearch: anybody else's request goes on to the routes behind."""

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """What the handler is called with, None when it is not to be."""
        return super().match(request) if looks_like_client(request) else None


class ElasticsearchHandler(BaseHandler):
    """Speaks to Elasticsearch's clients: their media type, their header, their errors."""

    scope = Scope.WRITE
    problem_content = json_of(ERROR)
    # There is nothing of any record in what is answered.
    keeps_bounds = True
    challenge = 'Basic realm="logsrv"'

    def set_default_headers(self) -> None:
        """Clients refuse an answer 2xx without the product's name (elasticsearch-py, _sync/client/_base.py)."""
        super().set_default_headers()
        self.set_header("X-Elastic-Product", "Elasticsearch")

    def answer(self, status: int, value: Any) -> None:
        """Answer ``value`` as JSON, in the media type that was asked for."""
        self.write_json(status, msgspec.json.encode(value))

    def write_json(self, status: int, text: bytes) -> None:
        """Answer JSON ``text``."""
        asked = _VENDOR_TYPE.search(self.request.headers.get("Accept", ""))
        plain = "application/json"
        self.set_status(status)
        vendor = f"application/vnd.elasticsearch+json;compatible-with={asked[1]}" if asked else plain
        self.set_header("Content-Type", vendor)
        self.finish(text)

    def write_problem(self, problem: dict[str, Any], error: BaseException | None) -> None:
        """Answer as Elasticsearch does: ``{"error":{"root_cause":[…],"type":…,"reason":…},"status":…}``."""
        status, kind = problem["status"], "exception"
        for each, known, name in _ERRORS:
            if isinstance(error, each):
                status, kind = known, name
                break
        cause = {"type": kind, "reason": problem.get("detail", problem["title"])}
        self.answer(status, {"error": {"root_cause": [cause], **cause}, "status": status})


class RootHandler(ElasticsearchHandler):
    """Who is there: elasticsearch-py's info() and ping(), Beats, Logstash, Vector."""

    @operation({200: TOLD})
    def get(self) -> None:
        """200 with a name and a version."""
        version = version_for(self.request)
        name = self.application.options.mongo_db.encode()
        uuid = base64.urlsafe_b64encode(hashlib.sha256(name).digest()[:15]).decode()
        about = {
            "number": version,
            "build_flavor": "default",
            "build_type": "tar",
            "build_hash": "unknown",
            "build_date": "2025-01-01T00:00:00.000Z",
            "build_snapshot": False,
            "lucene_version": "9.12.0",
            "minimum_wire_compatibility_version": version,
            "minimum_index_compatibility_version": version,
        }
        answer = {"name": self.application.options.instance_name, "cluster_name": CLUSTER, "cluster_uuid": uuid}
        # Elastic's clients of 7.14 and before look for the tagline.
        self.answer(200, {**answer, "version": about, "tagline": "You Know, for Search"})

    def head(self) -> None:
        """200: Logstash's health check."""
        self.get()


class LicenseHandler(ElasticsearchHandler):
    """Which features there are: Beats and Logstash."""

    @operation({200: TOLD})
    def get(self) -> None:
        """200: the basic ones."""
        about = {"status": "active", "uid": CLUSTER, "type": "basic", "issued_to": CLUSTER, "issuer": CLUSTER}
        self.answer(200, {"license": about})

    head = get


class XpackHandler(ElasticsearchHandler):
    """Which features there are: Logstash and Beats of 7 and before."""

    @operation({200: TOLD})
    def get(self) -> None:
        """200: the basic ones, and index lifecycle management."""
        about = {"uid": CLUSTER, "type": "basic", "mode": "basic", "status": "active"}
        features = {"ilm": {"available": True, "enabled": True}, "security": {"available": True, "enabled": False}}
        self.answer(200, {"build": {}, "license": about, "features": features, "tagline": "You know, for X"})

    head = get


class HealthHandler(ElasticsearchHandler):
    """Vector's health check; rsyslog's asks for ``HEAD /_cat/health`` (omelasticsearch, healthchecktimeout)."""

    @operation({200: TOLD})
    def get(self) -> None:
        """200."""
        counts = dict.fromkeys(("number_of_nodes", "number_of_data_nodes", "active_primary_shards", "active_shards"), 1)
        self.answer(200, {"cluster_name": CLUSTER, "status": "green", "timed_out": False, **counts})

    def head(self) -> None:
        """200."""
        self.get()


class NodesHandler(ElasticsearchHandler):
    """Which nodes there are, for clients that sniff: this one, under the name that the client has used."""

    @operation({200: TOLD})
    def get(self) -> None:
        """200."""
        address = self.request.host
        if not re.search(r":\d+$", address):
            address += ":443" if self.request.protocol == "https" else ":80"
        limit = self.application.options.max_body_bytes
        node = {
            "name": self.application.options.instance_name,
            "version": version_for(self.request),
            "roles": ["data", "ingest", "master"],
            "http": {
                "bound_address": [address],
                "publish_address": address,
                "max_content_length_in_bytes": limit,
            },
        }
        counts = {"total": 1, "successful": 1, "failed": 0}
        self.answer(200, {"_nodes": counts, "cluster_name": CLUSTER, "nodes": {CLUSTER: node}})

    head = get


class SetupHandler(ElasticsearchHandler):
    """Whatever a client wants to be there, or sets up when it is not: it is there, and nothing is set up.

    Beats, Logstash and Fluentd ask for, and put, index templates, lifecycle policies, ingest pipelines, data streams.
    """

    @operation({200: TOLD})
    def get(self, name: str = "") -> None:
        """200: it is there."""
        self.answer(200, self.found(name))

    def head(self, name: str = "") -> None:
        """200: it is there."""
        self.get(name)

    @operation({200: TOLD})
    def put(self, name: str = "") -> None:
        """200: as if it had been set up."""
        self.answer(200, {"acknowledged": True})

    def found(self, name: str) -> dict[str, Any]:
        """What is told of a thing of that name, or of all when ``name`` is empty."""
        return {name: {"version": 1}} if name else {}


class PolicyHandler(SetupHandler):
    """Lifecycle policies."""

    def found(self, name: str) -> dict[str, Any]:
        """One without phases."""
        return {name: {"version": 1, "policy": {"phases": {}}}} if name else {}


class TemplateHandler(SetupHandler):
    """Index templates."""

    def found(self, name: str) -> dict[str, Any]:
        """One that is for nothing."""
        template = {"name": name, "index_template": {"index_patterns": [], "composed_of": []}}
        return {"index_templates": [template] if name else []}


class DataStreamHandler(SetupHandler):
    """Data streams."""

    def found(self, name: str) -> dict[str, Any]:
        """One without indices."""
        stream = {"name": name, "timestamp_field": {"name": "@timestamp"}, "indices": [], "status": "GREEN"}
        return {"data_streams": [stream] if name else []}


class IndexHandler(SetupHandler):
    """An index: whichever it is, it is there."""


ROUTES = [
    ("/_license", LicenseHandler),
    ("/_xpack", XpackHandler),
    ("/_cluster/health", HealthHandler),
    ("/_cat/health", HealthHandler),
    ("/_nodes/http", NodesHandler),
    ("/_nodes/_all/http", NodesHandler),
    ("/_ilm/policy", PolicyHandler),
    ("/_ilm/policy/(?P<name>[^/]+)", PolicyHandler),
    ("/_index_template", TemplateHandler),
    ("/_index_template/(?P<name>[^/]+)", TemplateHandler),
    ("/_template", SetupHandler),
    ("/_template/(?P<name>[^/]+)", SetupHandler),
    ("/_component_template/(?P<name>[^/]+)", SetupHandler),
    ("/_ingest/pipeline/(?P<name>[^/]+)", SetupHandler),
    ("/_data_stream/(?P<name>[^/]+)", DataStreamHandler),
]
#: Before all others, and only for clients of Elasticsearch: whoever else asks for it gets the route behind.
FIRST_ROUTES = [tornado.routing.Rule(Matches("/"), RootHandler)]
#: Behind all others, and only for clients of Elasticsearch: it would fit every path.
LAST_ROUTES = [tornado.routing.Rule(Matches("/(?P<name>[^/_][^/]*)"), IndexHandler)]
