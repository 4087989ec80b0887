"""Tokens: what each may do, for whom, and how much.

A token is 32 random bytes; the file that names it has its SHA-256 alone:

    [[token]]
    name = "checkout"
    sha256 = "<64 hex digits>"
    scopes = ["write"]                  # write, read, admin
    source = "checkout"                 # its records have this source, and it reads no others
    tenant = "acme"                     # its records are in a collection of their own, and it reads no other
    requests_per_second = 100
    bytes_per_day = "10GiB"

Not bcrypt or its like: they are slow because people choose passwords that can be guessed. 256 random bits cannot be, at
any speed, and a slow hash would have to be paid for by every request.
"""

import base64
import binascii
import collections
import dataclasses
import enum
import functools
import hashlib
import hmac
import ipaddress
import math
import secrets
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from .binding import Binding
from .config import size
from .errors import RateLimited, StartError

#: What every secret begins with, so that it is known for one wherever it turns up.
PREFIX = "logsrv_"
_SECRET_BYTES = 32
#: What holds a secret alone.
KEY_HEADER = "DD-API-KEY"
#: No Authorization field that can be one is longer: a secret, its prefix and a user's name, in Base64.
MAX_CREDENTIALS = 1024
_DAY = 86_400
#: Addresses whose failures are remembered, for how many seconds, and the longest that one of them has to wait.
MAX_ADDRESSES = 4096
FORGET_SECONDS = 300.0
FIRST_DELAY = 0.1
LONGEST_DELAY = 2.0

Clock = Callable[[], float]


class Scope(enum.StrEnum):
    """What a route asks for; ``OPEN`` asks for nothing, the others are what a token may have."""

    OPEN = "open"
    WRITE = "write"
    READ = "read"
    ADMIN = "admin"


class Allowance:
    """So much a second, and no more at once than ``most``; what is spent beyond that has to be waited for."""

    def __init__(self, per_second: float, most: float, clock: Clock = time.monotonic) -> None:
        self._per_second = per_second
        self._most = most
        self._clock = clock
        self._left = most
        self._at = clock()

    def wait(self) -> float:
        """Seconds until something may be spent; 0 when it may."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        return 0.0 if self._left > 0 else -self._left / self._per_second

    def continue_from(self, before: "Allowance") -> None:
        """Owe what ``before`` does."""
        before.wait()
        self._left = min(self._left, before._left)

    def spend(self, amount: float) -> None:
        """Take ``amount``, which may be more than is left: how much a request costs is known when it has been read."""
        self._left -= amount


@dataclasses.dataclass(frozen=True)
class Token:
    """What who shows a secret may do. ``digest`` is the secret's SHA-256; without tokens everybody is ANONYMOUS."""

    name: str
    digest: str
    scopes: frozenset[Scope]
    source: str = ""
    tenant: str = ""
    request_rate: Allowance | None = None
    byte_quota: Allowance | None = None

    @functools.cached_property
    def binding(self) -> Binding:
        """Whose records it writes and reads."""
        return Binding(self.tenant, self.source)

    @functools.cached_property
    def is_bound(self) -> bool:
        """Whether it writes and reads records of one source or tenant alone."""
        return any(self.binding)

    @property
    def is_limited(self) -> bool:
        """Whether it has a rate or a quota."""
        return self.request_rate is not None or self.byte_quota is not None

    @property
    def is_over(self) -> bool:
        """Whether it has sent too much to send more now."""
        rate, quota = self.request_rate, self.byte_quota
        return (rate is not None and rate.wait() > 0) or (quota is not None and quota.wait() > 0)

    def request(self) -> None:
        """Count a request. Raises RateLimited when what was sent before it is too much."""
        for allowance, unit in ((self.request_rate, "requests_per_second"), (self.byte_quota, "bytes_per_day")):
            if allowance is not None and (wait := allowance.wait()):
                raise RateLimited(f"the token {self.name} is over its {unit}", math.ceil(wait))
        if self.request_rate is not None:
            self.request_rate.spend(1)

    def took(self, records: Sequence[bytes]) -> None:
        """Count the bytes of records that were taken."""
        if self.byte_quota is not None:
            self.byte_quota.spend(sum(map(len, records)))

    def spend(self, records: Sequence[bytes]) -> None:
        """Count a request whose ``records`` were taken."""
        if self.request_rate is not None:
            self.request_rate.spend(1)
        self.took(records)


ANONYMOUS = Token("", "", frozenset({Scope.WRITE, Scope.READ, Scope.ADMIN}))

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:@-]{1,64}$")]
#: records.count_origins reads so many characters and no more.
_Source = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,15}$")]
#: Without _, so that no tenant's collection is another's quarantine.
_Tenant = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,15}$")]
_Rate = Annotated[float, msgspec.Meta(gt=0)]


class _Entry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: _Name
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[list[Literal["write", "read", "admin"]], msgspec.Meta(min_length=1)]
    source: _Source | None = None
    tenant: _Tenant | None = None
    requests_per_second: _Rate | None = None
    bytes_per_day: str | int | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    token: list[_Entry] = []


#: Tenants whose collections would be others: what stands behind ``<collection>_`` there.
RESERVED_TENANTS = frozenset(("quarantine", "hours"))


