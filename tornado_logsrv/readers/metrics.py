"""``GET /metrics``: the ledger, and the state of every part, for Prometheus (text format or OpenMetrics)."""

import itertools
import platform
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import tornado
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from .. import __version__
from ..auth import Scope
from ..handler import BaseHandler
from ..measures import Histogram
from ..metrics import COLUMNS
from ..operations import TEXT, operation

if TYPE_CHECKING:
    from ..application import LogApplication


_OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_REFUSED = re.compile(r"q=0(\.0{0,3})?")


class ServerCollector(Collector):
    """The server's metrics, read from where they are kept when they are asked for."""

    def __init__(self, application: "LogApplication") -> None:
        self._application = application

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        self._application.look()
        yield from self._records()
        yield from self._queue()
        yield from self._writing()
        yield from self._keeping()
        yield from self._serving()

    def _records(self) -> Iterator[Metric]:
        ledger = self._application.ledger
        sources = [(source, ledger.row(source)) for source in ledger.sources]
        for column in COLUMNS:
            counter = CounterMetricFamily(
                f"logsrv_records_{column}", f"Records {column} since the start.", labels=["source"]
            )
            for source, row in sources:
                counter.add_metric([source], row[column])
            yield counter
        queued = GaugeMetricFamily(
            "logsrv_records_queued", "Records neither stored nor quarantined.", labels=["source"]
        )
        for source, row in sources:
            queued.add_metric([source], row["queued"])
        yield queued
        yield _gauge(
            "logsrv_ledger_balance",
            "Records received less stored, queued, quarantined and refused; anything but 0 is a fault.",
            ledger.balance(self._application.unsettled),
        )

    def _queue(self) -> Iterator[Metric]:
        queue, spool = self._application.queue, self._application.spool
        yield _gauge("logsrv_queue_records", "Records in memory that MongoDB has not confirmed.", queue.unstored_count)
        yield _gauge("logsrv_queue_in_flight_records", "Those of them that are in a write.", queue.in_flight)
        yield _gauge("logsrv_queue_bytes", "BSON bytes of the queue.", queue.size_bytes)
        yield _gauge("logsrv_queue_max_bytes", "The bound on logsrv_queue_bytes.", queue.max_bytes)
        yield _gauge(
            "logsrv_queue_oldest_age_seconds",
            "How long the oldest record on the queue has been there, to a second; 0 without one.",
            self._application.waiting.seconds,
        )
        yield _gauge("logsrv_spool_bytes", "Bytes of the spool.", spool.size_bytes)
        yield _gauge("logsrv_spool_records", "Records that this process has in the spool.", spool.count)
        yield _gauge(
            "logsrv_spool_max_bytes", "The bound on logsrv_spool_bytes.", self._application.options.spool_max_bytes
        )

    def _writing(self) -> Iterator[Metric]:
        writer = self._application.writer
        yield _histogram("logsrv_batch_records", "Records of one write to MongoDB.", [((), writer.batch_records)])
        yield _histogram(
            "logsrv_batch_duration_seconds", "How long one write to MongoDB took.", [((), writer.batch_seconds)]
        )
        yield CounterMetricFamily(
            "logsrv_batch_failures", "Writes of which MongoDB confirmed nothing.", value=writer.failed_batches
        )
        yield _gauge("logsrv_writer_consecutive_failures", "How many writes in a row have failed.", writer.failures)
        yield _gauge(
            "logsrv_writer_backoff_seconds", "Until the next try after a failure; 0 without one.", writer.pause_seconds
        )

    def _keeping(self) -> Iterator[Metric]:
        health, journal = self._application.health, self._application.journal
        yield _histogram(
            "logsrv_journal_append_duration_seconds",
            "How long a round trip took that puts records into Redis.",
            [((), journal.append_seconds)],
        )
        yield CounterMetricFamily(
            "logsrv_journal_append_failures", "Round trips that have failed.", value=journal.failed_appends
        )
        yield _gauge("logsrv_journal_up", "Whether Redis takes records.", health.journal_up)
        yield _gauge("logsrv_store_up", "Whether MongoDB did what it was asked last.", health.store_up)
        yield _gauge("logsrv_ready", "Whether requests with records are taken, as /readyz has it.", health.ready)
        yield _gauge("logsrv_recovering", "Whether records of before the start are still read back.", health.recovering)
        deleted = CounterMetricFamily(
            "logsrv_retention_deleted_records", "Records deleted by --retention.", labels=["rule"]
        )
        for rule, count in sorted(self._application.sweeper.deleted.items()):
            deleted.add_metric([rule], count)
        yield deleted
        if health.stream_entries is not None:
            yield _gauge("logsrv_stream_entries", "Entries of the stream in Redis.", health.stream_entries)
        if health.quarantined is not None:
            yield _gauge("logsrv_quarantine_documents", "Documents in quarantine.", health.quarantined)

    def _serving(self) -> Iterator[Metric]:
        yield _histogram(
            "logsrv_http_request_duration_seconds",
            "From the head of a request to its answer.",
            [((method, route, str(status)), found) for (method, route, status), found in self._application.requests],
            ["method", "route", "status"],
        )
        yield _gauge(
            "logsrv_http_requests_in_progress", "Requests that wait for their answer.", self._application.in_progress
        )
        connections = self._application.connections
        yield _gauge("logsrv_http_connections", "Clients that are connected.", connections.count())
        yield _gauge("logsrv_http_max_connections", "The bound on logsrv_http_connections.", connections.most)
        yield CounterMetricFamily(
            "logsrv_http_refused_connections", "Clients for whom there was no room.", value=connections.refused
        )
        yield CounterMetricFamily(
            "logsrv_auth_failures", "Wrong secrets that were shown.", value=self._application.gate.failures.total
        )
        yield _gauge(
            "logsrv_tail_watchers", "Who follows the records as they come.", len(self._application.watch.watchers)
        )
        lag = self._application.loop_lag
        yield _gauge(
            "logsrv_event_loop_lag_seconds", "The latest that the event loop ran anything, of a minute.", lag.recent
        )
        yield CounterMetricFamily(
            "logsrv_event_loop_blocked_seconds",
            "Seconds for which the event loop did nothing, of half a second or more at a time.",
            value=lag.blocked_seconds,
        )
        build = {
            "version": __version__,
            "python": platform.python_version(),
            "tornado": tornado.version,
            "instance_name": self._application.options.instance_name,
        }
        yield InfoMetricFamily("logsrv_build", "What this server is.", value=build)


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


def _histogram(
    name: str, documentation: str, found: Iterable[tuple[Sequence[str], Histogram]], labels: Sequence[str] = ()
) -> Metric:
    family = HistogramMetricFamily(name, documentation, labels=labels)
    for values, histogram in found:
        bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
        counts = itertools.accumulate(histogram.counts)
        family.add_metric(values, list(zip(bounds, counts, strict=True)), histogram.sum)
    return family


def registry(application: "LogApplication") -> CollectorRegistry:
    """A registry of ``application``'s metrics, and of those of its process."""
    made = CollectorRegistry(auto_describe=False)
    made.register(ServerCollector(application))
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    GCCollector(registry=made)
    return made


def accepts_openmetrics(accept: str) -> bool:
    """Whether an Accept field names OpenMetrics, and not to say that it is not wanted (RFC 9110, section 12.4.2)."""
    for wanted in accept.lower().split(","):
        name, *parameters = (part.strip() for part in wanted.split(";"))
        if name == "application/openmetrics-text" and not any(map(_REFUSED.fullmatch, parameters)):
            return True
    return False


class MetricsHandler(BaseHandler):
    """Answers all metrics."""

    scope = Scope.READ

    @operation({200: {"text/plain": TEXT, "application/openmetrics-text": TEXT}})
    async def get(self) -> None:
        """The text format of Prometheus, or OpenMetrics where Accept asks for it.

        What MongoDB and Redis are asked for is left out while they do not answer.
        """
        await self.application.health.look()
        # In words of ours: the library fails at versions that are no numbers, and says others after the client.
        wanted = _OPENMETRICS if accepts_openmetrics(self.request.headers.get("Accept", "")) else ""
        encode, content_type = choose_encoder(wanted)
        self.set_header("Content-Type", content_type)
        self.finish(encode(self.application.metrics))

    head = get
