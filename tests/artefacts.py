"""What is built is whole, and runs where the checkout is not: ``python tests/artefacts.py DIST PACKAGE``.

It runs in an environment that has the wheel alone, with the standard library.
"""

import json
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from pathlib import Path

import tornado_logsrv


def main(dist: Path, package: Path) -> None:
    """Raises AssertionError."""
    assert not Path(tornado_logsrv.__file__).is_relative_to(package.parent), "this is the checkout"
    wanted = {str(path.relative_to(package.parent)) for path in package.rglob("*") if is_part(path)}
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        assert wanted - set(archive.namelist()) == set(), "not in the wheel"
    with tarfile.open(source) as archive:
        assert wanted - {name.partition("/")[2] for name in archive.getnames()} == set(), "not in the sdist"
    assert run("--version") == f"tornado_logsrv {tornado_logsrv.__version__}\n"
    assert run("--help").startswith("NAME\n")
    with tempfile.TemporaryDirectory(prefix="logsrv-artefact-") as directory:
        serve(directory)
    print(f"{len(wanted)} files are in {wheel.name} and {source.name}, and the server runs")


def is_part(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "tornado_logsrv", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def serve(directory: str) -> None:
    """Start a server, have it store a record and answer the page, and stop it."""
    command = [sys.executable, "-m", "tornado_logsrv", "--port=0", "--ack=stored", f"--data_dir={directory}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"listens on (\S+)", server.stdout.readline())
        assert found is not None, "it did not start"
        answer = urllib.request.urlopen(
            urllib.request.Request(f"{found[1]}/add-job", b"{}", {"Content-Type": "application/json"}), timeout=60
        )
        assert (answer.status, json.load(answer)["ack"]) == (202, "stored")
        page(found[1])
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0


MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def page(url: str) -> None:
    """All files of the page are answered as they are installed, each as what it is."""
    files = {path.name: path for path in (Path(tornado_logsrv.__file__).parent / "static").iterdir()}
    assert "index.html" in files, "the page is not installed"
    for name, path in files.items():
        target = "/" if name == "index.html" else f"/static/{name}"
        request = urllib.request.Request(url + target, headers={"Accept": "text/html"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.headers["Content-Type"] == f"{MEDIA_TYPES[path.suffix]}; charset=utf-8", target
            assert answer.read() == path.read_bytes(), target


if __name__ == "__main__":
    main(*(Path(argument).absolute() for argument in sys.argv[1:3]))
