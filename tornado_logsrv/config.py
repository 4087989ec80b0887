"""Every option, once: its name, default, check and help.

A value is taken from the command line (``--name=value``), else the environment (``LOGSRV_NAME``, or
``LOGSRV_NAME_FILE``, the path of a file that holds it), else the TOML file named by ``--config``, else the default.
"""

import collections
import dataclasses
import ipaddress
import os
import re
import socket
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import indexes, rules
from .errors import OptionError

Check = Callable[[str], Any]

_SIZE_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_TIME_UNITS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "h": 3600.0}
_REDIS_SCHEMES = (
    "redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"
)  # fmt: skip
_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([a-z]*)")
#: A URL with more than one @, or one behind a / ? #: where its password ends is a guess, and the drivers' messages
#: show the rest.
_GUESSWORK = re.compile(r"(?!unix:)[a-z+]+://([^/?#]*@[^/?#]*@|[^/?#]*[/?#][^?]*@)")
_SECRET_PARAMETER = re.compile(r"(?i)([?&][^=&]*(?:password|authmechanismproperties)=)[^&]*")


#: What stands for the value in --help, by the check.
_VALUE_NAMES: dict[Check, str] = {}


class HelpRequested(Exception):
    """``--help`` or ``--version`` was given; the argument is which of them."""


def text(value: str) -> str:
    """Any text."""
    return value


def some_text(value: str) -> str:
    """Any text but none."""
    if not value:
        raise ValueError("must not be empty")
    return value


def key_prefix(value: str) -> str:
    """A name of 1 to 120 characters out of letters, digits and ``. _ : - { }``."""
    if not re.fullmatch(r"[A-Za-z0-9._:{}-]{1,120}", value):
        raise ValueError("must be 1 to 120 letters, digits and . _ : - { }")
    return value


def database(value: str) -> str:
    """A name that a MongoDB database can have (MongoDB manual, "Naming Restrictions")."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", value):
        raise ValueError("must be 1 to 63 letters, digits and _ -")
    return value


def collection(value: str) -> str:
    """A name that a MongoDB collection can have."""
    if not re.fullmatch(r"(?!system\.)[A-Za-z0-9_:-]+(\.[A-Za-z0-9_:-]+)*", value) or len(value) > 120:
        raise ValueError("must be 1 to 120 letters, digits and _ : -, single dots between them, no system. before")
    return value


def names(value: str) -> tuple[str, ...]:
    """Names with commas between them, or nothing."""
    found = tuple(name.strip() for name in value.split(",") if name.strip())
    for name in found:
        if not re.fullmatch(r"[A-Za-z0-9._:\[\]-]{1,253}", name):
            raise ValueError("must be names such as logs.example,10.0.0.7 without ports")
    return found


def origins(value: str) -> tuple[str, ...]:
    """Origins with commas between them, or nothing."""
    found = tuple(origin.strip() for origin in value.split(",") if origin.strip())
    for origin in found:
        if not re.fullmatch(r"https?://[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?", origin):
            raise ValueError("must be origins such as https://app.example,http://localhost:8080")
    return found


def networks(value: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Addresses and networks with commas between them, or nothing."""
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in value.split(",") if part.strip())
    except ValueError:
        raise ValueError("must be addresses or networks such as 10.0.0.7,172.16.0.0/12") from None


def key(value: str) -> str:
    """Nothing, or 32 characters and more."""
    if value and len(value) < 32:
        raise ValueError("must be empty or at least 32 characters, random ones")
    return value


def _named(check: Check, value_name: str) -> Check:
    _VALUE_NAMES[check] = value_name
    return check


def whole(low: int, high: int) -> Check:
    """A check for whole numbers from ``low`` to ``high``."""

    def check(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", value) or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return _named(check, "N")


def one_of(*allowed: str) -> Check:
    """A check for one of a few words."""

    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return _named(check, "|".join(allowed))


def url(*schemes: str) -> Check:
    """A check for an empty value or a URL of one of ``schemes``."""

    def check(value: str) -> str:
        if value and not value.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"must be empty or start with {' or '.join(f'{s}://' for s in schemes)}")
        if _GUESSWORK.match(value):
            raise ValueError("must have @ / ? # in the user name and password percent-encoded")
        return value

    return _named(check, "URL")


def size(value: str) -> int:
    """Bytes: a number and B, KiB, MiB, GiB, kB, MB or GB (none: bytes)."""
    number, unit = _quantity(value, _SIZE_UNITS, "a size such as 16MiB or 500kB")
    return int(number * _SIZE_UNITS[unit])


def duration(value: str) -> float:
    """Seconds: a number and ms, s, m or h (none: seconds)."""
    number, unit = _quantity(value, _TIME_UNITS, "a time such as 500ms, 30s or 5m")
    return number * _TIME_UNITS[unit]


def some_duration(value: str) -> float:
    """Seconds as ``duration`` has them, but not 0."""
    if not (seconds := duration(value)):
        raise ValueError("must be a time such as 500ms, 30s or 5m, and not 0")
    return seconds


