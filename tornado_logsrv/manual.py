"""``--help``: a page as those of man, made of the options themselves, in 80 columns."""

import textwrap
from collections.abc import Iterable, Iterator

from . import config

WIDTH = 79
_MARGIN = " " * 7

#: What the options are about; those that are in no list come last.
GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Listening",
        (
            "port", "address", "max_connections", "max_body_bytes", "requests_max_bytes", "max_watchers", "transport",
            "reuse_port",
        ),
    ),
    (
        "Storing",
        ("mongo_url", "mongo_db", "mongo_collection", "flush_interval_ms", "batch_size", "query_timeout", "index"),
    ),
    (
        "Keeping what is not stored yet",
        ("ack", "journal_replicas", "stored_timeout", "redis_url", "redis_prefix", "instance", "data_dir",
         "queue_max_bytes", "spool_max_bytes", "shutdown_timeout"),
    ),
    (
        "Who may",
        ("tokens_file", "allow_anonymous", "hosts", "cors_origins", "trusted_proxies", "session_key", "tls_cert",
         "tls_key", "tls_client_ca", "tls_client_auth"),
    ),
    ("Deleting old records", ("retention_days", "retention", "dry_run")),
    ("The server's own log", ("log_level", "log_format", "request_log")),
)  # fmt: skip

_BEFORE = """\
NAME
       tornado_logsrv - take log records by HTTP and store them in MongoDB

SYNOPSIS
       python -m tornado_logsrv [--name=value]...
       python -m tornado_logsrv --help | --version

DESCRIPTION
       Records come in by HTTP, are kept in Redis until MongoDB has them, and
       are written in batches; nothing that is acknowledged is lost. Without
       --mongo_url and --redis_url the server starts a MongoDB and a Redis of
       its own (the extra "embedded"). It stays in the foreground.

OPTIONS
       Hyphens are as good as underscores. SIZE is a number of bytes, or one
       with B, KiB, MiB, GiB, kB, MB or GB; TIME is a number of seconds, or
       one with ms, s, m or h.
"""
_AFTER = """\
ENVIRONMENT
       LOGSRV_NAME
              The value of the option --name. The command line is stronger,
              the file of --config is weaker.
       LOGSRV_NAME_FILE
              The path of a file that holds it, for what is secret.
       LOGSRV_CONFIG
              As --config.
       NOTIFY_SOCKET, WATCHDOG_USEC
              Set by systemd, which is then told what the server does.

FILES
       <data_dir>/mongodb/, valkey/, mongodb.log, valkey.log
              The data and the output of the embedded servers.
       <data_dir>/backup-<instance>-<time>.bson
              What a stop could not give to Redis; read back at the next
              start. bsondump and mongorestore read it, too.
       <data_dir>/spool-<instance>-<time>.bson
              What a full queue has overflowed to.

SIGNALS
       SIGINT, SIGTERM
              Stop: requests are answered, what is not stored is kept. A
              second one skips the waiting.
       SIGHUP
              Read the tokens and the certificates again.

EXIT STATUS
       0      The server has stopped, and nothing is lost.
       1      Records are lost: neither Redis nor a file took them.
       2      It could not start, or another server has its name.

EXAMPLES
       python -m tornado_logsrv --port=8080 --data_dir=/var/lib/logsrv
       LOGSRV_MONGO_URL=mongodb://db/?replicaSet=rs0 python -m tornado_logsrv
       curl -H 'Content-Type: application/json' -d '{"hello":"world"}' \\
              http://127.0.0.1:3000/add-job

SEE ALSO
       python -m tornado_logsrv.token, .verify, .dashboards, each with --help"""


def page() -> str:
    """All of it."""
    return "\n".join([_BEFORE, *_options(), _AFTER])


def _options() -> Iterator[str]:
    general = [
        ("--help, -h", "Print this page, and end."),
        ("--version", "Print the version, and end."),
        ("--config=FILE", "TOML file of options: name = value."),
    ]
    yield _section("General", general)
    listed = {name for _, names in GROUPS for name in names}
    others = ("Others", tuple(name for name in config.FIELDS if name not in listed))
    for title, names in (*GROUPS, others):
        if names:
            yield _section(title, ((_term(name), _text(name)) for name in names))


def _section(title: str, entries: Iterable[tuple[str, str]]) -> str:
    lines = [f"   {title}"]
    for term, text in entries:
        lines += [
            _MARGIN + term,
            *textwrap.wrap(text, WIDTH, initial_indent=_MARGIN * 2, subsequent_indent=_MARGIN * 2),
        ]
    return "\n".join([*lines, ""])


def _term(name: str) -> str:
    return f"--{name}={config.value_name(name)}"


def _text(name: str) -> str:
    """What an option is for, and its default, as one paragraph."""
    metadata = config.FIELDS[name].metadata
    help, default = metadata["help"], metadata["default"]
    return f"{help[0].upper()}{help[1:]}." + (f" Default: {default}." if default else "")
