"""``GET /healthz`` and ``GET /readyz``: for whatever starts servers anew, and for whatever chooses among them."""

import dataclasses

from ..auth import Scope
from ..handler import BaseHandler
from ..operations import BOOLEAN, TEXT, array_of, json_of, named, object_of, one_of, operation

HEALTH = named(
    "Health", object_of(ready=BOOLEAN, checks=array_of(object_of(name=TEXT, ok=BOOLEAN, needed=BOOLEAN, detail=TEXT)))
)


class AliveHandler(BaseHandler):
    """Answers as long as the process does."""

    scope = Scope.OPEN

    @operation({200: json_of(object_of(status=one_of("alive")))})
    def get(self) -> None:
        """200, whatever else is down: a new start would not mend that."""
        self.answer(200, {"status": "alive"})

    head = get


class ReadyHandler(BaseHandler):
    """Whether records are taken."""

    scope = Scope.OPEN

    @operation({200: json_of(HEALTH), 503: json_of(HEALTH)})
    async def get(self) -> None:
        """200, or 503 when a check that is needed fails; with every check, its state and the reason."""
        health = self.application.health
        await health.look()
        ready = health.ready
        self.answer(200 if ready else 503, {"ready": ready, "checks": [dataclasses.asdict(c) for c in health.checks()]})

    head = get
