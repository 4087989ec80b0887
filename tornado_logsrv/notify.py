"""What systemd is told of this process, where it asks for that (sd_notify(3), a unit with ``Type=notify``)."""

import logging
import os
import socket
import time
from collections.abc import Mapping

log = logging.getLogger("logsrv")

#: How often the state is told; more often where a watchdog wants a sign of life.
STATUS_SECONDS = 5.0


class Notifier:
    """Sends states to the socket that ``environ`` names; without one it does nothing."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        # @ stands for the NUL that an abstract socket's name begins with.
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        mine = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        self._watchdog_seconds = int(environ.get("WATCHDOG_USEC", "0")) / 1e6 if mine else 0.0
        self._failed = False

    @property
    def wanted(self) -> bool:
        """Whether somebody listens."""
        return bool(self._address)

    @property
    def pause_seconds(self) -> float:
        """How long to wait between two signs of life: half of what the watchdog waits (sd_watchdog_enabled(3))."""
        return min(STATUS_SECONDS, self._watchdog_seconds / 2) if self._watchdog_seconds else STATUS_SECONDS

    def ready(self) -> None:
        """Requests are taken."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Files are read again; ``ready`` says when that is done."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def alive(self, status: str) -> None:
        """A sign of life, and a line for people."""
        self._send(f"STATUS={status}", *(["WATCHDOG=1"] if self._watchdog_seconds else []))

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                # The server waits for nobody, also not for a systemd that is busy.
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if not self._failed:
                log.warning("systemd cannot be told what this server does: %s", error)
            self._failed = True
