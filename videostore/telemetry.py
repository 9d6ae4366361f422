"""Every metric, with unit and help, in one table; and structured logging.

docs/reference/metrics.md is compared with this table by a test. Labels are those of LABELS, each with
its bound. Nothing personal: no staff identifier, no address.
"""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.request import ProxyHandler, build_opener
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from videostore import __version__
from videostore.domain.access import Mode, Reason
from videostore.domain.retention import Kind

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from structlog.typing import EventDict

Metric = TypeVar("Metric", bound=MetricWrapperBase)

REGISTRIES = {role: CollectorRegistry() for role in ("recorder", "retention", "gate")}
"""What the endpoint of each role shows: only what that role knows, for a gauge that nobody sets reads 0,
and 0 is an answer. No process or platform metric that we did not choose to publish."""

LABELS = {
    "camera_id": "UUID of a camera that is recorded",
    "disk": "what lies on it: site, spool, keyring, catalogue or store",
    "fault": "one of five picture faults",
    "folder": "a drop folder of videostore.yaml",
    "kind": "kind of data (video, entry-exit) or class of error",
    "mode": "view or export",
    "operation": "method of the store port",
    "outcome": "one of a few words",
    "reason": "a reason of gaps, of access decisions, or of the choice of a receiver",
    "place": "a place of ledger.anchors in videostore.yaml",
    "receiver": "native or libav",
    "route": "a route of the gate, never a path with identifiers",
    "state": "condemned or absent",
    "status": "HTTP status",
    "suspicion": "one of eight kinds of suspected breach",
    "version": "version of the program",
    "wall": "one of five walls around the bytes",
}
"""Every label there is, and what bounds its values. Prometheus keeps a series for each."""


