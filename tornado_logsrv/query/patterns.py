"""Regular expressions for words, whole values, numbers written as text, and what clients write between slashes.

All of them are one small dialect that PCRE (MongoDB) and Python's ``re`` (SecantusDB, and the live tail) read in the
same way, and none is ever a client's own text: letters of either case are classes such as ``[eE]``, because the two
engines fold case differently; ``.``, ``\\d``, ``\\w``, ``\\s`` and ``$`` are written out, because they mean different
characters; and every repetition has a bound or cannot be entered twice, so that no text takes long.
"""

import enum
import itertools
import re
from collections.abc import Sequence
from decimal import Decimal

#: SecantusDB refuses a longer pattern; MongoDB takes 32,764 bytes.
MAX_PATTERN = 1000
#: Characters whose folded form is kept.
_FOLDS_KEPT = 10_000
#: How far `*` reaches within a word.
WORD_REACH = 100

_START = "^"
# Not `$` nor `\Z`: PCRE lets them match before a last line feed, too.
_END = r"(?![\s\S])"
_ANY = r"[\s\S]"
_SPACES = "\t-\r\x1c- \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACE, _NO_SPACE = f"[{_SPACES}]", f"[^{_SPACES}]"
# Letters and digits of the scripts that part words by spaces. In the others (Chinese, Japanese, Korean, Thai, …) a word
# has no edges that a character could show: there it is found wherever it stands.
_WORD_RANGES = "0-9A-Za-z_\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u0dff\u10a0-\u177f\u1800-\u1fff"
_IS_WORD = re.compile(f"[{_WORD_RANGES}]")
_WORDS = re.compile(f"[{_WORD_RANGES}]+")
_NOT_IN_WORD = f"(?<![{_WORD_RANGES}]{_ANY})"
_NOT_BEFORE_WORD = f"(?![{_WORD_RANGES}])"


class Wildcard(enum.Enum):
    """``*`` or ``?`` where it has not been escaped."""

    STAR = "*"
    ONE = "?"


STAR, ONE = Wildcard.STAR, Wildcard.ONE
#: What is searched for: characters, and wildcards among them.
Parts = Sequence[str | Wildcard]


class TooComplex(ValueError):
    """A pattern would be longer, or take more work, than is allowed."""


def cases(character: str) -> str:
    """``character`` in all its cases, itself first."""
    found = (character, character.lower(), character.upper())
    return "".join(dict.fromkeys(case for case in found if len(case) == 1))


class _Folds(dict[int, str]):
    """The folded form of each character, by its number; those asked for first are kept."""

    def __missing__(self, number: int) -> str:
        character = chr(number)
        upper = _one_or(character.upper(), character)
        folded = _one_or(upper.lower(), upper)
        if len(self) < _FOLDS_KEPT:
            self[number] = folded
        return folded


_FOLDS = _Folds()


def _one_or(character: str, otherwise: str) -> str:
    return character if len(character) == 1 else otherwise


def fold(text: str) -> str:
    """What ``text`` has in common with every text that is this one but for the case, as ``cases`` has it.

    Some others have it, too: where ``cases`` goes one way only, as from the long s to S.
    """
    return text.lower() if text.isascii() else text.translate(_FOLDS)


def spellings(text: str, most: int) -> list[str] | None:
    """All the ways to write ``text`` in upper and lower case, the usual ones first; None when they are too many."""
    count = 1
    for character in text:
        count *= len(cases(character))
        if count > most:
            return None
    every = ["".join(choice) for choice in itertools.product(*map(cases, text))]
    usual = [text, text.lower(), text.upper(), text.capitalize()]
    return list(dict.fromkeys([*(one for one in usual if one in every), *every]))