_VALUE_NAMES.update({size: "SIZE", duration: "TIME", some_duration: "TIME", names: "NAMES", origins: "ORIGINS"})


def _quantity(value: str, units: Mapping[str, float], wanted: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(value.strip().lower())
    if match is None or match[2] not in units:
        raise ValueError(f"must be {wanted}")
    return float(match[1]), match[2]


def _option(default: str, check: Check, help: str) -> Any:
    return dataclasses.field(default=check(default), metadata={"default": default, "check": check, "help": help})


@dataclasses.dataclass(frozen=True)
class Options:
    """The server's options, each checked. Sizes are in bytes, durations in seconds."""

    port: int = _option("3000", whole(0, 65535), "TCP port to listen on (0: any free one)")
    address: str = _option("127.0.0.1", some_text, "address to listen on; 0.0.0.0 is every IPv4 address of the machine")
    data_dir: str = _option("./logsrv-data", some_text, "directory of the embedded servers' data and of backup files")
    instance: str = _option("", text, "name of this server among others on the same Redis (default: <host>:<port>)")
    mongo_url: str = _option("", url("mongodb", "mongodb+srv"), "MongoDB to write to (empty: start the embedded one)")
    mongo_db: str = _option("logsrv", database, "database of the records")
    mongo_collection: str = _option("logs", collection, "collection of the records")
    redis_url: str = _option("", url(*_REDIS_SCHEMES), "Redis for the backup (empty: start the embedded one)")
    redis_prefix: str = _option("logsrv", key_prefix, "what every key in Redis starts with")
    flush_interval_ms: int = _option("5000", whole(10, 3_600_000), "milliseconds between two writes of the queue")
    batch_size: int = _option("1000", whole(1, 1000), "records in one write at the most; so many waiting start one")
    ack: str = _option("journal", one_of("memory", "journal", "stored"), "how a request is acknowledged unless it says")
    journal_replicas: int = _option(
        "0", whole(0, 10), "replicas of Redis that have a record before ack=journal is given"
    )
    # Half of the 10 s after which most senders give up and send again: the way there and back needs time, too.
    stored_timeout: float = _option("5s", duration, "how long ack=stored waits for MongoDB to confirm")
    query_timeout: float = _option("30s", some_duration, "how long MongoDB may take for what one request reads")
    index: tuple[str, ...] = _option(
        "", indexes.parse, "fields that get an index, named as in q, such as level,trace_id; commas between"
    )
    spool_max_bytes: int = _option("0", size, "disk in --data_dir for what a full queue overflows to (0: none)")
    queue_max_bytes: int = _option("256MiB", size, "memory for records not yet stored; when full, requests get 503")
    max_body_bytes: int = _option("16MiB", size, "largest request body, also once decompressed")
    requests_max_bytes: int = _option(
        "256MiB", size, "memory for large bodies and answers on their way; when full, such requests get 503"
    )
    max_connections: int = _option("10000", whole(1, 1_000_000), "clients connected at a time; another one gets 503")
    max_watchers: int = _option("1000", whole(0, 100_000), "tails at a time; another one gets 503")
    transport: str = _option(
        "auto",
        one_of("auto", "httptools", "tornado"),
        "HTTP by httptools and uvloop, or by Tornado (auto: as installed)",
    )
    reuse_port: str = _option("no", one_of("yes", "no"), "share the port with other servers, each its own instance")
    tokens_file: str = _option("", text, "TOML file of who may do what; read again on SIGHUP (empty: everybody may)")
    allow_anonymous: str = _option(
        "no", one_of("yes", "no"), "without tokens, listen where other machines reach this server"
    )
    hosts: tuple[str, ...] = _option("", names, "names that this server goes by in requests, besides those of loopback")
    cors_origins: tuple[str, ...] = _option("", origins, "origins whose web pages may use this server, commas between")
    trusted_proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = _option(
        "", networks, "addresses of balancers whose X-Forwarded-For is believed, networks too, commas between"
    )
    session_key: str = _option("", key, "what sign-ins are signed with (empty: a key of this --data_dir)")
    tls_cert: str = _option("", text, "PEM file of the server's certificate and its chain; with it, HTTPS")
    tls_key: str = _option("", text, "PEM file of its key (empty: in the file of --tls_cert)")
    tls_client_ca: str = _option("", text, "PEM file of whose client certificates are believed (empty: none asked for)")
    tls_client_auth: str = _option(
        "required", one_of("optional", "required"), "whether a client must have a certificate, with --tls_client_ca"
    )
    retention_days: int = _option("0", whole(0, rules.MAX_DAYS), "days for which records are kept (0: for ever)")
    retention: tuple[rules.Rule, ...] = _option(
        "", rules.parse, "days for some of them, which are fewer, such as level=debug:3,source=otlp:7"
    )
    dry_run: str = _option("no", one_of("yes", "no"), "show what these two would delete now, and end")
    shutdown_timeout: float = _option("10s", duration, "how long a stop waits for requests and for the write under way")
    log_level: str = _option("info", one_of("debug", "info", "warning", "error"), "least level of the server's own log")
    log_format: str = _option("text", one_of("text", "json"), "the server's own log as lines of text, or of JSON")
    request_log: str = _option("no", one_of("yes", "no"), "a line for each request in the server's own log")

    @property
    def instance_name(self) -> str:
        """``instance``, or host name and port, with what a key or file name cannot hold replaced by ``_``."""
        return re.sub(r"[^A-Za-z0-9._:-]", "_", self.instance or f"{socket.gethostname()}:{self.port}")[:120]


#: Options that mean yes when they are given without a value.
_SWITCHES = ("dry_run",)
#: Options that are, or may hold, a password.
SECRETS = ("mongo_url", "redis_url", "session_key")
FIELDS = {field.name: field for field in dataclasses.fields(Options)}


def load(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Options:
    """The options from the command line ``arguments``, ``environ`` and the file they name.

    Raises OptionError, naming the option, where it stands and what is allowed; HelpRequested for ``--help``.
    """
    given = _from_command_line(arguments)
    config = given.pop("config", ("", environ.get("LOGSRV_CONFIG", "")))[1]
    sources = _from_file(config) if config else {}
    sources |= _from_environment(environ)
    sources |= given
    options = Options(**{name: _checked(name, origin, value) for name, (origin, value) in sources.items()})
    _check_retention(options)
    return options


def _check_retention(options: Options) -> None:
    # What is over --retention_days is gone, whatever a rule says.
    for rule in options.retention if options.retention_days else ():
        if rule.days >= options.retention_days:
            raise OptionError(
                f"--retention: {rule.name} must be kept for fewer days than all ({options.retention_days}, "
                f"--retention_days; given: {rule.days})"
            )


def _checked(name: str, origin: str, value: str) -> Any:
    try:
        return FIELDS[name].metadata["check"](value)
    except ValueError as error:
        raise OptionError(f"{origin}: {error} (given: {_shown(name, value)})") from None


def _shown(name: str, value: str) -> str:
    return "a value that is not shown" if name in SECRETS else repr(value[:80])


def _from_command_line(arguments: Sequence[str]) -> dict[str, tuple[str, str]]:
    given: dict[str, tuple[str, str]] = {}
    rest = collections.deque(arguments)
    while rest:
        argument = rest.popleft()
        if argument in ("-h", "--help"):
            raise HelpRequested("help")
        if argument == "--version":
            raise HelpRequested("version")
        if not argument.startswith("--"):
            # What stands before a colon or an equals sign is no password.
            shown = re.split("[:=]", argument[:80])[0]
            raise OptionError(f"{shown!r}: options are written --name=value; --help lists them")
        name, equals, value = argument[2:].partition("=")
        name = _known(name.replace("-", "_"), f"--{name}")
        given[name] = (f"--{name}", value if equals else _next_value(rest, name))
    return given


def _next_value(rest: collections.deque[str], name: str) -> str:
    if rest and not rest[0].startswith("--"):
        return rest.popleft()
    if name in _SWITCHES:
        return "yes"
    raise OptionError(f"--{name}: needs a value: --{name}=...")


def _known(name: str, origin: str) -> str:
    if name not in FIELDS and name != "config":
        raise OptionError(f"{origin}: no such option; --help lists them")
    return name


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    given: dict[str, tuple[str, str]] = {}
    for name in FIELDS:
        variable = f"LOGSRV_{name.upper()}"
        if variable in environ:
            given[name] = (variable, environ[variable])
        if f"{variable}_FILE" in environ:
            if name in given:
                raise OptionError(f"{variable}_FILE: {variable} is there, too; give one of them")
            given[name] = (f"{variable}_FILE", _content(f"{variable}_FILE", environ[f"{variable}_FILE"]))
    return given


def _content(origin: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{origin}: {path} cannot be read: {error}") from None


def exposed(arguments: Sequence[str]) -> list[str]:
    """The options on the command line that hold a password: every user of the machine can read it there."""
    given = _from_command_line(arguments)
    values = {name: given[name][1] for name in SECRETS if name in given}
    return [name for name, value in values.items() if name == "session_key" or redacted(value) != value]


def _from_file(path: str) -> dict[str, tuple[str, str]]:
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"--config: {path} cannot be read: {error}") from None
    return dict(_from_line(name, value, f"{path}: {name}") for name, value in values.items())


def _from_line(name: str, value: Any, origin: str) -> tuple[str, tuple[str, str]]:
    if name == "config":
        raise OptionError(f"{origin}: no such option; --help lists them")
    name = _known(name.replace("-", "_"), origin)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise OptionError(f"{origin}: must be text or a number")
    return name, (origin, str(value))


def value_name(name: str) -> str:
    """What stands for the value of an option: its unit, or the words there are."""
    check = FIELDS[name].metadata["check"]
    return _VALUE_NAMES.get(check, "TEXT")


def redacted(address: str) -> str:
    """``address``, a URL, with any password replaced by ``***``: fit for a log."""
    return _SECRET_PARAMETER.sub(r"\1***", re.sub(r"(//[^/@:]*:)[^/]*@", r"\1***@", address))
