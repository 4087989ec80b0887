"""The read side: one module a resource, and its line in the table of routes."""

from .logs import LogsHandler
from .queue import QueueSizeHandler

ROUTES = [
    ("/queue-size", QueueSizeHandler),
    ("/logs", LogsHandler),
]
