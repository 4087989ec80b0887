"""The write side: one module a protocol, and its line in the table of routes."""

from . import datadog, elasticsearch, elasticsearch_probes, gelf, loki, otlp, shippers, splunk

ROUTES = [
    *shippers.ROUTES,
    *otlp.ROUTES,
    *loki.ROUTES,
    *elasticsearch.ROUTES,
    *splunk.ROUTES,
    *gelf.ROUTES,
    *datadog.ROUTES,
]
#: For some clients only: before all other routes, and behind them.
FIRST_ROUTES = elasticsearch_probes.FIRST_ROUTES
LAST_ROUTES = elasticsearch_probes.LAST_ROUTES

#: Hot routes, and the collectors with which the fast lane answers plain requests of theirs.
LANES = shippers.LANES
