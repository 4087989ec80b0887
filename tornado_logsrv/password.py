"""The password of the embedded SecantusDB: a loopback port is open to every user of this machine.

    <data_dir>/mongodb.password        random, for this directory for good; mode 0600

It goes to SecantusDB and to the driver over their connection alone: neither a command line nor an environment has it.
"""

import asyncio
import os
import secrets
from pathlib import Path

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from . import embedded
from .embedded import Child
from .errors import StartError

USER = "logsrv"
#: SecantusDB's, and MongoDB's, for a user that is there already.
_USER_EXISTS = 51003


async def mongodb(directory: Path) -> tuple[Child, str]:
    """SecantusDB as ``embedded.mongodb`` has it, which now asks for a password, and its URL with that.

    A directory without a password, be it new or of an earlier version, is given one. Raises StartError.
    """
    path = directory / "mongodb.password"
    try:
        if not path.exists():
            await _give(directory, path)
        password = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise StartError(f"--data_dir: {path} cannot be used: {error}") from None
    child, url = embedded.mongodb(directory, ["--auth"])
    return child, f"{url.replace('://', f'://{USER}:{password}@')}&authSource=admin"


async def _give(directory: Path, path: Path) -> None:
    """Make a password and the user that has it: that takes a SecantusDB which does not ask for one."""
    password = secrets.token_urlsafe(24)
    child, url = embedded.mongodb(directory)
    try:
        await child.start()
        await asyncio.get_running_loop().run_in_executor(None, _set, url, password)
    except PyMongoError as error:
        raise StartError(f"the embedded mongodb takes no user: {error}") from None
    finally:
        await child.stop()
    # Last: without the file, the next start does all this again.
    _keep(path, password)


def _set(url: str, password: str) -> None:
    with pymongo.MongoClient[dict[str, object]](url) as client:
        try:
            client.admin.command("createUser", USER, pwd=password, roles=["root"])
        except OperationFailure as error:
            if error.code != _USER_EXISTS:
                raise
            client.admin.command("updateUser", USER, pwd=password)


def _keep(path: Path, password: str) -> None:
    made = path.with_suffix(".new")
    with open(made, "w", encoding="ascii", opener=_private) as file:
        file.write(password)
    # Whole, or not there.
    os.replace(made, path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
