"""How much is measured: the counts of a full run, and those of a quick one."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Scale:
    """The counts of one run."""

    #: Rounds of each measurement; those that take long have fewer.
    rounds: int
    long_rounds: int
    #: Rounds before the first that counts: imports, connections, the servers' first writes.
    warm_rounds: int
    #: How often, in one round, what is so short that it is disturbed easily is done.
    short_turns: int
    #: Seconds of load in one round.
    seconds: int
    #: Records of one round: posted by the thousand and one by one until all are stored, and kept on the queue.
    stored: int
    posted: int
    queued: int
    #: Records on the queue when it is dumped: few and many.
    dumped: tuple[int, int]
    #: Records in Redis when the server is killed, many in an entry and one; those that wait when MongoDB comes back.
    recovered: int
    singles: int
    outage: int
    #: Those that watch together.
    watchers: int
    #: Records of one round in each protocol.
    protocol: int
    #: The deep page: that of one record each where few are stored, of 100 where many are; both are the last page.
    page: int
    page_requests: int
    #: Records that are written with indexes in one round; those that are searched; rows that are scrolled on the page.
    indexed: int
    searched: int
    scrolled: int


FULL = Scale(
    rounds=5,
    long_rounds=3,
    warm_rounds=1,
    short_turns=3,
    seconds=5,
    stored=100_000,
    posted=10_000,
    queued=200_000,
    dumped=(100_000, 1_000_000),
    recovered=1_000_000,
    singles=100_000,
    outage=300_000,
    watchers=500,
    protocol=300_000,
    page=10_000,
    page_requests=40,
    indexed=20_000,
    searched=1_000_000,
    scrolled=10_000,
)
QUICK = Scale(
    rounds=1,
    long_rounds=1,
    warm_rounds=0,
    short_turns=1,
    seconds=1,
    stored=3_000,
    posted=1_000,
    queued=3_000,
    dumped=(1_000, 10_000),
    recovered=10_000,
    singles=3_000,
    outage=10_000,
    watchers=20,
    protocol=8_000,
    page=50,
    page_requests=5,
    indexed=1_000,
    searched=3_000,
    scrolled=200,
)
