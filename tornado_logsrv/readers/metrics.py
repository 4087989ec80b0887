"""``GET /metrics``: the ledger, in the text format of Prometheus."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..handler import BaseHandler
from ..metrics import COLUMNS

if TYPE_CHECKING:
    from ..application import LogApplication


class LedgerCollector(Collector):
    """The ledger and the queue as metrics, read when they are asked for."""

    def __init__(self, application: "LogApplication") -> None:
        self._application = application

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        ledger, queue = self._application.ledger, self._application.queue
        for column in COLUMNS:
            counter = CounterMetricFamily(
                f"logsrv_records_{column}", f"Records {column} since the start.", labels=["source"]
            )
            for source in ledger.sources:
                counter.add_metric([source], ledger.row(source)[column])
            yield counter
        queued = GaugeMetricFamily(
            "logsrv_records_queued", "Records neither stored nor quarantined.", labels=["source"]
        )
        for source in ledger.sources:
            queued.add_metric([source], ledger.row(source)["queued"])
        yield queued
        yield GaugeMetricFamily(
            "logsrv_ledger_balance",
            "Records received less stored, queued, quarantined and refused; anything but 0 is a fault.",
            value=ledger.balance(self._application.unsettled),
        )
        yield GaugeMetricFamily("logsrv_queue_bytes", "BSON bytes of the queue.", value=queue.size_bytes)
        yield GaugeMetricFamily("logsrv_spool_bytes", "Bytes of the spool.", value=self._application.spool.size_bytes)


class MetricsHandler(BaseHandler):
    """Answers all metrics."""

    def get(self) -> None:
        """The text format of Prometheus."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(LedgerCollector(self.application))
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(generate_latest(registry))
