"""``GET /openapi.json``: the document is one, and says of every route what the route does; openapi_run tries it."""

import json
import re

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tornado_logsrv import handler, problems, readers, receivers
from tornado_logsrv.handler import BaseHandler
from tornado_logsrv.readers import openapi

ROUTES = [*receivers.ROUTES, *readers.ROUTES]


@pytest.fixture(scope="module")
def document():
    return json.loads(openapi.encoded(tuple(ROUTES)))


def path_of(pattern: str) -> str:
    return re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", pattern)


def test_it_is_openapi_3_1(document):
    assert document["openapi"] == "3.1.0"
    assert [*OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_route_and_method_is_in_it_and_no_other(document):
    there = {(path, name) for path, item in document["paths"].items() for name in item if name != "parameters"}
    assert there == {
        (path_of(pattern), method.lower()) for pattern, route in ROUTES for method in handler.methods(route)
    }


def test_every_parameter_of_a_search_is_in_it(document):
    shown = [each["name"] for each in document["paths"]["/logs"]["get"]["parameters"] if each["in"] == "query"]
    assert shown == list(readers.logs.PARAMETERS)


def test_every_problem_is_in_it(document):
    text = json.dumps(document)
    assert [slug for _, _, slug, _ in problems.PROBLEMS if f"urn:logsrv:problem:{slug}" not in text] == []


def test_it_says_which_token_is_needed_for_what(document):
    one = document["paths"]["/quarantine/{record_id}"]
    assert {"bearer": ["read"]} in one["get"]["security"]
    assert {"bearer": ["admin"]} in one["delete"]["security"]
    assert document["paths"]["/healthz"]["get"]["security"] == []


def test_what_declares_no_answer_is_named():
    class Silent(BaseHandler):
        def get(self) -> None:
            """Nothing is said of its answers."""

    with pytest.raises(TypeError, match=r"^GET of Silent does not declare what it answers \(operations\.operation\)$"):
        openapi.document([("/silent", Silent)])


@pytest.mark.gen_test
async def test_it_is_served(fetch):
    response = await fetch("/openapi.json")
    assert response.headers["Content-Type"] == "application/json"
    assert response.body == openapi.encoded(tuple(ROUTES))