def words(parts: Parts) -> str:
    """Finds ``parts`` as whole words within a text. Raises TooComplex."""
    kept = list(parts)
    # What is found anywhere needs nothing before it.
    while kept and kept[0] is STAR:
        del kept[0]
    while kept and kept[-1] is STAR:
        del kept[-1]
    pieces = [_in_text(segment) for segment in _segments(kept)]
    if _is_word(parts[0]):
        # Behind the first character and not before it: engines are fast at finding a character to begin with.
        first = _literally(parts[0])
        pieces[0] = first + _NOT_IN_WORD + pieces[0].removeprefix(first)
    after = _NOT_BEFORE_WORD if _is_word(parts[-1]) else ""
    return _checked(_chain(pieces, f"{_NO_SPACE}{{0,{WORD_REACH}}}?", after))


def word_of(parts: Parts) -> str:
    """The longest of the ``folded_words`` that every text has in which ``words`` finds ``parts``; empty without one."""
    found: list[list[str]] = [[]]
    usable = [True]
    for part in parts:
        if _is_word(part):
            found[-1].append(str(part))
            usable[-1] = usable[-1] and all(map(_is_word, cases(str(part))))
        else:
            # What stands here has to be no part of the word in any text.
            parts_words = isinstance(part, str) and not any(map(_is_word, cases(part)))
            usable[-1] = usable[-1] and parts_words
            found.append([])
            usable.append(parts_words)
    return fold(max(("".join(run) for run, good in zip(found, usable, strict=True) if good), key=len, default=""))


def folded_words(text: str) -> list[str]:
    """The words in ``text``, folded: all runs of letters, digits and _ of scripts that part words by spaces."""
    if text.isascii():
        return _WORDS.findall(text.lower())
    return [fold(word) for word in _WORDS.findall(text)]


def whole(parts: Parts) -> str:
    """Matches a value that is ``parts`` from end to end. Raises TooComplex."""
    pieces = ["".join(map(_literally, segment)) for segment in _segments(parts)]
    end = "" if parts and parts[-1] is STAR else _END
    return _checked(_START + _chain(pieces, f"{_ANY}*?", end))


def _chain(pieces: list[str], between: str, end: str) -> str:
    """Pieces with a run of other characters between them.

    A piece has a fixed length, so the first place where it stands is as good as any other, and the engine need not
    come back to look for another (an atomic group): the work grows with the text, not with a power of it. Only the
    last has to stand before ``end``.
    """
    first, *rest = pieces
    if not rest:
        return first + end
    middle = "".join(f"(?>{between}{piece})" for piece in rest[:-1])
    last = f"{between}{rest[-1]}{end}" if rest[-1] or end else ""
    return first + middle + last


def _segments(parts: Parts) -> list[list[str | Wildcard]]:
    """``parts`` split at the stars, several in a row as one."""
    segments: list[list[str | Wildcard]] = [[]]
    for index, part in enumerate(parts):
        if part is not STAR:
            segments[-1].append(part)
        elif index == 0 or parts[index - 1] is not part:
            segments.append([])
    return segments


def _in_text(segment: list[str | Wildcard]) -> str:
    pattern = ""
    for part in segment:
        if isinstance(part, str) and part.isspace():
            # A run of spaces, or a line feed, is one space to who reads it. Possessive: what follows is no space.
            pattern += "" if pattern.endswith(f"{_SPACE}++") else f"{_SPACE}++"
        else:
            pattern += _NO_SPACE if part is ONE else _literally(part)
    return pattern


def _literally(part: str | Wildcard) -> str:
    if isinstance(part, Wildcard):
        return _ANY
    both = cases(part)
    return f"[{both}]" if len(both) > 1 else re.escape(part)


def _is_word(part: str | Wildcard) -> bool:
    return isinstance(part, str) and _IS_WORD.fullmatch(part) is not None


def _checked(pattern: str) -> str:
    if len(pattern) > MAX_PATTERN:
        raise TooComplex("too long to look for: about 200 letters are possible")
    return pattern


# Numbers written as text: 007, -1.50, +3. A regular expression can compare them, digit by digit, and unlike a
# conversion it works within arrays and needs no $expr.

_FRACTION = r"(?:\.[0-9]+)?"
_MAX_DIGITS = 20


