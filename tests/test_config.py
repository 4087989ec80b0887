import re
from ipaddress import ip_network

import pytest

from tornado_logsrv import config, server
from tornado_logsrv.config import FIELDS, HelpRequested, load, redacted
from tornado_logsrv.errors import OptionError
from tornado_logsrv.rules import Rule

#: For every option: a value that is not its default, and what it is once read.
GIVEN = {
    "port": ("8080", 8080),
    "address": ("::1", "::1"),
    "data_dir": ("/srv/logs", "/srv/logs"),
    "instance": ("a", "a"),
    "mongo_url": ("mongodb://db.example/", "mongodb://db.example/"),
    "mongo_db": ("other", "other"),
    "mongo_collection": ("jobs", "jobs"),
    "redis_url": ("rediss://cache.example/1", "rediss://cache.example/1"),
    "redis_prefix": ("other", "other"),
    "flush_interval_ms": ("100", 100),
    "batch_size": ("10", 10),
    "ack": ("memory", "memory"),
    "journal_replicas": ("1", 1),
    "stored_timeout": ("8s", 8.0),
    "query_timeout": ("2m", 120.0),
    "index": ("level, data.trace_id,source", ("data.level", "data.trace_id", "source")),
    "spool_max_bytes": ("1GiB", 1 << 30),
    "transport": ("tornado", "tornado"),
    "requests_max_bytes": ("64MiB", 64 * 1024 * 1024),
    "max_connections": ("500", 500),
    "max_watchers": ("50", 50),
    "reuse_port": ("yes", "yes"),
    "queue_max_bytes": ("1GiB", 1 << 30),
    "max_body_bytes": ("64kB", 64_000),
    "tokens_file": ("tokens.toml", "tokens.toml"),
    "allow_anonymous": ("yes", "yes"),
    "hosts": ("logs.example, 10.0.0.7", ("logs.example", "10.0.0.7")),
    "cors_origins": ("https://app.example,http://localhost:8080", ("https://app.example", "http://localhost:8080")),
    "trusted_proxies": ("10.0.0.7, fd00::/8", (ip_network("10.0.0.7/32"), ip_network("fd00::/8"))),
    "session_key": ("k" * 32, "k" * 32),
    "tls_cert": ("cert.pem", "cert.pem"),
    "tls_key": ("key.pem", "key.pem"),
    "tls_client_ca": ("ca.pem", "ca.pem"),
    "tls_client_auth": ("optional", "optional"),
    "retention_days": ("30", 30),
    "retention": ("level=debug:3", (Rule("level", "debug", 3),)),
    "dry_run": ("yes", "yes"),
    "shutdown_timeout": ("1m", 60.0),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
    "request_log": ("yes", "yes"),
}
#: For every option that is checked: values that are not allowed, and what the message says is.
WRONG = {
    "port": (["", "-1", "65536", "3000.5", "http", " 80", "\uff11"], "must be a whole number from 0 to 65535"),
    "address": ([""], "must not be empty"),
    "data_dir": ([""], "must not be empty"),
    "mongo_url": (
        ["localhost", "http://db/", "mongodb:/db"],
        "must be empty or start with mongodb:// or mongodb+srv://",
    ),
    "mongo_db": (["", "a b", "a/b", "a.b", "x" * 64], "must be 1 to 63 letters, digits and _ -"),
    "mongo_collection": (["", "a b", "a$b", ".a", "a.", "a..b", "system.a"], "must be 1 to 120 letters"),
    "redis_url": (["localhost:6379", "redis:", "mongodb://db/"], "must be empty or start with redis:// or rediss://"),
    "redis_prefix": (["", "a b", "ä", "x" * 121], "must be 1 to 120 letters, digits and . _ : -"),
    "flush_interval_ms": (["9", "3600001", "5s"], "must be a whole number from 10 to 3600000"),
    "batch_size": (["0", "1001", "1e3"], "must be a whole number from 1 to 1000"),
    "ack": (["", "all"], "must be one of memory, journal, stored"),
    "journal_replicas": (["", "-1", "11"], "must be a whole number from 0 to 10"),
    "stored_timeout": (["", "-1", "soon"], "must be a time such as 500ms, 30s or 5m"),
    "query_timeout": (["", "0", "0ms", "soon"], "must be a time such as 500ms, 30s or 5m"),
    "index": (["a.b", "$a", "level,a..b"], "must be names such as level,trace_id: keys of data"),
    "spool_max_bytes": (["", "-1", "lots"], "must be a size such as 16MiB or 500kB"),
    "transport": (["", "asyncio"], "must be one of auto, httptools, tornado"),
    "requests_max_bytes": (["-1", "much"], "must be a size such as 16MiB or 500kB"),
    "max_connections": (["0", "many"], "must be a whole number from 1 to 1000000"),
    "max_watchers": (["-1", "many"], "must be a whole number from 0 to 100000"),
    "reuse_port": (["", "maybe"], "must be one of yes, no"),
    "queue_max_bytes": (["", "-1", "lots", "1 parsec", "1e3", "9" * 400], "must be a size such as 16MiB or 500kB"),
    "max_body_bytes": (["", "MiB", "1..5MiB", "1s"], "must be a size such as 16MiB or 500kB"),
    "allow_anonymous": (["", "true"], "must be one of yes, no"),
    "hosts": (["http://x", "a b", "x/y", "ä"], "must be names such as logs.example,10.0.0.7 without ports"),
    "cors_origins": (["*", "app.example", "https://app.example/"], "must be origins such as https://app.example,"),
    "trusted_proxies": (["balancer", "10.0.0.1/8", "10.0.0.7:80"], "must be addresses or networks such as 10.0.0.7,"),
    "session_key": (["short"], "must be empty or at least 32 characters, random ones"),
    "tls_client_auth": (["", "none"], "must be one of optional, required"),
    "retention_days": (["", "-1", "1.5", "24001"], "must be a whole number from 0 to 24000"),
    "retention": (
        ["debug:3", "level=debug", "level=debug:0", "level=:3", "host=a:3", "level=a b:3", "level=a:24001"],
        "must be like level=debug:3,source=otlp:7, with 1 to 24000 days",
    ),
    "dry_run": (["", "on"], "must be one of yes, no"),
    "shutdown_timeout": (["", "-1s", "soon", "1MiB", "9" * 400], "must be a time such as 500ms, 30s or 5m"),
    "log_level": (["", "INFO", "trace"], "must be one of debug, info, warning, error"),
    "log_format": (["", "xml"], "must be one of text, json"),
    "request_log": (["", "on"], "must be one of yes, no"),
}
WRONG_VALUES = [(name, value, allowed) for name, (values, allowed) in WRONG.items() for value in values]


