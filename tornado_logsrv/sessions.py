"""Sign-ins of the web page: a signed cookie that names a token and ends by itself.

It holds no secret, so a stolen one ends with its time; and it is worth nothing any more once its token is gone, or who
signed in has signed out here.
"""

import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from tornado.web import create_signed_value, decode_signed_value

from .errors import StartError

log = logging.getLogger("logsrv.auth")

COOKIE = "logsrv"
#: Seconds that a sign-in lasts.
SECONDS = 12 * 3600
#: How far ahead the clock may have been that a cookie was made by: those of several instances differ.
SKEW_SECONDS = 300
_DAY = 86_400
_KEY_FILE = "session-key"
_KEY_BYTES = 32
_ENDED_FILE = "ended-sessions"
#: So many sign-outs are remembered, each until its sign-in would have ended by itself.
MOST_ENDED = 10_000
_ENDED = re.compile(r"(\d{1,12}) ([0-9a-f]{64}|-)")


def new_value(key: str, digest: str, clock: Callable[[], float] | None = None) -> str:
    """The cookie of who has shown the secret with this SHA-256; ``clock`` is in seconds since 1970."""
    # No two are the same: one that has ended does not come again.
    return create_signed_value(key, COOKIE, f"{digest}.{secrets.token_hex(8)}", clock=clock).decode("ascii")


def digest_in(key: str, value: str, clock: Callable[[], float] | None = None) -> str | None:
    """The SHA-256 of the secret that was shown for a cookie; None for one that is not signed with ``key``, or old.

    None, too, for one of a time that has yet to come: made while the clock was ahead, it would be good for as much
    longer once the clock is right.
    """
    # The format of before has another signature, and a failure of it would be logged with the cookie in it.
    found = decode_signed_value(key, COOKIE, value, max_age_days=SECONDS / _DAY, clock=clock, min_version=2)
    if found is None or _signed_at(value) > (clock or time.time)() + SKEW_SECONDS:
        return None
    return found.decode("ascii").partition(".")[0]


def seconds_left(value: str, clock: Callable[[], float] | None = None) -> float:
    """For how long a cookie, whose signature is good, still is."""
    return _signed_at(value) + SECONDS - (clock or time.time)()


def _signed_at(value: str) -> int:
    """When a cookie whose signature is good was made, in seconds since 1970: ``2|1:0|10:<it>|…``."""
    return int(value.split("|")[2].partition(":")[2])


class Ended:
    """The sign-ins that were ended before their time, in a file of the data directory: a restart does not renew them.

    Where they are more than MOST_ENDED, every sign-in that is as old as the oldest of them has ended.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        """``clock`` is in seconds since 1970. Raises StartError when the file cannot be used."""
        self._path = directory / _ENDED_FILE
        self._clock = clock
        self._made: dict[str, int] = {}
        self._before = 0
        # The first that is added writes all of them; a start writes nothing, for which a disk may have no room.
        self._lines = 2 * MOST_ENDED + 1
        try:
            if self._path.exists():
                for line in self._path.read_text(encoding="ascii", errors="replace").splitlines():
                    # A line that was cut off by a full disk is none.
                    if match := _ENDED.fullmatch(line):
                        self._take(int(match[1]), match[2])
        except OSError as error:
            raise StartError(f"--data_dir: {self._path} cannot be used: {error}") from None

    def __contains__(self, value: str) -> bool:
        """Whether the sign-in of a cookie, whose signature is good, was ended."""
        return _signed_at(value) <= self._before or _name_of(value) in self._made

    def __len__(self) -> int:
        return len(self._made)

    def add(self, value: str) -> None:
        """End the sign-in of a cookie whose signature is good."""
        made, name, before = _signed_at(value), _name_of(value), self._before
        self._take(made, name)
        try:
            if self._before != before or self._lines > 2 * MOST_ENDED:
                self._write_all()
            else:
                with self._path.open("a", encoding="ascii") as file:
                    file.write(f"{made} {name}\n")
                self._lines += 1
        except OSError as error:
            # Half of a line may be there: the next writes all of them.
            self._lines = 2 * MOST_ENDED + 1
            log.error("a sign-out holds only until the next start, %s cannot be written: %s", self._path, error)

    def _take(self, made: int, name: str) -> None:
        if name == "-":
            self._before = max(self._before, made)
        elif made > max(self._before, self._clock() - SECONDS):
            self._made[name] = made
            if len(self._made) > MOST_ENDED:
                self._forget()

    def _forget(self) -> None:
        """Forget those that have ended by themselves; if there are none, end all that are as old as the oldest."""
        oldest = min(self._made.values())
        if oldest > self._clock() - SECONDS:
            self._before = oldest
        before = max(self._before, self._clock() - SECONDS)
        self._made = {name: made for name, made in self._made.items() if made > before}

    def _write_all(self) -> None:
        lines = [f"{self._before} -", *(f"{made} {name}" for name, made in self._made.items())]
        _write_new(self._path, "".join(f"{line}\n" for line in lines))
        self._lines = len(lines)


def _name_of(value: str) -> str:
    """What a cookie is called by, from which nobody can make it."""
    return hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()


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
