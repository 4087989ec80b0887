"""What a client may send, by chance: every record has a token of its own in its data."""

import dataclasses
import gzip
import json
import random
import re
from collections.abc import Iterator
from typing import Any

from .balance import Sent

LEVELS = ("memory", "journal", "journal", "stored")
#: The collection refuses records whose data have this field: they belong in quarantine.
VALIDATOR = {"data.poison": {"$exists": False}}
_MOST_RECORDS = 40
_TOKEN = re.compile(rb'"token": ?(\d+)')


@dataclasses.dataclass(slots=True, eq=False)
class Request:
    """One request as it goes over the wire. ``level`` is what is asked for; "" when the client leaves it open."""

    sent: Sent
    path: str
    level: str
    headers: dict[str, str]
    body: bytes
    readable: bool = True
    bad_lines: int = 0

    @property
    def key(self) -> str:
        """The Idempotency-Key; "" when there is none, and the request must not be sent twice."""
        return self.headers.get("Idempotency-Key", "")


def data_of(token: int, poison: bool) -> dict[str, Any]:
    """The data of the record with ``token``: what is read back is compared with this."""
    data: dict[str, Any] = {"token": token, "text": f"{token:x}é " * (token % 23), "list": [token % 7, None, 0.5]}
    return data | {"poison": True} if poison else data


def token_of(text: bytes) -> int:
    """The token in bytes that are no JSON; -1 when there is none."""
    match = _TOKEN.search(text)
    return int(match[1]) if match else -1


def requests(rand: random.Random, tokens: Iterator[int], run: str) -> Iterator[Request]:
    """Requests without end. ``tokens`` gives the first token of a request that may have _MOST_RECORDS of them."""
    kinds = (_job, _array, _ndjson, _broken)
    while True:
        (kind,) = rand.choices(kinds, (50, 20, 22, 3))
        request = kind(rand, next(tokens))
        request.level = rand.choice((*LEVELS, ""))
        if request.level:
            request.path += f"?ack={request.level}"
        if rand.random() < 0.4:
            request.headers["Idempotency-Key"] = f'"{run}-{request.sent.first}"'
        if rand.random() < 0.2:
            request.headers["Content-Encoding"] = "gzip"
            request.body = gzip.compress(request.body, 1)
        yield request


#: How far apart the first tokens of two requests have to be.
STEP = _MOST_RECORDS


def _job(rand: random.Random, token: int) -> Request:
    poison = rand.random() < 0.03
    sent = Sent(token, 1, frozenset({0} if poison else ()))
    return Request(sent, "/add-job", "", _json(), json.dumps(data_of(token, poison)).encode())


def _array(rand: random.Random, token: int) -> Request:
    sent = _many(rand, token)
    values = [data_of(token + offset, offset in sent.refusable) for offset in range(sent.count)]
    return Request(sent, "/add-jobs", "", _json(), json.dumps(values).encode())


def _ndjson(rand: random.Random, token: int) -> Request:
    sent = _many(rand, token)
    # One line at least is good: a body without any is refused as a whole.
    bad = {offset for offset in range(1, sent.count) if rand.random() < 0.02}
    poison = sent.refusable - bad
    sent.refusable = frozenset(poison | bad)
    lines = [json.dumps(data_of(token + offset, offset in poison)) for offset in range(sent.count)]
    lines = [line[:-1] if offset in bad else line for offset, line in enumerate(lines)]
    body = "\n".join(lines).encode()
    return Request(sent, "/add-jobs", "", {"Content-Type": "application/x-ndjson"}, body, bad_lines=len(bad))


def _broken(rand: random.Random, token: int) -> Request:
    body = json.dumps(data_of(token, False)).encode()[: -rand.randrange(1, 10)]
    return Request(Sent(token, 1), "/add-job", "", _json(), body, readable=False)


def _many(rand: random.Random, token: int) -> Sent:
    count = rand.randrange(1, _MOST_RECORDS + 1)
    return Sent(token, count, frozenset(offset for offset in range(count) if rand.random() < 0.005))


def _json() -> dict[str, str]:
    return {"Content-Type": "application/json"}