class Tokens:
    """Every token there is, by the SHA-256 of its secret."""

    def __init__(self, found: list[Token]) -> None:
        self._by_digest = {token.digest: token for token in found}

    def __len__(self) -> int:
        return len(self._by_digest)

    def __iter__(self) -> Iterator[Token]:
        return iter(self._by_digest.values())

    @classmethod
    def read(cls, path: str, before: "Tokens | None" = None) -> "Tokens":
        """Those of a file; what a token had spent ``before`` counts on. Raises StartError, naming what is wrong."""
        try:
            return cls.parse(Path(path).read_text(encoding="utf-8"), before)
        except (OSError, ValueError) as error:
            raise StartError(f"--tokens_file: {path} cannot be read: {error}") from None

    @classmethod
    def parse(cls, text: str, before: "Tokens | None" = None) -> "Tokens":
        """Those of a file's text. Raises ValueError."""
        entries = msgspec.convert(tomllib.loads(text), _File).token
        found = [_token(entry, before.get(entry.sha256) if before else None) for entry in entries]
        _check_single([token.name for token in found], [token.digest for token in found])
        return cls(found)

    def get(self, digest: str) -> Token | None:
        """The token whose secret has this SHA-256, in hex."""
        return self._by_digest.get(digest)

    def find(self, secret: bytes) -> Token | None:
        """The token of a secret.

        Looked up by its hash, whose bytes nobody can choose: the time it takes tells nothing of the secrets there are.
        """
        digest = hashlib.sha256(secret).hexdigest()
        token = self._by_digest.get(digest)
        return token if token is not None and hmac.compare_digest(token.digest, digest) else None


def _token(entry: _Entry, before: Token | None) -> Token:
    if entry.tenant in RESERVED_TENANTS:
        raise ValueError(f"token {entry.name}: a tenant cannot be called {entry.tenant}")
    per_second = entry.requests_per_second
    per_day = size(str(entry.bytes_per_day)) if entry.bytes_per_day is not None else None
    if per_day == 0:
        raise ValueError(f"token {entry.name}: bytes_per_day must be more than 0")
    return Token(
        entry.name,
        entry.sha256,
        frozenset(map(Scope, entry.scopes)),
        entry.source or "",
        entry.tenant or "",
        _allowance(per_second, 1, before.request_rate if before else None),
        _allowance(per_day, _DAY, before.byte_quota if before else None),
    )


def _allowance(amount: float | None, seconds: int, before: Allowance | None) -> Allowance | None:
    if amount is None:
        return None
    allowance = Allowance(amount / seconds, max(amount, 1.0))
    if before is not None:
        allowance.continue_from(before)
    return allowance


def _check_single(names: list[str], digests: list[str]) -> None:
    for what, values in (("name", names), ("sha256", digests)):
        for value, count in collections.Counter(values).items():
            if count > 1:
                raise ValueError(f"two tokens have the {what} {value}")


def new_secret() -> str:
    """A secret that nobody has."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest_of(secret: str) -> str:
    """What a tokens file has of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def authorization_of(headers: Mapping[str, str]) -> str:
    """The Authorization field of a request, empty where it has none.

    A field that is nothing but a secret, as Datadog's senders have it, is as good as a ``Bearer`` and it. Like
    Authorization, no page from elsewhere can send it without being asked first (CORS).
    """
    key = headers.get(KEY_HEADER)
    return headers.get("Authorization") or (f"Bearer {key}" if key else "")


def secrets_in(authorization: str) -> list[bytes]:
    """What may be the secret in an Authorization field, as each protocol's clients send one.

    ``Bearer`` and ``Splunk`` are followed by it; the password of ``Basic`` is it, whatever the user's name; ``ApiKey``
    is followed by it or, as Elasticsearch has it, by Base64 of an id, a colon and it.
    """
    scheme, _, credentials = authorization.strip().partition(" ")
    scheme, credentials = scheme.lower(), credentials.strip()
    if not credentials or len(credentials) > MAX_CREDENTIALS:
        return []
    found = [credentials.encode()] if scheme in ("bearer", "splunk", "apikey") else []
    if scheme in ("basic", "apikey"):
        try:
            _, colon, password = base64.b64decode(credentials, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return found
        found += [password] if colon and password else []
    return found


class Failures:
    """Who has shown wrong secrets lately, by address: a guess is answered later each time.

    Only the answer to a wrong one waits, never that to a right one: nobody behind the same address is locked out. What
    is remembered is bounded; of more addresses than that the oldest are forgotten.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._found: collections.OrderedDict[str, tuple[int, float]] = collections.OrderedDict()
        self.total = 0

    def __len__(self) -> int:
        return len(self._found)

    def count(self, address: str) -> float:
        """A wrong secret came from ``address``; seconds that the answer shall wait."""
        self.total += 1
        network, now = _network(address), self._clock()
        count, at = self._found.pop(network, (0, now))
        if now - at > FORGET_SECONDS:
            count = 0
        self._found[network] = (count + 1, now)
        if len(self._found) > MAX_ADDRESSES:
            self._found.popitem(last=False)
        return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(count, 20))


def _network(address: str) -> str:
    """Whom an address belongs to: with IPv6 that is 64 bits of it (RFC 4291)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address
