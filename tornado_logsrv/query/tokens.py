"""The text of a query, read into tokens before the grammar sees it.

luqum's grammar says that a query is wrong, and at most at which character; here is where a person is told what to
write instead. Some things people write are put in the form that the grammar takes: ``&&``, ``||`` and ``!``, ``/x/i``,
times with a zone, negative numbers. Positions are kept, so that an error found later points into the query as written.
"""

import dataclasses
import itertools
import re

from ..errors import BadParameter

#: Characters in a query.
MAX_LENGTH = 2000
_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<phrase>"(?:[^\\"]|\\.)*")
    | (?P<regex>/(?:[^\\/]|\\.)*/)
    | (?P<date>\d{4}-\d\d-\d\d[Tt]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:[Zz]|[+-]\d\d(?::?\d\d)?)?(?=[\s)\]}]|$))
    | (?P<word>(?:[^\s:^~(){}[\]/"+\-\\<>]|\\.)(?:[^\s:^\\~(){}[\]]|\\.|(?<=T\d\d):\d\d(?::\d\d)?)*)
    | (?P<compare>[<>]=?)
    | (?P<mark>[][(){}:^~+-])
    | (?P<broken>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_OPERATORS = {"&&": "AND", "||": "OR", "AND": "AND", "OR": "OR", "NOT": "NOT"}
_PAIRS = {")": "(", "]": "[{", "}": "[{"}
_REFUSED = {
    "~": "~ (a search for what is similar) is not offered; use * and ?, or write \\~ for the character",
    "^": "^ (a weight) is not offered, as records come by time; leave it out, or write \\^ for the character",
}


class QueryError(BadParameter):
    """A query is wrong at ``column`` (the first is 1); the message says how, and what would be right."""

    def __init__(self, column: int, problem: str) -> None:
        super().__init__("q", f"column {column}: {problem}", column)


@dataclasses.dataclass
class Token:
    """A piece of the query: what kind, its text, where it begins, and the text that the grammar gets for it."""

    kind: str
    text: str
    at: int
    given: str

    @property
    def end(self) -> int:
        """The position behind it."""
        return self.at + len(self.text)


@dataclasses.dataclass
class Prepared:
    """A query in the form that the grammar takes."""

    source: str
    text: str
    #: For each character of ``text``, and for its end, the position in ``source``.
    origins: list[int]

    def column(self, position: int) -> int:
        """The column in the query as written of a position in ``text``."""
        return self.origins[max(0, min(position, len(self.origins) - 1))] + 1


def prepare(source: str) -> Prepared:
    """Read ``source``. Raises QueryError."""
    if len(source) > MAX_LENGTH:
        raise QueryError(MAX_LENGTH + 1, f"a query may have {MAX_LENGTH} characters, this has {len(source)}")
    for at, character in enumerate(source):
        if character == "\0" or "\ud800" <= character <= "\udfff":
            raise QueryError(at + 1, "a character that no text can hold")
    tokens = _tokens(source)
    _check_pairs(tokens)
    _check_neighbours(source, [token for token in tokens if token.kind != "space"])
    text, origins = "", []
    for token in tokens:
        text += token.given
        # Of what has been put in, each character stands for the one that was there.
        origins += [min(token.at + i, token.end - 1) for i in range(len(token.given))]
    return Prepared(source, text, [*origins, len(source)])


def _tokens(source: str) -> list[Token]:
    tokens: list[Token] = []
    for found in _TOKEN.finditer(source):
        kind, text = str(found.lastgroup), found[0]
        if kind == "broken":
            raise _broken(source, found.start())
        tokens += _read(kind, text, found.start())
    _join_signs(tokens)
    _take_flags(tokens, source)
    return tokens


def _read(kind: str, text: str, at: int) -> list[Token]:
    if kind == "date":
        return [Token("word", text, at, text.replace(":", "\\:"))]
    if kind == "word" and text in _OPERATORS:
        return [Token("operator", text, at, _OPERATORS[text])]
    if kind == "word" and text.startswith("!"):
        rest = text.lstrip("!")
        signs = [Token("mark", "!", at + i, "-") for i in range(len(text) - len(rest))]
        return signs + (_read(kind, rest, at + len(signs)) if rest else [])
    # The grammar begins no word with an apostrophe.
    given = f"\\{text}" if kind == "word" and text[0] == "'" else text
    if kind == "mark" and text in _REFUSED:
        raise QueryError(at + 1, _REFUSED[text])
    return [Token(kind, text, at, given)]


def _broken(source: str, at: int) -> QueryError:
    if source[at] == '"':
        return QueryError(
            at + 1, f'the quote is not closed; write {source[at:][:80].rstrip()}" or \\" for the character'
        )
    if source[at] == "/":
        value = _value_at(source, at)
        return QueryError(at + 1, f'a / begins a regular expression, and no / ends it; a path is written "{value}"')
    return QueryError(at + 1, "\\ stands before nothing; write \\\\ for the character")


def value_at(source: str, at: int) -> slice:
    """Where what stands around ``at`` is, from space to space: as far as it can be meant as one value."""
    start = at - len(re.split(r"[\s(]", source[:at])[-1])
    end = at + len(re.split(r"[\s)]", source[at:])[0])
    name, _, value = source[start:end].partition(":")
    return slice(start if not value or value.startswith("//") else start + len(name) + 1, end)


def _value_at(source: str, at: int) -> str:
    return source[value_at(source, at)][:80]


def _join_signs(tokens: list[Token]) -> None:
    """Make a minus before a number, where a value is expected, part of the number."""
    for before, sign, number in zip(tokens, tokens[1:], tokens[2:], strict=False):
        value = before.text == ":" or before.kind == "compare"
        if value and sign.given == "-" and sign.text == "-" and number.kind == "word" and number.text[0].isdigit():
            sign.kind, sign.given = "sign", "\\-"


def _take_flags(tokens: list[Token], source: str) -> None:
    """Read /x/i, and refuse what else stands right behind a regular expression."""
    for regex, behind in itertools.pairwise(tokens):
        if regex.kind != "regex" or behind.kind == "space" or behind.text in (")", "^", "~"):
            continue
        if behind.text != "i":
            path = _value_at(source, regex.at)
            raise QueryError(regex.at + 1, f'/…/ is a regular expression; a path is written "{path}"')
        regex.given = f"/(?i){regex.text[1:]}"
        behind.kind, behind.given = "space", " "


def _check_pairs(tokens: list[Token]) -> None:
    opened: list[Token] = []
    for token in tokens:
        if token.kind != "mark":
            continue
        if token.text in "([{":
            opened.append(token)
        elif token.text in _PAIRS and (not opened or opened.pop().text not in _PAIRS[token.text]):
            raise QueryError(token.at + 1, f"this {token.text} closes nothing; write \\{token.text} for the character")
    if opened:
        character = opened[-1].text
        raise QueryError(opened[-1].at + 1, f"this {character} is not closed; write \\{character} for the character")


def _check_neighbours(source: str, tokens: list[Token]) -> None:
    neighbours = zip([None, *tokens], tokens, [*tokens[1:], None], strict=False)
    for before, token, behind in neighbours:
        if token.kind == "operator":
            _check_operator(before, token, behind)
        elif token.text == ":" and token.kind == "mark":
            _check_colon(source, before, token, behind)
        elif token.text in "+-!" and token.kind == "mark" and not _begins(behind):
            raise QueryError(token.at + 1, f'{token.text} stands before nothing; quoted it is a text: "{token.text}"')
        elif token.text == ")" and before is not None and before.text == "(":
            raise QueryError(before.at + 1, "nothing stands between ( and )")
        elif token.kind == "compare" and not _begins(behind):
            raise QueryError(token.at + 1, f"{token.text} is followed by a value, as in status:{token.text}500")


def _check_operator(before: Token | None, token: Token, behind: Token | None) -> None:
    name = token.text
    if before is not None and before.text == ":":
        raise QueryError(token.at + 1, f'{name} is an operator; quote it to look for the word: "{name}"')
    if not _begins(behind):
        raise QueryError(token.at + 1, f'nothing stands behind {name}; quote it to look for the word: "{name}"')
    if token.given != "NOT" and not _ends(before):
        raise QueryError(token.at + 1, f'nothing stands before {name}; quote it to look for the word: "{name}"')


def _check_colon(source: str, before: Token | None, token: Token, behind: Token | None) -> None:
    if before is None or before.kind != "word" or before.end != token.at:
        raise QueryError(token.at + 1, "a : stands right behind the name of a field; write \\: for the character")
    name = before.text
    start = before.at
    if start and source[start - 1] == ":":
        whole = _value_at(source, start)
        raise QueryError(token.at + 1, f'a second : in the value; write \\: or quote the value: "{whole}"')
    if behind is None or behind.text in ")]}" or behind.kind == "operator":
        raise QueryError(
            token.end + 1 if behind is None else behind.at + 1,
            f"nothing to look for behind {name}: ({name}:* finds what has the field)",
        )


def _begins(token: Token | None) -> bool:
    """Whether something to look for can begin with ``token``."""
    if token is None or (token.kind == "operator" and token.given != "NOT"):
        return False
    return token.kind != "mark" or token.text in "([{+-!"


def _ends(token: Token | None) -> bool:
    """Whether something to look for can end with ``token``."""
    return token is not None and (token.kind in ("word", "phrase", "regex") or token.text in (")", "]", "}"))
