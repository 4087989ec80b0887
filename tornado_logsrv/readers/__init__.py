"""The read side: one module a resource, and its lines in the table of routes."""

from .fields import FieldsHandler
from .health import AliveHandler, ReadyHandler
from .histogram import HistogramHandler
from .ledger import LedgerHandler
from .logs import LogsHandler
from .metrics import MetricsHandler
from .openapi import OpenApiHandler
from .pages import ROUTES as PAGE_ROUTES
from .quarantine import OneQuarantinedHandler, QuarantineHandler, ReplayHandler
from .queue import QueueSizeHandler
from .receipt import ReceiptHandler
from .session import ROUTES as SESSION_ROUTES
from .tail import TailHandler

_ID = "(?P<record_id>[0-9a-f]{24})"

ROUTES = [
    ("/queue-size", QueueSizeHandler),
    ("/ledger", LedgerHandler),
    ("/logs", LogsHandler),
    ("/logs/tail", TailHandler),
    ("/logs/histogram", HistogramHandler),
    ("/logs/fields", FieldsHandler),
    (f"/logs/{_ID}", ReceiptHandler),
    ("/quarantine", QuarantineHandler),
    (f"/quarantine/{_ID}", OneQuarantinedHandler),
    (f"/quarantine/{_ID}/replay", ReplayHandler),
    ("/metrics", MetricsHandler),
    ("/healthz", AliveHandler),
    ("/readyz", ReadyHandler),
    ("/openapi.json", OpenApiHandler),
    *SESSION_ROUTES,
    *PAGE_ROUTES,
]
