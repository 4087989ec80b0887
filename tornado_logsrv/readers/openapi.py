"""``GET /openapi.json``: what this server answers, as OpenAPI 3.1, made from the routes and their handlers."""

import functools
import http
import inspect
import itertools
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from .. import __version__, operations, problems
from ..auth import KEY_HEADER, Scope
from ..errors import Forbidden, Overloaded, RateLimited, TooManyConnections, Unauthenticated
from ..handler import BaseHandler, BodyHandler, methods
from ..operations import ANYTHING, TEXT, Content, Operation, Schema, json_of, one_of, open_object, operation
from ..sessions import COOKIE

Document = dict[str, Any]
Routes = Sequence[tuple[str, type[BaseHandler]]]

_DESCRIPTION = """\
A log server: takes records by HTTP and stores them in MongoDB. Without a tokens file nobody is asked for a token.
Every path answers OPTIONS; an error has a header X-Request-Id, which names it in the server's log. What clients of
Elasticsearch alone are answered, on / and /{index}, is not in here."""
#: A group of a route's pattern, with its name and what it may be.
_GROUP = re.compile(r"\(\?P<(\w+)>([^()]*)\)")
#: The last sentence of many docstrings, which is for who reads the code.
_RAISES = re.compile(r"\s*Raises [^.]*\.")
_SECURITY: Mapping[str, Document] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "The token as the password, with any user name."},
    "splunk": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "Splunk and the token."},
    "datadog": {"type": "apiKey", "in": "header", "name": KEY_HEADER, "description": "The token alone."},
    "page": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "What /sign-in gives."},
}
_PROBLEM: Schema = operations.named(
    "Problem",
    open_object(
        {
            "detail": TEXT,
            "parameter": {"type": "string", "description": "of bad-parameter: which one"},
            "column": {"type": "integer", "description": "of bad-parameter: where in it, from 1"},
            "nearest": {"type": "string", "description": "of bad-parameter: what is allowed, and may be meant"},
        },
        type=TEXT,
        title=TEXT,
        status={"type": "integer"},
        instance=TEXT,
    ),
)


def document(routes: Routes) -> Document:
    """The document for ``routes``."""
    named: dict[str, Any] = {}
    paths: dict[str, Document] = {}
    for pattern, handler in routes:
        path = _GROUP.sub(r"{\1}", pattern)
        paths[path] = {
            method.lower(): _hoisted(_operation(method, path, handler), named) for method in methods(handler)
        }
        paths[path]["parameters"] = [
            _parameter("path", name, {"type": "string", "pattern": f"^{allowed}$"}, required=True)
            for name, allowed in _GROUP.findall(pattern)
        ]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tornado_logsrv",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [_tag(module) for module in dict.fromkeys(handler.__module__ for _, handler in routes)],
        "paths": paths,
        "components": {"schemas": named, "securitySchemes": _SECURITY},
    }


def _tag(module: str) -> Document:
    return {"name": module.rpartition(".")[2], "description": _markdown(inspect.getdoc(sys.modules[module]) or "")}


def _markdown(docstring: str) -> str:
    """The first paragraph, for who reads the document and not the code."""
    return _RAISES.sub("", docstring.partition("\n\n")[0]).replace("``", "`").replace("\n", " ").strip()


def _operation(method: str, path: str, handler: type[BaseHandler]) -> Document:
    function = getattr(handler, method.lower())
    # A HEAD that declares nothing is as GET, a PUT as POST.
    declared = operations.of(function) or operations.of(handler.get if method == "HEAD" else handler.post)
    if declared is None:
        raise TypeError(f"{method} of {handler.__name__} does not declare what it answers (operations.operation)")
    scope = Scope.OPEN if method == "OPTIONS" else handler.scope_of(method)
    responses = _responses(handler, declared, scope, "{" in path)
    made = {
        "operationId": method.lower() + re.sub(r"\W", "_", re.sub("[{}]", "", path)),
        "tags": [handler.__module__.rpartition(".")[2]],
        "summary": _markdown(inspect.getdoc(handler) or ""),
        "description": _markdown(inspect.getdoc(function) or ""),
        "parameters": [*_parameters(handler, declared)],
        "security": [] if scope is Scope.OPEN else [{name: [scope.value]} for name in _SECURITY],
        "responses": _without_content(responses, method == "HEAD"),
    }
    if issubclass(handler, BodyHandler) and method in ("POST", "PUT"):
        made["responses"] = _with_fields(responses, handler.answer_fields)
        content = {media_type: handler.bodies.get(media_type, ANYTHING) for media_type in handler.media_types}
        made["requestBody"] = {"required": handler.body_required, "content": _content(content)}
    return made


