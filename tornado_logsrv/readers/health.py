"""``GET /healthz`` and ``GET /readyz``: for whatever starts servers anew, and for whatever chooses among them."""

import dataclasses

from ..auth import Scope
from ..handler import BaseHandler


class AliveHandler(BaseHandler):
    """Answers as long as the process does."""

    scope = Scope.OPEN

    def get(self) -> None:
        """200, whatever else is down: a new start would not mend that."""
        self.answer(200, {"status": "alive"})

    head = get


class ReadyHandler(BaseHandler):
    """Whether records are taken."""

    scope = Scope.OPEN

    async def get(self) -> None:
        """200, or 503 when a check that is needed fails; with every check, its state and the reason."""
        health = self.application.health
        await health.look()
        ready = health.ready
        self.answer(200 if ready else 503, {"ready": ready, "checks": [dataclasses.asdict(c) for c in health.checks()]})

    head = get