def variable(name: str) -> str:
    return f"LOGSRV_{name.upper()}"


@pytest.fixture
def file(tmp_path):
    """``file("port = 1")`` is the path of a file that says so."""

    def write(content: str | bytes) -> str:
        path = tmp_path / "logsrv.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    """What the machine sets is no part of these tests."""
    for name in [*FIELDS, "config"]:
        monkeypatch.delenv(variable(name), raising=False)
        monkeypatch.delenv(f"{variable(name)}_FILE", raising=False)


def test_there_is_a_value_here_for_every_option():
    assert set(GIVEN) == set(FIELDS)


def test_nothing_given_is_the_defaults():
    assert load([], {}) == config.Options()


def test_the_defaults_are_the_values_that_their_texts_say():
    texts = [f"--{name}={field.metadata['default']}" for name, field in FIELDS.items()]
    assert load(texts, {}) == load([], {})


@pytest.mark.parametrize("name", FIELDS)
def test_an_option_is_taken_from_the_command_line(name):
    text, value = GIVEN[name]
    assert getattr(load([f"--{name}={text}"], {}), name) == value
    assert getattr(load([f"--{name}", text], {}), name) == value


@pytest.mark.parametrize("name", FIELDS)
def test_hyphens_are_as_good_as_underscores(name, file):
    text, value = GIVEN[name]
    hyphenated = name.replace("_", "-")
    assert getattr(load([f"--{hyphenated}={text}"], {}), name) == value
    assert getattr(load([f"--config={file(f'{hyphenated} = {text!r}')}"], {}), name) == value


@pytest.mark.parametrize("name", FIELDS)
def test_an_option_is_taken_from_the_environment(name):
    text, value = GIVEN[name]
    assert getattr(load([], {variable(name): text}), name) == value


@pytest.mark.parametrize("name", FIELDS)
def test_an_option_is_taken_from_the_file(name, file):
    text, value = GIVEN[name]
    assert getattr(load([f"--config={file(f'{name} = {text!r}')}"], {}), name) == value


@pytest.mark.parametrize("name", sorted(set(FIELDS) - {"tokens_file"}))
def test_an_option_is_taken_from_the_file_that_a_variable_names(name, file):
    text, value = GIVEN[name]
    assert getattr(load([], {f"{variable(name)}_FILE": file(f"{text}\n")}), name) == value


def test_a_variable_and_one_that_names_a_file_are_one_too_many(file):
    with pytest.raises(OptionError, match=r"^LOGSRV_PORT_FILE: LOGSRV_PORT is there, too; give one of them$"):
        load([], {"LOGSRV_PORT": "1", "LOGSRV_PORT_FILE": file("2")})


def test_a_file_of_a_value_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OptionError, match=r"^LOGSRV_MONGO_URL_FILE: .*/none cannot be read: "):
        load([], {"LOGSRV_MONGO_URL_FILE": str(tmp_path / "none")})


def test_a_wrong_secret_in_a_file_is_not_shown(file):
    with pytest.raises(OptionError) as wrong:
        load([], {"LOGSRV_REDIS_URL_FILE": file("http://user:s3cret@db/")})
    assert str(wrong.value).startswith("LOGSRV_REDIS_URL_FILE: must be empty or start with redis://")
    assert "s3cret" not in str(wrong.value)


def test_a_password_on_the_command_line_is_told_of():
    given = ["--mongo_url=mongodb://u:s3cret@db/", "--redis_url", "redis://cache", f"--session-key={'k' * 32}"]
    assert config.exposed(given) == ["mongo_url", "session_key"]
    assert config.exposed(["--mongo_url=mongodb://db/"]) == []


def test_the_file_may_say_numbers_as_numbers(file):
    path = file("port = 1\nqueue_max_bytes = 1_000_000\nshutdown_timeout = 2.5")
    options = load(["--config", path], {})
    assert (options.port, options.queue_max_bytes, options.shutdown_timeout) == (1, 1_000_000, 2.5)


def test_the_file_may_be_named_in_the_environment(file):
    assert load([], {"LOGSRV_CONFIG": file("port = 1")}).port == 1


def test_the_command_line_is_stronger_than_the_environment_and_that_than_the_file(file):
    path = file("port = 1\nbatch_size = 1\ninstance = 'file'")
    environment = {"LOGSRV_PORT": "2", "LOGSRV_BATCH_SIZE": "2"}
    options = load([f"--config={path}", "--port=3"], environment)
    assert (options.port, options.batch_size, options.instance) == (3, 2, "file")


def test_the_file_of_the_command_line_is_stronger_than_that_of_the_environment(file):
    assert load([f"--config={file('port = 1')}"], {"LOGSRV_CONFIG": "/not/there"}).port == 1


def test_what_is_weaker_and_wrong_does_not_matter():
    assert load(["--port=3"], {"LOGSRV_PORT": "wrong"}).port == 3


def test_the_last_of_two_is_taken():
    assert load(["--port=1", "--port", "2"], {}).port == 2


def test_a_value_may_hold_an_equals_sign():
    assert load(["--mongo_url=mongodb://h/?w=1"], {}).mongo_url == "mongodb://h/?w=1"


def test_an_empty_url_in_the_environment_asks_for_the_embedded_server():
    assert load([], {"LOGSRV_MONGO_URL": "", "LOGSRV_REDIS_URL": ""}).mongo_url == ""


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("1B", 1),
        ("1KiB", 1024),
        ("1MiB", 1024**2),
        ("1GiB", 1024**3),
        ("1kB", 1000),
        ("1MB", 1000**2),
        ("1GB", 1000**3),
        ("1.5MiB", 1536 * 1024),
        (" 16 mib ", 16 * 1024**2),
    ],
)
def test_a_size_takes_a_unit(text, size):
    assert load([f"--max_body_bytes={text}"], {}).max_body_bytes == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("7", 7), ("7s", 7), ("500ms", 0.5), ("1.5s", 1.5), ("2m", 120), ("1h", 3600), (" 3 S ", 3)],
)
def test_a_time_takes_a_unit(text, seconds):
    assert load([f"--shutdown_timeout={text}"], {}).shutdown_timeout == seconds


@pytest.mark.parametrize(("name", "value", "allowed"), WRONG_VALUES)
def test_a_wrong_value_names_the_option_and_what_is_allowed(name, value, allowed):
    with pytest.raises(OptionError) as wrong:
        load([f"--{name}={value}"], {})
    assert str(wrong.value).startswith(f"--{name}: {allowed}")


def test_a_wrong_value_is_shown_but_not_at_any_length():
    with pytest.raises(OptionError, match=r"\(given: 'x{80}'\)$"):
        load([f"--port={'x' * 1000}"], {})


def test_a_wrong_value_in_the_environment_names_the_variable():
    with pytest.raises(OptionError, match=r"^LOGSRV_BATCH_SIZE: must be a whole number from 1 to 1000 \(given: '0'\)$"):
        load([], {"LOGSRV_BATCH_SIZE": "0"})


def test_a_wrong_value_in_the_file_names_the_file_and_the_option(file):
    path = file("batch-size = 0")
    with pytest.raises(OptionError, match=rf"^{re.escape(path)}: batch-size: must be a whole number from 1 to 1000"):
        load(["--config", path], {})


@pytest.mark.parametrize("value", ["true", "[1]", "{a = 1}", "2026-01-31"])
def test_a_value_in_the_file_that_is_neither_text_nor_number_is_refused(file, value):
    path = file(f"instance = {value}")
    with pytest.raises(OptionError, match=rf"^{re.escape(path)}: instance: must be text or a number"):
        load(["--config", path], {})


@pytest.mark.parametrize("argument", ["--prot=1", "--", "--=1", "--PORT=1", "--port_=1"])
def test_an_unknown_option_is_named(argument):
    with pytest.raises(OptionError) as wrong:
        load([argument], {})
    assert str(wrong.value) == f"{argument.partition('=')[0]}: no such option; --help lists them"


@pytest.mark.parametrize("line", ["prot = 1", "[server]", "config = 'other.toml'"])
def test_an_unknown_option_in_the_file_is_named(file, line):
    path = file(line)
    with pytest.raises(OptionError, match=rf"^{re.escape(path)}: \w+: no such option; --help lists them$"):
        load(["--config", path], {})


@pytest.mark.parametrize("argument", ["3000", "-p", "port=3000", ""])
def test_an_argument_that_is_no_option_is_told_how_one_is_written(argument):
    with pytest.raises(OptionError, match=r"options are written --name=value; --help lists them$"):
        load([argument], {})


@pytest.mark.parametrize("arguments", [["--port"], ["--port", "--address=::1"]])
def test_an_option_without_a_value_is_told_so(arguments):
    with pytest.raises(OptionError, match=r"^--port: needs a value: --port=\.\.\.$"):
        load(arguments, {})


def test_a_dry_run_needs_no_value():
    assert load(["--dry_run", "--port=1"], {}).dry_run == load(["--dry-run=yes"], {}).dry_run == "yes"


def test_a_rule_only_shortens_what_is_kept():
    assert load(["--retention_days=8", "--retention=source=otlp:7"], {}).retention_days == 8
    for days in (8, 9):
        with pytest.raises(OptionError, match=r"^--retention: source=otlp must be kept for fewer days than all \(8, "):
            load(["--retention_days=8", f"--retention=source=otlp:{days}"], {})
    with pytest.raises(OptionError, match="has level=a twice"):
        load(["--retention=level=a:1,level=a:2"], {})


@pytest.mark.parametrize("content", [b"port = ", b"port = 1\nport = 2", b"\xff", b"port: 1"])
def test_a_file_that_is_no_toml_is_named(file, content):
    path = file(content)
    with pytest.raises(OptionError, match=rf"^--config: {re.escape(path)} cannot be read: "):
        load(["--config", path], {})


def test_a_file_that_is_not_there_or_is_a_directory_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(OptionError, match=rf"^--config: {re.escape(str(path))} cannot be read: "):
            load([f"--config={path}"], {})


@pytest.mark.parametrize(
    "arguments",
    [
        ["--mongo_url=http://user:s3cret@db/"],
        ["--redis_url=http://user:s3cret@db/"],
        ["--mongo_url=mongodb://user:s3c/s3cret@db/"],
        ["--redis_url=redis://user:s3cret/x@db"],
        ["--redis_url=redis://user:x@s3cret@db"],
        ["-mongo_url=mongodb://user:s3cret@db/"],
        ["mongodb://user:s3cret@db/"],
        ["--mongo_ulr=mongodb://user:s3cret@db/"],
    ],
)
def test_a_password_is_not_in_the_message(arguments):
    with pytest.raises(OptionError) as wrong:
        load(arguments, {})
    assert "s3cret" not in str(wrong.value)


def test_a_password_in_the_file_is_not_in_the_message(file):
    with pytest.raises(OptionError) as wrong:
        load(["--config", file("mongo_url = 'http://user:s3cret@db/'")], {})
    assert "s3cret" not in str(wrong.value)


@pytest.mark.parametrize("argument", ["--help", "-h"])
def test_help_is_asked_for_among_other_options(argument):
    with pytest.raises(HelpRequested, match=r"^help$"):
        load(["--port=1", argument], {})


@pytest.mark.parametrize(
    ("name", "value_name"),
    [("port", "N"), ("queue_max_bytes", "SIZE"), ("stored_timeout", "TIME"), ("mongo_url", "URL"), ("tls_key", "TEXT"),
     ("ack", "memory|journal|stored")],
)  # fmt: skip
def test_an_option_says_what_its_value_is(name, value_name):
    assert config.value_name(name) == value_name


def test_main_prints_the_version_and_ends_with_status_0(capsys, monkeypatch):
    monkeypatch.delattr(server, "Server")
    assert server.main(["--version"]) == 0
    assert re.fullmatch(r"tornado_logsrv \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.mark.parametrize(("name", "value", "allowed"), WRONG_VALUES)
def test_main_says_a_wrong_value_in_one_line_and_ends_with_status_2(capsys, monkeypatch, name, value, allowed):
    monkeypatch.delattr(server, "Server")
    assert server.main([f"--{name}={value}"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(rf"tornado_logsrv: --{name}: {re.escape(allowed)}.*\n", printed.err)


def test_main_reads_the_environment(capsys, monkeypatch):
    monkeypatch.delattr(server, "Server")
    monkeypatch.setenv("LOGSRV_LOG_LEVEL", "loud")
    assert server.main([]) == 2
    assert capsys.readouterr().err.startswith("tornado_logsrv: LOGSRV_LOG_LEVEL: must be one of debug, info, warning")


def test_options_cannot_be_changed_once_read():
    with pytest.raises(AttributeError):
        load([], {}).port = 1


def test_the_instance_is_named_by_host_and_port_where_no_name_is_given(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "web 1")
    assert load(["--port=8080"], {}).instance_name == "web_1:8080"
    assert load(["--instance=a/b"], {}).instance_name == "a_b"
    assert len(load([f"--instance={'x' * 500}"], {}).instance_name) == 120


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mongodb://db.example:27017/?w=1", "mongodb://db.example:27017/?w=1"),
        ("mongodb://user@db.example/", "mongodb://user@db.example/"),
        ("mongodb://user:s3cret@a.example,b.example/", "mongodb://user:***@a.example,b.example/"),
        ("mongodb+srv://user:s3%40cret@db.example", "mongodb+srv://user:***@db.example"),
        ("redis://:s3cret@cache.example/0", "redis://:***@cache.example/0"),
        ("redis://user:s3:cret@cache.example", "redis://user:***@cache.example"),
        ("rediss://user:s3@cret@cache.example", "rediss://user:***@cache.example"),
        ("unix:///run/valkey.sock", "unix:///run/valkey.sock"),
        ("unix://user:s3cret@/run/valkey.sock", "unix://user:***@/run/valkey.sock"),
        ("redis://cache.example?db=1&password=s3cret", "redis://cache.example?db=1&password=***"),
        ("redis://cache.example?password=s3cret&db=1", "redis://cache.example?password=***&db=1"),
        ("mongodb://h/?tlsCertificateKeyFilePassword=s3cret", "mongodb://h/?tlsCertificateKeyFilePassword=***"),
        (
            "mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:s3cret&w=1",
            "mongodb://h/?authMechanismProperties=***&w=1",
        ),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert redacted(url) == shown
