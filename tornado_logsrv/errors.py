"""What can go wrong, as one tree. Nothing here knows HTTP; handler.py holds the table of answers.

LogsrvError
├── StartError                  the server cannot start: the message says why and what to do
│   └── OptionError             an option's value is not one that is allowed
├── Refused                     a request cannot be taken; nothing of it was
│   ├── Unreadable              the bytes are not what they claim to be
│   ├── BadParameter            a query parameter is not one that is allowed
│   ├── UnsupportedMedia        a media type or content coding that this server does not read
│   ├── TooLarge                the request, or a record in it, is over a limit
│   ├── NotFound                there is nothing of that name
│   ├── StillRefused            what was in quarantine is refused again
│   ├── QueryTimeout            MongoDB has not answered a query in the time it may take
│   ├── Denied                  who asks may not
│   │   ├── Unauthenticated     it is not known who asks
│   │   └── Forbidden           it is, or need not be, and may not
│   └── Unavailable             try again later
│       ├── RateLimited         who asks has sent too much lately
│       ├── QueueFull           the queue has no room for the request's records
│       ├── JournalUnavailable  Redis cannot take the request's records now
│       ├── StoreUnavailable    MongoDB cannot be used now
│       ├── TooManyWatchers     there are as many tails as there may be
│       ├── TooManyConnections  there are as many connections as there may be
│       ├── Overloaded          what is on its way has taken all memory there is for it
│       └── StoredTimeout       taken and kept, but not confirmed by MongoDB in time
├── ChangesLost                 MongoDB cannot tell any more all that has been stored meanwhile
├── NoChangeStreams             MongoDB cannot tell at all what others store
└── LeaseHeld                   another live process has this one's name
"""


class LogsrvError(Exception):
    """The root: whatever this package raises on purpose."""


class StartError(LogsrvError):
    """The server cannot start; the message is one line for the person who started it."""


class OptionError(StartError):
    """An option is unknown or its value is not allowed; the message names it and what is allowed."""


class Refused(LogsrvError):
    """A request cannot be taken, and nothing of it was. ``told`` is the message for the client."""

    @property
    def told(self) -> str:
        """The message, unless it is nothing for those outside."""
        return str(self)


class Unreadable(Refused):
    """The body is not what it claims to be; the message says where."""


class BadParameter(Refused):
    """The query parameter ``name`` has a value that is not allowed, at ``column`` (from 1) where that is known.

    ``nearest`` is one that is allowed, and may be meant; empty where none is near.
    """

    def __init__(self, name: str, problem: str, column: int | None = None) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.column = column
        self.nearest = ""


class UnsupportedMedia(Refused):
    """The body's media type, character set or content coding is not one that this route reads."""


class TooLarge(Refused):
    """The body, or one record in it, is over a limit; the message names the limit."""


class NotFound(Refused):
    """There is no such thing as the request names."""


class StillRefused(Refused):
    """MongoDB refuses a record from the quarantine again; it stays there."""


class QueryTimeout(Refused):
    """A query takes longer than it may; asked again it would do so again."""


class Denied(Refused):
    """Who asks may not; nothing of the request has been read."""


class Unauthenticated(Denied):
    """It is not known who asks. ``shown``: a secret was shown, and is none; the answer waits ``delay`` seconds."""

    def __init__(self, message: str, *, shown: bool = False, delay: float = 0.0) -> None:
        super().__init__(message)
        self.shown = shown
        self.delay = delay


class Forbidden(Denied):
    """Who asks may not do this, or not from there."""


class Unavailable(Refused):
    """Not now; ``retry_after`` says in how many seconds it may work (whole, at least 1)."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = max(1, retry_after)


class RateLimited(Unavailable):
    """A token's rate or quota is used up."""


class QueueFull(Unavailable):
    """The queue has no room for the request's records."""


class StoreUnavailable(Unavailable):
    """MongoDB cannot be reached, or does not answer in time. The message may have addresses in it."""

    @property
    def told(self) -> str:
        """Not whom this server speaks to."""
        return "MongoDB cannot be used now; the server's log says why"


class TooManyWatchers(Unavailable):
    """As many watch as may (--max_watchers)."""


class TooManyConnections(Unavailable):
    """As many clients are connected as may be (--max_connections)."""


class Overloaded(Unavailable):
    """Large bodies and answers that are on their way have taken all memory there is for them (--requests_max_bytes)."""


class JournalUnavailable(Unavailable):
    """Redis does not take records, and the request wants them there before its answer."""


class StoredTimeout(Unavailable):
    """The records are taken and kept, but MongoDB has not confirmed them in the time there was to wait.

    ``journaled``: Redis has them, so they will be stored whatever becomes of this process.
    """

    def __init__(self, message: str, retry_after: int, *, journaled: bool) -> None:
        super().__init__(message, retry_after)
        self.journaled = journaled


class ChangesLost(LogsrvError):
    """Some of what has been stored meanwhile will not be told."""


class NoChangeStreams(LogsrvError):
    """This MongoDB does not tell what others store: a standalone server, or a user who may not know."""


class LeaseHeld(LogsrvError):
    """Another live process has this one's name; its lease runs out in ``seconds`` unless it is renewed."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds
