"""``--help`` of every command: as a page of man, whole, and in 80 columns."""

import os
import re
import subprocess
import sys

import pytest

from tornado_logsrv import config, manual, server

SECTIONS = [
    "NAME",
    "SYNOPSIS",
    "DESCRIPTION",
    "OPTIONS",
    "ENVIRONMENT",
    "FILES",
    "SIGNALS",
    "EXIT STATUS",
    "EXAMPLES",
    "SEE ALSO",
]
PAGE = manual.page()


def paragraph(name: str) -> str:
    """What the page says of an option, in one line."""
    found = re.search(rf"^ {{7}}--{name}=\S+\n((?: {{14}}.*\n)+)", PAGE, re.MULTILINE)
    assert found is not None, name
    return re.sub(r"\s+", " ", found[1]).strip()


def test_it_has_the_sections_of_a_manual_page_in_their_order():
    assert re.findall(r"^[A-Z][A-Z ]+$", PAGE, re.MULTILINE) == SECTIONS


def test_it_fits_80_columns():
    assert [line for line in PAGE.splitlines() if len(line) > 79 or line != line.rstrip()] == []


@pytest.mark.parametrize("name", config.FIELDS)
def test_every_option_is_there_with_its_value_its_help_and_its_default(name):
    metadata = config.FIELDS[name].metadata
    assert f"\n       --{name}={config.value_name(name)}\n" in PAGE
    assert metadata["help"][1:] in paragraph(name)
    assert paragraph(name).endswith(f" Default: {metadata['default']}." if metadata["default"] else ".")


def test_every_signal_that_is_handled_is_there():
    assert {*re.findall(r"SIG[A-Z]+", PAGE.replace("SIGNALS", ""))} == {
        *(number.name for number in server.SIGNALS),
        "SIGHUP",
    }


def test_main_prints_it_and_ends_with_status_0(capsys, monkeypatch):
    monkeypatch.delattr(server, "Server")
    assert server.main(["--help"]) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (PAGE + "\n", "")


@pytest.mark.parametrize("command", ["token", "verify", "dashboards"])
def test_the_other_commands_have_a_page_that_fits_80_columns(command):
    run = subprocess.run(
        [sys.executable, "-m", f"tornado_logsrv.{command}", "--help"],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"}, timeout=60,
    )  # fmt: skip
    assert run.stdout.startswith(f"usage: python -m tornado_logsrv.{command} ")
    assert "exit status" in run.stdout.lower()
    assert [line for line in run.stdout.splitlines() if len(line) > 80] == []
