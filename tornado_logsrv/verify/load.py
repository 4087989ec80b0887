"""The clients: they send, resend what has a key, and keep what was answered."""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Sequence

from .balance import Life, Sent, State
from .processes import LogServer
from .requests import STEP, Request, requests
from .wire import Answer, Broken, Connection

#: Longer than a server that is not frozen takes for an answer: its --stored_timeout, and then some.
_PATIENCE = 8.0
#: Statuses that refuse a request. Any other, and 500 above all, is a fault.
_REFUSALS = (400, 413, 415, 429, 503)
#: The refusal that cannot say whether Redis has the records: it broke off in the middle.
_UNSURE = "journal-unavailable"


class Load:
    """All clients, and all that they have sent."""

    def __init__(self, seed: int, servers: Sequence[LogServer], report: Callable[[str], None], rate: float) -> None:
        """``rate`` bounds the records a second of all clients together; 0 does not."""
        self._seed = seed
        self._servers = servers
        self._report = report
        self._rate = rate
        self._tokens = itertools.count(0, STEP)
        self.run = f"{random.Random(seed).getrandbits(32):x}"
        self.sent: list[Sent] = []
        self.acknowledged = 0
        self.resent = 0
        self.over = asyncio.Event()

    async def run_clients(self, count: int) -> None:
        """Load the servers with ``count`` connections until ``over`` is set and what has a key is settled."""
        await asyncio.gather(*(self._client(number, count) for number in range(count)))

    async def _client(self, number: int, clients: int) -> None:
        client = Client(random.Random(f"{self._seed}/{number}"), self._servers, self._answered)
        for request in self._requests(client.rand):
            began = asyncio.get_running_loop().time()
            await self.settle(client, request)
            if self.over.is_set():
                break
            if self._rate:
                share = request.sent.count * clients / self._rate * client.rand.uniform(0, 2)
                await asyncio.sleep(max(0.0, began + share - asyncio.get_running_loop().time()))
        client.close()

    def _requests(self, rand: random.Random) -> Iterator[Request]:
        return requests(rand, self._tokens, self.run)

    async def settle(self, client: "Client", request: Request) -> None:
        """Send ``request`` and, if it has a key, send it again until there is an answer to keep."""
        sent = request.sent
        self.sent.append(sent)
        await client.send(request)
        while request.key and request.readable and sent.state is not State.ACKNOWLEDGED:
            await asyncio.sleep(client.rand.uniform(0.05, 0.5))
            self.resent += 1
            await client.send(request)
        if request.key and client.rand.random() < 0.2:
            self.resent += 1
            await client.send(request)

    def _answered(self, request: Request, answer: Answer, life: Life) -> None:
        sent = request.sent
        if answer.status == 202 and request.readable:
            self._acknowledged(request, answer, life)
        elif answer.status == 504:
            _raise_to(sent, State.UNKNOWN)
        elif answer.status in _REFUSALS and (request.readable == (answer.status in (429, 503))):
            slug = str(answer.json().get("type", "")).rpartition(":")[2]
            if sent.state <= State.REFUSED:
                sent.state, sent.detail = State.REFUSED, f"refused: {answer.status} {slug}"
                sent.surely = sent.surely and slug != _UNSURE
        else:
            _raise_to(sent, State.UNKNOWN)
            self._report(f"{request.path} was answered {answer.status} {answer.body[:200]!r} by {life.name}")

    def _acknowledged(self, request: Request, answer: Answer, life: Life) -> None:
        sent, told = request.sent, answer.json()
        if (request.level or "journal") != told.get("ack") or not _counts_fit(request, told):
            self._report(f"{request.path} with {sent.count} records was answered {answer.body[:200]!r}")
        # Each further answer promises the same again, and another process may keep it longer.
        sent.lives += (life,)
        if sent.state is not State.ACKNOWLEDGED:
            sent.state, sent.detail = State.ACKNOWLEDGED, str(told.get("ack"))
            sent.id = bytes.fromhex(told.get("id", ""))
            self.acknowledged += sent.count


def _raise_to(sent: Sent, state: State) -> None:
    sent.state = max(sent.state, state)


def _counts_fit(request: Request, told: dict[str, object]) -> bool:
    """Whether the answer tells how many records were taken, and how many of them it knew to be for quarantine."""
    if request.path.startswith("/add-jobs"):
        known = len(request.sent.refusable) if told.get("ack") == "stored" else request.bad_lines
        return told.get("accepted") == request.sent.count - known and told.get("quarantined") == known
    quarantined = told.get("ack") == "stored" and bool(request.sent.refusable)
    return told.get("message") == ("Job quarantined" if quarantined else "Job added")


class Client:
    """One client: one connection at a time, to any of the servers."""

    def __init__(
        self,
        rand: random.Random,
        servers: Sequence[LogServer],
        answered: Callable[[Request, Answer, Life], None],
    ) -> None:
        self.rand = rand
        self._servers = servers
        self._answered = answered
        self._connection: Connection | None = None
        self._life = servers[0].life

    async def send(self, request: Request) -> None:
        """Send ``request`` once, and keep what is answered; without an answer it is unknown what became of it."""
        connection = await self._connected()
        pause = self.rand.uniform(0, 0.05) if self.rand.random() < 0.03 else 0.0
        life = self._life
        try:
            answer = await connection.request("POST", request.path, request.headers, request.body, _PATIENCE, pause)
        except Broken:
            _raise_to(request.sent, State.UNKNOWN)
        else:
            self._answered(request, answer, life)
            if answer.status == 503:
                await asyncio.sleep(self.rand.uniform(0.02, 0.3))

    async def _connected(self) -> Connection:
        """A connection to a server that takes one, the same as before as a rule."""
        while self._connection is None or not self._connection.open or self.rand.random() < 0.002:
            self.close()
            server = self.rand.choice(self._servers)
            await self._connect(server, server.life)
        return self._connection

    async def _connect(self, server: LogServer, life: Life) -> None:
        try:
            connection = await Connection.to(life.url)
        except (OSError, ValueError):
            await asyncio.sleep(self.rand.uniform(0.02, 0.1))
            return
        # The port of a process that has ended meanwhile may be another's by now.
        if server.life is life:
            self._connection, self._life = connection, life
        else:
            connection.close()

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
