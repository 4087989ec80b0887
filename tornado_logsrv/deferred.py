"""A result that comes later, and who waits for it told at once."""

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from tornado.concurrent import future_set_result_unless_cancelled

T = TypeVar("T")


class Deferred(Generic[T]):
    """Like a Future with one callback, which is called in place of in the loop's next turn, as Twisted's Deferred does.

    A request at ack=journal waits for two of them: as Futures they cost 4 µs more. Who sets a result must be prepared
    for what the callback does, such as the next request on the same connection.
    """

    __slots__ = ("_callback", "_error", "_result", "done")

    _result: T

    def __init__(self) -> None:
        self.done = False
        self._callback: Callable[[Any], None] | None = None
        self._error: BaseException | None = None

    def add_done_callback(self, callback: "Callable[[Deferred[T]], None]") -> None:
        """``callback``, the only one there may be, is called with this when it is done; at once if it is."""
        assert self._callback is None
        self._callback = callback
        if self.done:
            callback(self)

    def set_result(self, result: T) -> None:
        """It is done."""
        self._result = result
        self._end()

    def set_exception(self, error: BaseException) -> None:
        """It has failed."""
        self._error = error
        self._end()

    def _end(self) -> None:
        assert not self.done
        self.done = True
        if self._callback is not None:
            self._callback(self)

    def result(self) -> T:
        """The result, or raises the error, which is given once. Only when it is ``done``."""
        if self._error is None:
            return self._result
        error, self._error = self._error, None
        try:
            raise error
        finally:
            # The error holds this frame, and with it who waits: held from either, all of a request, its body too,
            # would stay in memory until the garbage collector looks.
            del error

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.add_done_callback(lambda deferred: future_set_result_unless_cancelled(future, None))
            yield from future
        return self.result()
