"""What the text of a value can mean: a text, a number, a date, true, false, null, an id."""

import re
from decimal import Decimal
from typing import Any

from bson import Decimal128, ObjectId

from . import moments, patterns
from .conditions import Between, Bound, Condition, Dates, Null, Pattern, Same, Text, Values
from .fields import Field

_NUMBER = re.compile(r"-?[0-9]{1,34}(?:\.[0-9]{1,34})?(?:[eE][+-]?[0-9]{1,3})?")
_INT64 = range(-(1 << 63), 1 << 63)
_OBJECT_ID = re.compile(r"[0-9a-fA-F]{24}")
_VALUES: dict[str, Condition] = {"true": Values((True,)), "false": Values((False,)), "null": Null()}

#: One end of a range as it is written, and whether it is included; None is no bound.
Limit = tuple[str, bool] | None


def equal_to(name: Field, text: str) -> tuple[Condition, ...]:
    """What a value is that ``text`` names. Raises ValueError."""
    if name.name == "_id":
        if not _OBJECT_ID.fullmatch(text):
            raise ValueError("an _id is 24 digits from 0 to 9 and a to f")
        return (Same(ObjectId(text)),)
    if name.name == "timestamp":
        moments.check(text)
        return (Dates((text, True), (text, True)),)
    if name.is_text and text.strip():
        in_text: Condition = Pattern(patterns.words(text), patterns.word_of(text))
    else:
        # What becomes too long as a pattern is refused now, not when it is needed.
        patterns.whole(text)
        in_text = Text(text)
    if name.name in ("message", "source"):
        return (in_text,)
    return (in_text, *_other_values(text))


def _other_values(text: str) -> list[Condition]:
    """What ``text`` means besides the text."""
    found: list[Condition] = []
    number = _number(text)
    if number is not None:
        found.append(Values(number))
    if text.lower() in _VALUES:
        found.append(_VALUES[text.lower()])
    if _is_moment(text):
        found.append(Dates((text, True), (text, True)))
    return found


def _is_moment(text: str) -> bool:
    if not moments.looks_like_moment(text):
        return False
    moments.check(text)
    return True


def _number(text: str) -> tuple[Any, ...] | None:
    """The values that are the number ``text``: of a fraction, the decimal and the double nearest to it."""
    if not _NUMBER.fullmatch(text):
        return None
    exact = Decimal(text)
    if exact == exact.to_integral_value() and int(exact) in _INT64:
        return (int(exact),)
    digits = len(exact.normalize().as_tuple().digits)
    decimals = (Decimal128(exact),) if digits <= 34 else ()
    nearest = float(text)
    if abs(nearest) == float("inf"):
        return decimals or None
    if Decimal(nearest) == exact:
        return (nearest,)
    # Beyond int64 there are integers of both types, each exact.
    return decimals if exact == exact.to_integral_value() else (*decimals, nearest)


def between(name: Field, low: Limit, high: Limit) -> tuple[Condition, ...]:
    """What a value is that stands between these bounds. Raises ValueError."""
    given = [bound[0] for bound in (low, high) if bound is not None]
    if name.name == "_id":
        raise ValueError("_id takes no range; timestamp does")
    if name.name == "timestamp":
        return (_dates(low, high),)
    if all(_NUMBER.fullmatch(text) for text in given):
        return _numbers(low, high)
    if all(moments.looks_like_moment(text) for text in given):
        relative = any(moments.is_relative(text) for text in given)
        return (_dates(low, high),) if relative else (_dates(low, high), _texts(low, high, of_dates=True))
    return (_texts(low, high, of_dates=False),)


def _dates(low: Limit, high: Limit) -> Dates:
    for bound in (low, high):
        if bound is not None:
            moments.check(bound[0])
    return Dates(low, high)


def _texts(low: Limit, high: Limit, of_dates: bool) -> Between:
    # 2026-01-31 as a last bound includes 2026-01-31T10:00, which is a longer text.
    longest = "\U0010ffff" if of_dates else ""
    return Between(
        low and Bound(low[0] + ("" if low[1] else longest), low[1]),
        high and Bound(high[0] + (longest if high[1] else ""), high[1]),
    )


def _numbers(low: Limit, high: Limit) -> tuple[Condition, ...]:
    pattern = patterns.number_between(
        low and Decimal(low[0]), low is None or low[1], high and Decimal(high[0]), high is None or high[1]
    )
    return (
        # A fraction is a double and a decimal, which differ a little: both are at the bound, or neither.
        Between(
            low and Bound(_outermost(low[0], smallest=low[1]), low[1]),
            high and Bound(_outermost(high[0], smallest=not high[1]), high[1]),
        ),
        Pattern(pattern),
    )


def _outermost(text: str, smallest: bool) -> Any:
    values = _number(text)
    if not values:
        raise ValueError("a number in a range may have 34 digits")
    ordered = sorted(values, key=lambda value: value.to_decimal() if isinstance(value, Decimal128) else Decimal(value))
    return ordered[0 if smallest else -1]
