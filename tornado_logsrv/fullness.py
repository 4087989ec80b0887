"""Whether there is room for records, as the log tells it: a line when that changes, however often it is looked at."""

import logging

log = logging.getLogger("logsrv.queue")

#: There is room again when the queue is less full than this: one that is full and drained by turns is no news.
ROOM_AGAIN = 0.9


class Fullness:
    """What was told last."""

    def __init__(self) -> None:
        self._is_full = False
        self._overflows = False

    def look(self, *, share: float, is_full: bool, spooled: int, waiting: int) -> None:
        """Tell what has changed.

        ``share`` of the queue is in use, and ``is_full`` when the spool, if there is one, has no room either;
        ``spooled`` of the records that are ``waiting`` are in it.
        """
        if is_full and not self._is_full:
            self._is_full = True
            log.warning("the queue is full, requests with records get 503; %d records wait", waiting)
        elif self._is_full and not is_full and (share < ROOM_AGAIN or spooled):
            self._is_full = False
            log.info("there is room for records again; %d wait", waiting)
        if (spooled > 0) != self._overflows:
            self._overflows = spooled > 0
            if self._overflows:
                log.warning("the queue overflows to files in --data_dir; %d records wait", waiting)
            else:
                log.info("the files that the queue had overflowed to are read back; %d records wait", waiting)
