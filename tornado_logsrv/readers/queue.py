"""``GET /queue-size``: what waits to be stored."""

from ..auth import Scope
from ..handler import BaseHandler
from ..operations import COUNT, json_of, named, object_of, operation

_SIZES = object_of(queueSize=COUNT, queueBytes=COUNT, queueMaxBytes=COUNT, inFlight=COUNT)
ANSWER = named("QueueSize", _SIZES)


class QueueSizeHandler(BaseHandler):
    """Answers the state of the queue."""

    scope = Scope.READ

    @operation({200: json_of(ANSWER)})
    def get(self) -> None:
        """``queueSize`` counts every record that MongoDB has not confirmed, ``inFlight`` those of them in a write."""
        queue = self.application.queue
        in_flight = queue.in_flight
        self.answer(
            200,
            {
                "queueSize": len(queue) + in_flight,
                "queueBytes": queue.size_bytes,
                "queueMaxBytes": queue.max_bytes,
                "inFlight": in_flight,
            },
        )

    head = get