def _parameters(handler: type[BaseHandler], declared: Operation) -> Iterator[Document]:
    for name, schema in {**handler.parameters, **declared.query}.items():
        yield _parameter("query", name, schema)
    for name, schema in handler.request_fields.items():
        yield _parameter("header", name, schema)


def _parameter(where: str, name: str, schema: Schema, required: bool = False) -> Document:
    return {"name": name, "in": where, "required": required, "schema": schema}


def _content(content: Content) -> Document:
    return {media_type: {"schema": schema} for media_type, schema in content.items()}


def _responses(handler: type[BaseHandler], declared: Operation, scope: Scope, has_names: bool) -> Document:
    found = {str(status): _answer(_phrase(status), content) for status, content in declared.answers.items()}
    if handler.problem_content is not None:
        # A path that only looks like this one is no route, and has no protocol.
        other = {"404": _answer("no such path", {problems.CONTENT_TYPE: _PROBLEM})} if has_names else {}
        return found | other | {"default": _answer("refused, or not possible now", handler.problem_content)}
    for status, kinds in itertools.groupby(_problems(handler, scope), lambda each: each[0]):
        found.setdefault(str(status), _refusal({slug: title for _, slug, title in kinds}))
    if has_names:
        found.setdefault("404", _answer("no such path", {problems.CONTENT_TYPE: _PROBLEM}))
    return found


def _phrase(status: int) -> str:
    return http.HTTPStatus(status).phrase


def _problems(handler: type[BaseHandler], scope: Scope) -> list[tuple[int, str, str]]:
    """Status, slug and title of all that a request may be refused for, by status."""
    asked = () if scope is Scope.OPEN else (Unauthenticated, RateLimited)
    denials = (Forbidden, TooManyConnections, Overloaded, *asked)
    refusals = {*handler.refusals, *denials}
    return sorted((status, slug, title) for kind, status, slug, title in problems.PROBLEMS if kind in refusals)


def _refusal(titles: Mapping[str, str]) -> Document:
    # A query that is not UTF-8 is refused by Tornado itself, and that has no type of ours.
    types = one_of(*(f"urn:logsrv:problem:{slug}" for slug in titles), "about:blank")
    schema = {"allOf": [_PROBLEM, {"properties": {"type": types}}]}
    content = {problems.CONTENT_TYPE: operations.named(".".join(["problem", *titles]), schema)}
    description = "; ".join(f"{slug}: {title}" for slug, title in titles.items())
    return _answer(description, content) | {"headers": {problems.REQUEST_ID: {"schema": TEXT}}}


def _answer(description: str, content: Content) -> Document:
    return {"description": description, **({"content": _content(content)} if content else {})}


def _with_fields(responses: Document, fields: Mapping[str, Schema]) -> Document:
    """``responses``; those that are successes may have ``fields`` in their heads."""
    if not fields:
        return responses
    headers = {"headers": {name: {"schema": schema} for name, schema in fields.items()}}
    return {status: answer | headers if status.startswith("2") else answer for status, answer in responses.items()}


def _without_content(responses: Document, wanted: bool) -> Document:
    if not wanted:
        return responses
    return {status: {"description": answer["description"]} for status, answer in responses.items()}


def _hoisted(value: Any, named: dict[str, Any]) -> Any:
    """``value`` with references in place of the schemas that have a title, which are put among ``named``."""
    if isinstance(value, Mapping):
        made = {key: _hoisted(item, named) for key, item in value.items()}
        if not isinstance(title := value.get("title"), str):
            return made
        named[title] = made
        return {"$ref": f"#/components/schemas/{title}"}
    return [_hoisted(item, named) for item in value] if isinstance(value, (list, tuple)) else value


@functools.cache
def encoded(routes: tuple[tuple[str, type[BaseHandler]], ...]) -> bytes:
    """The JSON text of the document for ``routes``, made once."""
    return msgspec.json.encode(document(routes))


class OpenApiHandler(BaseHandler):
    """Describes this server to programs."""

    scope = Scope.OPEN

    @operation({200: json_of(open_object(openapi=TEXT, info=ANYTHING, paths=ANYTHING))})
    def get(self) -> None:
        """200 with this document."""
        self.set_header("Content-Type", "application/json")
        self.finish(encoded(tuple(self.application.routes)))

    head = get
