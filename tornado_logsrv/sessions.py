"""Sign-ins of the web page: a signed cookie that names a token and ends by itself.

It holds no secret, so a stolen one ends with its time; and it is worth nothing any more once its token is gone.
"""

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from tornado.web import create_signed_value, decode_signed_value

from .errors import StartError

COOKIE = "logsrv"
#: Seconds that a sign-in lasts.
SECONDS = 12 * 3600
#: How far ahead the clock may have been that a cookie was made by: those of several instances differ.
SKEW_SECONDS = 300
_DAY = 86_400
_KEY_FILE = "session-key"
_KEY_BYTES = 32


def new_value(key: str, digest: str, clock: Callable[[], float] | None = None) -> str:
    """The cookie of who has shown the secret with this SHA-256; ``clock`` is in seconds since 1970."""
    return create_signed_value(key, COOKIE, digest, clock=clock).decode("ascii")


def digest_in(key: str, value: str, clock: Callable[[], float] | None = None) -> str | None:
    """The SHA-256 of the secret that was shown for a cookie; None for one that is not signed with ``key``, or old.

    None, too, for one of a time that has yet to come: made while the clock was ahead, it would be good for as much
    longer once the clock is right.
    """
    # The format of before has another signature, and a failure of it would be logged with the cookie in it.
    found = decode_signed_value(key, COOKIE, value, max_age_days=SECONDS / _DAY, clock=clock, min_version=2)
    if found is None or _signed_at(value) > (clock or time.time)() + SKEW_SECONDS:
        return None
    return found.decode("ascii")


def seconds_left(value: str, clock: Callable[[], float] | None = None) -> float:
    """For how long a cookie, whose signature is good, still is."""
    return _signed_at(value) + SECONDS - (clock or time.time)()


def _signed_at(value: str) -> int:
    """When a cookie whose signature is good was made, in seconds since 1970: ``2|1:0|10:<it>|…``."""
    return int(value.split("|")[2].partition(":")[2])


def own_key(directory: Path) -> str:
    """The key of this data directory, made when there is none: a restart signs nobody out. Raises StartError."""
    path = directory / _KEY_FILE
    try:
        if not path.exists():
            _write_new(path, secrets.token_hex(_KEY_BYTES))
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"--data_dir: {path} cannot be used: {error}") from None


def _write_new(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(text)
    os.replace(part, path)
