"""Nothing a client writes becomes an operator, code, or an expression that is evaluated."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tornado_logsrv.query import QueryError, parse
from tornado_logsrv.query.patterns import MAX_PATTERN

NOW = 1_769_853_600_000
LOGICAL = {"$and", "$or", "$nor"}
MATCHERS = {
    "$eq",
    "$ne",
    "$in",
    "$nin",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$exists",
    "$type",
    "$regex",
    "$not",
    "$elemMatch",
}
EXPRESSIONS = {
    *("$and", "$or", "$not", "$cond", "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$literal", "$type", "$size"),
    *("$isArray", "$isNumber", "$objectToArray", "$concatArrays", "$filter", "$map", "$reduce", "$anyElementTrue"),
    "$regexMatch",
}
ARGUMENTS = {"input", "in", "as", "cond", "initialValue", "regex"}
#: The only texts of an expression that are not under $literal: variables, and names of types.
VARIABLES = {"$data", "$$this", "$$this.v", "$$value", "$$entry.k", "entry"}
TYPES = {"string", "date", "object", "null", "missing"}

WORDS = [
    "$where",
    "$expr",
    "$function",
    "$$ROOT",
    "$ne",
    "{$gt:1}",
    "a.$where",
    "$a.b",
    "sleep(1)",
    "a b",
    "$",
    "..",
    "x",
]
texts = st.one_of(
    st.sampled_from(WORDS),
    st.text(st.sampled_from('$.{}[]()":*?/\\ ab1TO-+&|!<>=\x00\u2028'), max_size=12),
)
quoted = texts.map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
escaped = texts.map(lambda text: "".join(f"\\{each}" if not each.isalnum() else each for each in text))
values = st.one_of(
    texts, quoted, escaped, escaped.map(lambda text: f"/{text}/"), escaped.map(lambda text: f"[{text} TO *]")
)
terms = st.one_of(values, st.builds("{}:{}".format, st.one_of(texts, escaped), values))
queries = st.lists(terms, min_size=1, max_size=4).flatmap(
    lambda found: st.sampled_from([" ", " OR ", " AND NOT "]).map(lambda joint: joint.join(found))
)


def check_filter(filter_: dict[str, Any]) -> None:
    for key, value in filter_.items():
        if key in LOGICAL:
            for each in value:
                check_filter(each)
        elif key == "$expr":
            check_expression(value)
        else:
            assert not any(part.startswith("$") or not part for part in key.split(".")), key
            check_operators(value)


def check_operators(operators: Any) -> None:
    assert isinstance(operators, dict), "a bare value would be taken for operators when it is an object"
    for operator, value in operators.items():
        assert operator in MATCHERS
        if operator in ("$not", "$elemMatch"):
            check_operators(value)
        elif operator == "$regex":
            assert isinstance(value, str)
            assert len(value) <= MAX_PATTERN
        else:
            assert not isinstance(value, dict)
            assert not isinstance(value, list) or not any(isinstance(each, dict | list) for each in value)


def check_expression(value: Any) -> None:
    if isinstance(value, list):
        for each in value:
            check_expression(each)
    elif isinstance(value, dict):
        if "$literal" in value:
            assert set(value) == {"$literal"}
            return
        assert set(value) <= EXPRESSIONS | ARGUMENTS
        for each in value.values():
            check_expression(each)
    elif isinstance(value, str):
        assert value in VARIABLES | TYPES


@settings(max_examples=400, deadline=None)
@given(queries)
@example("$where:1")
@example("a.$where:sleep")
@example('"$$ROOT":*')
@example("x.y:{$gt TO $$ROOT]")
def test_a_query_yields_known_operators_and_literals_alone(text: str) -> None:
    try:
        query = parse(text)
    except QueryError:
        return
    for indexed in (None, (), ("data.a", "data.x")):
        check_filter(query.filter(NOW, indexed))


@pytest.mark.parametrize("text", ["$where:1", "\\$function:x", "a.$where:sleep", '"$where" $expr', "data.$where:*"])
def test_a_name_with_a_dollar_is_the_name_of_a_key(text: str) -> None:
    check_filter(parse(text).filter(NOW))


def test_a_filter_that_is_not_of_these_is_found_out() -> None:
    for wrong in ({"$where": "1"}, {"data.a": {"$function": {}}}, {"$expr": {"$function": {}}}, {"$expr": "$other"}):
        with pytest.raises(AssertionError):
            check_filter(wrong)