def number_between(low: Decimal | None, low_in: bool, high: Decimal | None, high_in: bool) -> str:
    """Matches a text that is a number within these bounds; None is no bound. Raises TooComplex."""
    at_least = _signed(low, low_in, above=True) if low is not None else ""
    at_most = _signed(high, high_in, above=False) if high is not None else ""
    both = "".join(f"(?={bound}{_END})" for bound in (at_least, at_most) if bound)
    return _checked(f"{_START}{both}[+\\-]?[0-9]+{_FRACTION}{_END}")


def _signed(bound: Decimal, included: bool, above: bool) -> str:
    """Numbers on one side of ``bound``: of the sign that looks that way all, or those of one sign in part."""
    # Above 5: +, magnitude above. Above -5: every +, and - with a magnitude below 5. Below: the mirror of it.
    near, far = (r"\+?", "-") if above else ("-", r"\+?")
    digits = _digits(abs(bound))
    if bound != 0 and (bound > 0) == above:
        return f"{near}0*{_greater(*digits, included)}"
    every = f"{near}[0-9]+{_FRACTION}"
    if bound == 0 and not included:
        return f"{near}0*{_greater(*digits, included)}"
    return f"(?:{every}|{far}0*{_less(*digits, included)})"


def _digits(magnitude: Decimal) -> tuple[str, str]:
    whole_part, _, fraction = f"{magnitude:f}".partition(".")
    whole_part, fraction = whole_part.lstrip("0"), fraction.rstrip("0")
    if len(whole_part) + len(fraction) > _MAX_DIGITS:
        raise TooComplex(f"a range takes numbers of at most {_MAX_DIGITS} digits")
    return whole_part, fraction


# What follows has no leading zeros: 0* before it has taken them, and may take all of a zero.


def _greater(whole_part: str, fraction: str, included: bool) -> str:
    longer = f"[1-9][0-9]{{{len(whole_part)},}}"
    more = _either(longer, _same_length(whole_part, above=True))
    return f"(?:(?:{more}){_FRACTION}|{whole_part}{_fraction_greater(fraction, included)})"


def _less(whole_part: str, fraction: str, included: bool) -> str:
    fewer = f"[1-9][0-9]{{0,{len(whole_part) - 2}}}" if len(whole_part) > 1 else ""
    less = _either(fewer, _same_length(whole_part, above=False))
    # No digit at all is a zero; and nothing is less than that.
    below = f"(?:{less})?{_FRACTION}|" if whole_part else ""
    return f"(?:{below}{whole_part}{_fraction_less(fraction, included)})"


def _same_length(digits: str, above: bool) -> str:
    """Numbers of as many digits that are greater (or less), none of them zero at the front; empty if there are none."""
    pattern = ""
    for index in reversed(range(len(digits))):
        low, high = (int(digits[index]) + 1, 9) if above else (0 if index else 1, int(digits[index]) - 1)
        rest = len(digits) - index - 1
        here = f"[{low}-{high}]" + (f"[0-9]{{{rest}}}" if rest else "") if low <= high else ""
        pattern = _either(here, f"{digits[index]}(?:{pattern})" if pattern else "")
    return pattern


def _either(*patterns: str) -> str:
    return "|".join(filter(None, patterns))


def _fraction_greater(fraction: str, included: bool) -> str:
    if not fraction:
        return _FRACTION if included else r"\.[0-9]*[1-9][0-9]*"
    more = [f"{fraction[:i]}[{int(d) + 1}-9][0-9]*" for i, d in enumerate(fraction) if d < "9"]
    equal = fraction + ("[0-9]*" if included else "[0-9]*[1-9][0-9]*")
    return rf"\.(?:{_either(*more, equal)})"


def _fraction_less(fraction: str, included: bool) -> str:
    if not fraction:
        return r"(?:\.0+)?" if included else "(?!)"
    less = [f"{fraction[:i]}[0-{int(d) - 1}][0-9]*" for i, d in enumerate(fraction) if d > "0"]
    shorter = [fraction[:i] for i in range(1, len(fraction))]
    return rf"(?:\.(?:{_either(*less, *shorter, f'{fraction}0*' if included else '')}))?"
