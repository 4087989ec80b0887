"""Sign-ins of the web page: a signed cookie that names a token and ends by itself.

It holds no secret, so a stolen one ends with its time; and it is worth nothing any more once its token is gone.
"""

import os
import secrets
from pathlib import Path

from tornado.web import create_signed_value, decode_signed_value

from .errors import StartError

COOKIE = "logsrv"
#: Seconds that a sign-in lasts.
SECONDS = 12 * 3600
_DAY = 86_400
_KEY_FILE = "session-key"
_KEY_BYTES = 32


def new_value(key: str, digest: str) -> str:
    """The cookie of who has shown the secret with this SHA-256."""
    return create_signed_value(key, COOKIE, digest).decode("ascii")


def digest_in(key: str, value: str) -> str | None:
    """The SHA-256 of the secret that was shown for a cookie; None for one that is not signed with ``key``, or old."""
    digest = decode_signed_value(key, COOKIE, value, max_age_days=SECONDS / _DAY)
    return None if digest is None else digest.decode("ascii")


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
