"""Tests about the house itself: what imports what, and that the README and the other papers are true."""

import ast
import configparser
import importlib.util
import ipaddress
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tornado.web
import yaml

from tornado_logsrv import config, handler, jsontext, manual, problems, readers, receivers

from .needs import needed

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tornado_logsrv"
MODULES = sorted(PACKAGE.rglob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
#: The log servers of the compose file: the one by itself, and those of the profile "scale".
COMPOSED = {name: service for name, service in COMPOSE["services"].items() if name.startswith("logsrv")}
ROUTES = [*receivers.ROUTES, *readers.ROUTES]

#: Module or directory → floor, as the README's picture of the layout has it.
FLOORS = {name: int(floor) for name, floor in re.findall(r"^(\w+)(?:\.py|/) +(\d+)  ", README, re.MULTILINE)}
SHELL_BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(command) for block in SHELL_BLOCKS for line in block.splitlines() for command in line.split(" && ")
]


def module_name(path: Path) -> str:
    """``writer`` for writer.py, ``readers`` for all in readers/, nothing for the package's own __init__.py."""
    inner = path.relative_to(PACKAGE)
    return inner.parts[0] if len(inner.parts) > 1 else inner.stem.removesuffix("__init__")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """``node`` and all below it, without what only a type checker runs."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from running_nodes(child)


def imported(path: Path) -> Iterator[str]:
    """The full names of all that a module imports."""
    home = [PACKAGE.name, *path.relative_to(PACKAGE).parent.parts] if path.is_relative_to(PACKAGE) else []
    for node in running_nodes(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else []
            yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)


def own_imports() -> Iterator[tuple[str, str]]:
    """Every (importer, imported) of two different modules or directories of the package."""
    for path in MODULES:
        for name in imported(path) if module_name(path) in FLOORS else ():
            first, *rest = name.split(".")
            if first == PACKAGE.name and rest[0] in FLOORS and rest[0] != module_name(path):
                yield module_name(path), rest[0]


def public_definitions() -> Iterator[tuple[str, ast.AST]]:
    """Every public module, class, function and method."""
    for path in MODULES:
        yield str(path.relative_to(ROOT)), tree(path)
        yield from public_members(str(path.relative_to(ROOT)), tree(path))


def public_members(where: str, node: ast.Module | ast.ClassDef) -> Iterator[tuple[str, ast.AST]]:
    for each in node.body:
        if isinstance(each, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not each.name.startswith("_"):
            yield f"{where}: {each.name}", each
            if isinstance(each, ast.ClassDef):
                yield from public_members(f"{where}: {each.name}", each)


def methods(route_handler: type[tornado.web.RequestHandler]) -> Iterator[str]:
    yield from (method for method in handler.methods(route_handler) if method not in ("HEAD", "OPTIONS"))


def test_the_readme_has_a_floor_for_every_module_and_for_nothing_else():
    assert set(FLOORS) == {module_name(path) for path in MODULES} - {""}


def test_a_module_imports_only_from_floors_below_its_own():
    assert {(one, other) for one, other in own_imports() if FLOORS[one] <= FLOORS[other]} == set()


def test_motor_is_imported_in_store_only():
    assert {module_name(path) for path in MODULES for name in imported(path) if name.split(".")[0] == "motor"} == {
        "store"
    }


def test_secantus_is_imported_nowhere():
    everywhere = [*MODULES, *(ROOT / "tests").rglob("*.py")]
    assert [path for path in everywhere for name in imported(path) if name.split(".")[0].startswith("secantus")] == []


def test_what_is_public_has_a_docstring():
    assert [where for where, node in public_definitions() if not ast.get_docstring(node)] == []


def test_the_readme_lists_every_option_with_its_default_and_help_and_no_other():
    rows = [
        (name, field.metadata["default"], field.metadata["help"].replace("<", r"\<"))
        for name, field in config.FIELDS.items()
    ]
    assert re.findall(r"^\| `--(\w+)` \| (?:`(.+?)` )?\| (.*) \|$", README, re.MULTILINE) == rows


def test_every_option_is_in_one_group_of_the_manual():
    assert sorted(name for _, names in manual.GROUPS for name in names) == sorted(config.FIELDS)


def test_every_environment_variable_that_the_readme_names_is_an_option():
    found = {name.lower() for name in re.findall(r"LOGSRV_([A-Z_]+)", README) if not name.startswith("TEST_")}
    named = {name if name in config.FIELDS else name.removesuffix("_file") for name in found}
    # The command tail has two of its own.
    assert named - set(config.FIELDS) <= {"", "config", "name", "url", "token"}


def test_every_route_is_in_the_readme():
    lines = re.findall(r"^(?:### |    )`?(GET|POST|PUT|DELETE) +(/\S*?)`?(?: .*)?$", README, re.MULTILINE)
    shown = [
        (re.sub(r"\(\?P<(?:record_)?(\w+)>[^)]*\)", r"{\1}", path), route_handler) for path, route_handler in ROUTES
    ]
    assert set(lines) == {(method, path) for path, route_handler in shown for method in methods(route_handler)}


def test_every_route_states_what_a_token_needs_for_it():
    ends = [rule.target for rule in (*receivers.FIRST_ROUTES, *receivers.LAST_ROUTES)]
    handlers = [*(route[1] for route in ROUTES), *ends]
    assert [each for each in handlers if not hasattr(each, "scope")] == []


def test_every_parameter_of_logs_is_in_the_readme():
    section = README.partition("### `GET /logs`")[2].partition("\n### ")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == tuple(readers.logs.PARAMETERS)


def test_what_reads_by_get_answers_head_as_well():
    found = {path: handler.methods(route_handler) for path, route_handler in ROUTES}
    assert [path for path, names in found.items() if "GET" in names and "HEAD" not in names] == ["/logs/tail"]


def test_every_problem_is_in_the_readme_with_its_status():
    listed = re.findall(r"^\| `urn:logsrv:problem:([a-z-]+)` \| (\d+) \|$", README, re.MULTILINE)
    assert listed == [(slug, str(status)) for _, status, slug, _ in problems.PROBLEMS]


@pytest.mark.parametrize(
    "body",
    [
        b"18446744073709551616",
        b"1" * 40,
        b"1e999",
        b"[NaN, -Infinity]",
        b'"\\ud800"',
        b'{"\\ud800": 1}',
        b'{"\\u0000": 1}',
        b'{"k": 1, "k": 2}',
        b"[" * 99 + b"]" * 99,
    ],
)
def test_every_change_that_a_note_tells_of_is_in_the_readme(body):
    value, notes = jsontext.read(body)
    changes = [note["change"] for note in notes or jsontext.storable(value)[1]]
    assert changes
    assert [change for change in changes if f"`{change}`" not in README] == []


def test_the_readme_begins_with_the_two_commands():
    run, test = ([shlex.join(command) for command in COMMANDS[at : at + 3]] for at in (0, 3))
    assert run == [
        "python3 -m venv .venv",
        ".venv/bin/pip install '.[embedded,speed]'",
        ".venv/bin/python -m tornado_logsrv",
    ]
    assert test == ["python3 -m venv .venv", ".venv/bin/pip install -e '.[test]'", ".venv/bin/python -m pytest"]


def test_every_extra_that_the_readme_installs_is_one():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = {
        extra for command in COMMANDS for word in command for extra in re.findall(r"(?:^\.\[|,)(\w+)(?=[\],])", word)
    }
    assert extras == set(setup["options.extras_require"])


def test_every_module_that_the_readme_runs_is_there():
    run = {command[command.index("-m") + 1] for command in COMMANDS if "-m" in command}
    assert {name for name in run if importlib.util.find_spec(name) is None} == set()
    assert run >= {"tornado_logsrv", "pytest", "tests.benchmarks"}


def test_every_file_that_the_readme_links_to_is_there():
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def composed(name: str) -> config.Options:
    """The options of a log server of the compose file, each checked."""
    return config.load([], COMPOSED[name]["environment"])


def published(service: dict[str, Any]) -> list[str]:
    return service.get("ports", [])


@pytest.mark.parametrize("name", COMPOSED)
def test_every_logsrv_name_of_the_compose_file_is_an_option_with_a_value_that_is_allowed(name):
    named = {variable.removeprefix("LOGSRV_").lower() for variable in COMPOSED[name]["environment"]}
    assert named <= set(config.FIELDS)
    options = composed(name)
    assert options.instance == ("compose" if name == "logsrv" else name.replace("logsrv", "scale"))
    assert options.address == "0.0.0.0"
    assert f"http://127.0.0.1:{options.port}/healthz" in COMPOSED[name]["healthcheck"]["test"][-1]
    assert COMPOSED[name]["volumes"] == [f"{name}-data:{options.data_dir}"]


def test_the_compose_file_publishes_the_servers_port_and_the_balancers_on_this_machine_alone():
    ports = {name: published(service) for name, service in COMPOSE["services"].items() if published(service)}
    port = composed("logsrv").port
    assert ports == {"logsrv": [f"127.0.0.1:{port}:{port}"], "balancer": ["127.0.0.1:3001:3001"]}


@pytest.mark.parametrize("name", COMPOSED)
def test_the_compose_file_leaves_a_stop_the_time_it_may_take(name):
    grace = COMPOSED[name]["stop_grace_period"]
    assert config.duration(grace) > 2 * composed(name).shutdown_timeout


def test_without_a_profile_the_compose_file_is_the_small_deployment():
    small = {name for name, service in COMPOSE["services"].items() if "profiles" not in service}
    assert small == {"logsrv", "mongodb", "redis"}


def test_the_servers_of_the_scale_profile_believe_its_balancer_alone():
    address = COMPOSE["services"]["balancer"]["networks"]["scale"]["ipv4_address"]
    network = ipaddress.ip_network(COMPOSE["networks"]["scale"]["ipam"]["config"][0]["subnet"])
    assert ipaddress.ip_address(address) in network
    scaled = [composed(name) for name in COMPOSED if name != "logsrv"]
    assert [options.trusted_proxies for options in scaled] == [(ipaddress.ip_network(address),)] * 3
    assert len({options.instance for options in scaled}) == 3


def test_the_servers_of_the_compose_file_are_not_root_and_write_to_their_volume_alone():
    server = COMPOSE["x-server"]
    assert (server["read_only"], server["cap_drop"]) == (True, ["ALL"])
    assert "no-new-privileges:true" in server["security_opt"]
    assert "\nUSER logsrv\n" in server["build"]["dockerfile_inline"]


UNIT = re.search(r"^```ini\n(\[Unit\].*?)^```", README, re.MULTILINE | re.DOTALL)[1]


@pytest.mark.parametrize("wrong", ["", "ProtectNonsense=yes", "SystemCallFilter=@nothing", "WatchdogSec=soon"])
def test_systemd_finds_nothing_wrong_with_the_unit_of_the_readme(tmp_path, wrong):
    program = needed("systemd-analyze", shutil.which("systemd-analyze"))
    # It looks whether the program is there.
    unit = UNIT.replace("/opt/logsrv/bin/python", sys.executable).replace("[Service]\n", f"[Service]\n{wrong}\n")
    (tmp_path / "logsrv.service").write_text(unit)
    command = [program, "verify", "--man=no", str(tmp_path / "logsrv.service")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    # What it does not know it ignores, with status 0.
    assert (run.returncode, run.stdout) == (0, "")
    assert bool(run.stderr) == bool(wrong), run.stderr


def test_the_unit_of_the_readme_fits_the_options():
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read_string(UNIT)
    service = unit["Service"]
    assert service["Type"] == "notify"
    _, dash, module, *arguments = shlex.split(service["ExecStart"])
    assert (dash, module) == ("-m", "tornado_logsrv")
    options = config.load(arguments, {})
    assert options.data_dir == f"/var/lib/{service['StateDirectory']}"
    assert int(service["TimeoutStopSec"]) > 2 * options.shutdown_timeout
    assert int(service["LimitNOFILE"]) > options.max_connections


def test_the_changelog_has_a_place_for_what_is_not_released():
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
