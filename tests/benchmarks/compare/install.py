"""The other servers' packages: Python's in an environment of their own, Node's beside it, in a cache directory."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PYTHON_PACKAGES = ("tornado>=6.5", "aiohttp>=3.10", "uvloop>=0.19", "fastapi>=0.115", "uvicorn[standard]>=0.30")
NODE_PACKAGES = (
    "fastify@5",
    "@nestjs/core@10",
    "@nestjs/common@10",
    "@nestjs/platform-express@10",
    "reflect-metadata@0.2",
    "rxjs@7",
    "mongodb@7",
)
_DONE = "installed.txt"

#: Where packages are kept from one run to the next.
cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tornado_logsrv-benchmarks"


def has_node() -> bool:
    """Whether the Node servers can be measured here."""
    return bool(shutil.which("node") and shutil.which("npm"))


def everything() -> None:
    """Install what is missing, so that nobody waits for it between two rounds. Raises CalledProcessError."""
    python()
    if has_node():
        node_modules()


def python() -> Path:
    """The interpreter that has the Python servers' packages, installed if need be. Raises CalledProcessError."""
    where = cache / "python"
    interpreter = where / "bin" / "python"
    if _is_new(where, PYTHON_PACKAGES):
        venv.create(where, with_pip=True, clear=True)
        _run([str(interpreter), "-m", "pip", "install", "-qq", *PYTHON_PACKAGES], where)
        _is_done(where, PYTHON_PACKAGES)
    return interpreter


def node_modules() -> Path:
    """The directory that has the Node servers' packages, installed if need be. Raises CalledProcessError."""
    where = cache / "node"
    if _is_new(where, NODE_PACKAGES):
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir(parents=True)
        (where / "package.json").write_text('{"private": true}', encoding="ascii")
        quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"]
        _run(["npm", "install", *quiet, *NODE_PACKAGES], where)
        _is_done(where, NODE_PACKAGES)
    return where / "node_modules"


def _run(command: list[str], where: Path) -> None:
    # Standard output is for the figures.
    subprocess.run(command, cwd=where, check=True, stdout=sys.stderr)


def _is_new(where: Path, packages: tuple[str, ...]) -> bool:
    done = where / _DONE
    return not done.exists() or done.read_text(encoding="ascii") != _list(packages)


def _is_done(where: Path, packages: tuple[str, ...]) -> None:
    (where / _DONE).write_text(_list(packages), encoding="ascii")


def _list(packages: tuple[str, ...]) -> str:
    return "\n".join(packages)