class _Endpoint:
    """Makes the metrics that one role shows at its endpoint, or every role."""

    def __init__(self, *roles: str) -> None:
        self._roles = roles

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return self._show(Counter(f"videostore_{name}", text, labels, registry=None))

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return self._show(Gauge(f"videostore_{name}", text, labels, registry=None))

    def histogram(self, name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
        return self._show(Histogram(f"videostore_{name}", text, labels, registry=None, buckets=buckets))

    def _show(self, metric: Metric) -> Metric:
        for role in self._roles:
            REGISTRIES[role].register(metric)
        _TABLE[metric] = self._roles
        return metric


_TABLE: dict[MetricWrapperBase, tuple[str, ...]] = {}
_recorder, _retention, _gate = (_Endpoint(role) for role in REGISTRIES)
_every = _Endpoint(*REGISTRIES)
_writers = _Endpoint("recorder", "retention")

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LATENESS = (0.0, 1.0, 10.0, 60.0, 600.0, 3600.0, 86400.0)

BUILD = _every.gauge("build_info", "Always 1; the label tells the running version.", "version")

CAMERA_UP = _recorder.gauge("camera_up", "1 while packets of the camera arrive, else 0.", "camera_id")
CAMERA_LAST_FRAME = _recorder.gauge(
    "camera_last_frame_timestamp_seconds", "Unix time of the last frame received.", "camera_id"
)
CAMERA_CLOCK_OFFSET = _recorder.gauge(
    "camera_clock_offset_seconds", "Receipt minus the camera's own clock, at the last segment.", "camera_id"
)
CAMERA_CONNECTS = _recorder.counter("camera_connects_total", "Connections made to the camera.", "camera_id")
CAMERA_FRAMES = _recorder.counter("camera_frames_total", "Frames received.", "camera_id")
CAMERA_BYTES = _recorder.counter(
    "camera_received_bytes_total", "Bytes of encoded video received.", "camera_id"
)
CAMERA_LOST_PACKETS = _recorder.counter(
    "camera_lost_packets_total", "RTP packets that the camera sent and that did not arrive.", "camera_id"
)
CAMERA_RECEIVER = _recorder.gauge(
    "camera_receiver",
    "Always 1; what receives the camera's stream, and why.",
    "camera_id",
    "receiver",
    "reason",
)
CAMERA_PICTURE_FAULT = _recorder.gauge(
    "camera_picture_fault", "1 while the picture of the camera has this fault, else 0.", "camera_id", "fault"
)
GAP_SECONDS = _recorder.counter(
    "gap_seconds_total",
    "Seconds without footage, or damaged (packet-loss), by reason.",
    "camera_id",
    "reason",
)
DURABLE_SECONDS = _recorder.histogram(
    "durable_seconds",
    "From the arrival of the frame that ends a keyframe interval to its being synced in the spool.",
    buckets=_SECONDS,
)
SEGMENTS_SEALED = _recorder.counter("segments_sealed_total", "Segments sealed into the spool.", "camera_id")

FOLDER_FILES = _recorder.counter(
    "folder_files_total", "Files of a drop folder dealt with.", "folder", "outcome"
)
FOLDER_WAITING = _recorder.gauge("folder_waiting_files", "Files of a drop folder that wait.", "folder")

SPOOL_BYTES = _recorder.gauge("spool_bytes", "Sealed bytes in the spool.")
SPOOL_LIMIT = _recorder.gauge("spool_limit_bytes", "What the spool may hold.")
SPOOL_GIVEN_UP = _recorder.counter(
    "spool_given_up_total", "Segments given up because the spool or its disk was full."
)
SPOOL_SEGMENTS = _recorder.gauge("spool_segments", "Segments in the spool that wait for upload.")
SPOOL_OLDEST = _recorder.gauge(
    "spool_oldest_timestamp_seconds", "Unix time of the oldest segment in the spool, 0 when empty."
)
UPLOADED_SEGMENTS = _recorder.counter("uploaded_segments_total", "Segments confirmed by store and catalogue.")
UPLOADED_BYTES = _recorder.counter("uploaded_bytes_total", "Sealed bytes confirmed by store and catalogue.")
UPLOAD_SECONDS = _recorder.histogram(
    "upload_seconds", "From the end of a segment to its confirmation.", buckets=_SECONDS
)
DISK_FREE = _writers.gauge("disk_free_bytes", "What is free on a disk that the site writes to.", "disk")
DISK_SIZE = _writers.gauge("disk_size_bytes", "What a disk that the site writes to may hold.", "disk")
STORE_REQUESTS = _every.histogram(
    "store_request_seconds", "Time that store requests took.", "operation", buckets=_SECONDS
)
STORE_ERRORS = _every.counter("store_errors_total", "Store requests that failed.", "operation", "kind")

STORE_DRIFT = _retention.gauge(
    "store_drift", "Things about the bucket that are not as they must be, by the wall they weaken.", "wall"
)
STORE_LOOKED_AT = _retention.gauge(
    "store_looked_at_timestamp_seconds", "Unix time at which the settings of the bucket were last seen."
)

OLDEST_FOOTAGE = _retention.gauge(
    "oldest_footage_timestamp_seconds", "Unix time of the oldest live footage, 0 when there is none."
)
KEEP_SECONDS = _retention.gauge("keep_seconds", "The policy's keep.", "kind")
LEAD_SECONDS = _retention.gauge(
    "lead_seconds", "The policy's lead: how long before the deadline deletion begins.", "kind"
)
SWEEPS = _retention.counter("sweeps_total", "Sweeps, by outcome.", "outcome")
LAST_SWEEP = _retention.gauge(
    "last_successful_sweep_timestamp_seconds", "Unix time of the last sweep that finished all it had to do."
)
SEGMENTS_DELETED = _retention.counter("segments_deleted_total", "Objects deleted and confirmed absent.")
DELETION_LATENESS = _retention.histogram(
    "deletion_lateness_seconds",
    "How long after its deadline an object was confirmed absent; 0 is in time.",
    buckets=_LATENESS,
)
OVERDUE = _retention.gauge("overdue_objects", "Objects past their deadline that are not confirmed absent.")
CONDEMNED = _retention.gauge(
    "condemned_segments",
    "Segments on their way out: condemned, or confirmed absent and neither certified nor forgotten yet.",
    "state",
)
CERTIFICATES = _retention.counter("certificates_total", "Certificates of deletion written to the ledger.")
LOST_SEGMENTS = _retention.counter(
    "lost_segments_total", "Catalogue rows whose object was missing before its deadline."
)
KEYS_LIVE = _retention.gauge("keys_live", "Hour keys that exist.", "kind")
OLDEST_KEY = _retention.gauge(
    "oldest_key_timestamp_seconds",
    "Unix time at which the oldest hour key that exists begins: nothing older can be read. 0 without keys.",
    "kind",
)
KEY_LATENESS = _retention.histogram(
    "key_lateness_seconds",
    "How long after its deadline an hour key was destroyed; 0 is in time.",
    "kind",
    buckets=_LATENESS,
)
KEYS_DESTROYED = _retention.counter("keys_destroyed_total", "Hour keys destroyed.", "kind")
KEYS_AHEAD_SECONDS = _retention.gauge("keys_ahead_seconds", "How far ahead hour keys are published.", "kind")
LAST_BACKUP = _retention.gauge(
    "last_backup_timestamp_seconds", "Unix time of the newest backup that is whole, 0 when there is none."
)
BACKUP_MAX_AGE = _retention.gauge(
    "backup_max_age_seconds", "How old the newest backup may be, 0 where nobody asks for one."
)
HOST_CLOCK_SYNCHRONISED = _recorder.gauge(
    "host_clock_synchronised", "1 if a time service disciplines the clock of the recorder's host, else 0."
)
CLOCK_IN_DOUBT = _retention.gauge(
    "clock_in_doubt", "1 while the clock is not believed and destruction is stopped."
)

GATE_DECISIONS = _gate.counter("gate_decisions_total", "Decisions of the gate, by reason code.", "reason")
GATE_LOGINS = _gate.counter("gate_logins_total", "Attempts to log in, by outcome.", "outcome")
GATE_VIEWINGS = _gate.counter("gate_viewings_total", "Viewings begun.")
GATE_EXPORTS = _gate.counter("gate_exports_total", "Exports begun.")
GATE_SEGMENTS_SERVED = _gate.counter(
    "gate_segments_served_total", "Segments served to approved staff.", "mode"
)
GATE_CONNECTIONS_CLOSED = _gate.counter(
    "gate_connections_closed_total", "Connections closed because they made the gate wait, and others came."
)
GATE_REQUEST_SECONDS = _gate.histogram(
    "gate_request_seconds", "Time the gate took to answer.", "route", "status", buckets=_SECONDS
)

GATE_SUSPECTED_BREACHES = _gate.gauge(
    "gate_suspected_breaches", "Suspected breaches of the last 24 hours, by kind.", "suspicion"
)
GATE_GLASSES_UNREVIEWED = _gate.gauge(
    "gate_glasses_unreviewed", "Grants taken by breaking the glass that no second person has reviewed."
)
GATE_CERTIFICATE_ENDS = _gate.gauge(
    "gate_certificate_end_timestamp_seconds", "Unix time at which the certificate of the gate ends."
)

CHECKPOINT_ANCHORED = _retention.gauge(
    "ledger_anchored_timestamp_seconds",
    "Unix time of the newest checkpoint that a place outside the site took; 0 for none since the start.",
    "place",
)
LEDGER_RECORDS = _retention.gauge("ledger_records", "Records in the ledger, as retention last saw it.")
PRESENCE_RECORDS = _every.counter(
    "presence_records_total", "Entry/exit records taken, by outcome.", "outcome"
)

BUILD.labels(version=__version__).set(1)

# Prometheus takes the first value of a series for its beginning: one that began at 1 would hide a step.
for _kind in Kind:
    KEYS_DESTROYED.labels(kind=_kind.value)
for _reason in Reason:
    GATE_DECISIONS.labels(reason=_reason.value)
for _mode in Mode:
    GATE_SEGMENTS_SERVED.labels(mode=_mode.value)
for _outcome in ("accepted", "refused"):
    GATE_LOGINS.labels(outcome=_outcome)


def metrics() -> list[tuple[str, str, str, tuple[str, ...], tuple[str, ...]]]:
    """Return the table, sorted: name (counters end in ``_total``), type, help, labels, roles that show it."""
    table = []
    for metric, roles in _TABLE.items():
        family = next(iter(metric.describe()))
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = tuple(metric._labelnames)  # noqa: SLF001 - there is no other way to ask
        table.append((name, family.type, family.documentation, labels, roles))
    return sorted(table)


def forget_camera(camera_id: str) -> None:
    """Drop every series of a camera that is recorded no more: nobody is woken for one that was disabled."""
    for metric in _TABLE:
        if "camera_id" in metric._labelnames:  # noqa: SLF001 - there is no other way to ask
            metric.remove_by_labels({"camera_id": camera_id})


def serve_metrics(
    role: str,
    host: str,
    port: int,
    *,
    asked: Mapping[str, Callable[[], str]],
    together: Callable[[], Iterable[str]] | None = None,
) -> tuple[WSGIServer, Thread]:
    """Serve ``/metrics`` of ``role`` from a thread, and the paths of ``asked``: 200 if what stands there says
    nothing, else 503 and what it says. Port 0 takes a free one: see ``server.server_port``.

    ``together`` names the URLs of other processes whose metrics are shown as one instead of our own.
    """
    registry = REGISTRIES[role]
    if together is not None:
        registry = CollectorRegistry()
        registry.register(_Together(together))
    show = make_wsgi_app(registry)

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            page: Iterable[bytes] = show(environ, start)
            return page
        wrong = asked[path]() if path in asked else f"there is no {path}"
        status = "404 Not Found" if path not in asked else "503 Service Unavailable" if wrong else "200 OK"
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{wrong or 'ok'}\n".encode()]

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = type("Server", (ThreadingWSGIServer,), {"address_family": family})
    server: WSGIServer = make_server(host, port, answer, kind, handler_class=_Silent)
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    return server, thread


class _Silent(WSGIRequestHandler):
    """Prometheus asks four times a minute; that is nothing to log."""

    def log_message(self, *_: object) -> None:
        pass


class _Together(Collector):
    """What several processes of one role show, as one: equal series are added up. A process that does not
    answer is left out: its cameras are absent then, which alerts."""

    def __init__(self, urls: Callable[[], Iterable[str]]) -> None:
        self._urls = urls

    def collect(self) -> Iterator[Family]:
        families: dict[str, Family] = {}
        series: dict[tuple[str, frozenset[tuple[str, str]]], list[Sample]] = {}
        for text in filter(None, map(_shown, self._urls())):
            for family in text_string_to_metric_families(text):
                families.setdefault(family.name, Family(family.name, family.documentation, family.type))
                for sample in family.samples:
                    key = sample.name, frozenset(sample.labels.items())
                    if key not in series:
                        families[family.name].samples.append(sample)
                    series.setdefault(key, []).append(sample)
        for family in families.values():
            family.samples = [
                one._replace(value=_one(one.name, series[one.name, frozenset(one.labels.items())]))
                for one in family.samples
            ]
            yield family


_DIRECT = build_opener(ProxyHandler({}))
"""To processes of our own, on this machine: the proxy of the environment is for the store."""


def _shown(url: str) -> str:
    try:
        with _DIRECT.open(url, timeout=2) as answer:
            return str(answer.read().decode())
    except (OSError, ValueError):
        return ""


def _one(name: str, samples: Sequence[Sample]) -> float:
    """Return what the same series of several processes is together."""
    values = [one.value for one in samples]
    if name.endswith(("_info", "_synchronised")):
        return max(values)
    if name.startswith("videostore_disk_"):
        return min(values)
    if name.endswith(("_created", "_timestamp_seconds")):
        return min((value for value in values if value), default=0.0)
    return sum(values)


def read_metrics(url: str) -> dict[tuple[str, ...], float]:
    """Return what an endpoint shows, by name and label values (in order of the labels' names); nothing if it
    does not answer."""
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(_shown(url))
        for sample in family.samples
    }


# --- logs ------------------------------------------------------------------------------------


class _Stderr:
    """Prints to what is stderr then. A line that cannot be printed (its disk is full, its reader is gone)
    stops nobody: a camera is recorded all the same."""

    def msg(self, line: str) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{line}\n")

    debug = info = warning = error = critical = msg


def configure_logging(*, level: Callable[[], str] = lambda: "info", json: bool = False) -> None:
    """Send log lines to stderr, as text for a person or one JSON object a line; ``level`` counts at each."""

    def drop_below(_: object, method: str, event: EventDict) -> EventDict:
        if logging.getLevelNamesMapping()[method.upper()] < logging.getLevelNamesMapping()[level().upper()]:
            raise structlog.DropEvent
        return event

    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=28)
    )
    structlog.configure(
        processors=[
            drop_below,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: _Stderr(),
        cache_logger_on_first_use=False,
    )


def logger(room: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of a room. Event names are ``noun.verb``; values carry units in their names."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(room=room))
