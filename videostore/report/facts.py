"""What one month of a site amounts to, folded from its ledger and its gaps. Pure.

Numbers, reasons, purposes and staff identifiers; nothing of footage and nothing else that is personal.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from videostore.domain.breach import Breach
from videostore.domain.keys import KeysOnRecord
from videostore.domain.ledger import Event, Record
from videostore.domain.retention import CEILING
from videostore.domain.segment import Gap, KeyId, Span

EVENTS = (
    Event.KEY_CREATED,
    Event.KEY_DESTROYED,
    Event.SITE_RECONCILED,
    Event.CERTIFICATE,
    Event.SEGMENTS_CHAINED,
    Event.INCIDENT_OPENED,
    Event.REQUESTED,
    Event.GRANTED,
    Event.REVIEWED,
    Event.SEARCHED,
    Event.VIEWING,
    Event.EXPORT,
    Event.PRESENCE_READ,
    Event.REFUSED,
    Event.LOGIN_REFUSED,
    Event.CLOCK_IN_DOUBT,
    Event.CLOCK_CONFIRMED,
    Event.LOSS,
    Event.SEGMENT_GIVEN_UP,
    Event.TAIL_REPAIRED,
    Event.MASTER_KEY_ROTATED,
)
"""What a report asks the ledger for."""

ACCESSES = ("searches", "viewings", "exports", "entry/exit look-ups")
_ACCESS = dict(zip((Event.SEARCHED, Event.VIEWING, Event.EXPORT, Event.PRESENCE_READ), ACCESSES, strict=True))
_NOTABLE = {
    Event.SITE_RECONCILED: "times the site came back from a backup, without what was sealed before",
    Event.CLOCK_IN_DOUBT: "times the clock was not believed, so that destruction waited",
    Event.CLOCK_CONFIRMED: "times an operator vouched for the clock",
    Event.LOSS: "losses of footage before its deadline",
    Event.SEGMENT_GIVEN_UP: "segments given up because the recorder's disk was full",
    Event.TAIL_REPAIRED: "unfinished records removed after a power cut",
    Event.MASTER_KEY_ROTATED: "changes of the master key",
    Event.LOGIN_REFUSED: "failed logins",
}


def month_span(text: str) -> Span:
    """Return the month ``YYYY-MM`` in UTC. Raises ValueError."""
    start = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    return Span(start, (start + timedelta(days=32)).replace(day=1))


@dataclass(slots=True)
class Month:
    """``as_of`` is the end of the month, or now in one that goes on. Margins are how long before the deadline
    something was done; negative is late. ``ages`` counts the segments held at ``as_of`` by their age in days,
    ``overdue`` the keys that by then were past the ceiling, or what their name promises, without a record of
    their destruction."""

    span: Span
    as_of: datetime
    key_margins: list[timedelta] = field(default_factory=list)
    absence_margins: list[timedelta] = field(default_factory=list)
    segments_deleted: int = 0
    bytes_deleted: int = 0
    deleted_on: Counter[date] = field(default_factory=Counter)
    ages: Counter[int] = field(default_factory=Counter)
    overdue: int = 0
    recorded: timedelta = timedelta()
    incidents: Counter[str] = field(default_factory=Counter)
    accesses: Counter[tuple[str, str]] = field(default_factory=Counter)
    staff: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    refusals: Counter[str] = field(default_factory=Counter)
    broken_glass: int = 0
    unreviewed: int = 0
    suspicions: Counter[str] = field(default_factory=Counter)
    notable: Counter[str] = field(default_factory=Counter)
    gaps: dict[str, timedelta] = field(default_factory=dict)
    gap_cameras: Counter[str] = field(default_factory=Counter)

    @property
    def late(self) -> int:
        """How many keys were destroyed, or absences confirmed, after their deadline."""
        return sum(margin < timedelta() for margin in (*self.key_margins, *self.absence_margins))

    @property
    def kept(self) -> bool:
        """Whether nothing was readable past its deadline, as far as the ledger tells."""
        return self.overdue == 0 and all(margin >= timedelta() for margin in self.key_margins)


def fold(
    records: Iterable[Record],
    gaps: Iterable[Gap],
    breaches: Iterable[Breach] = (),
    *,
    span: Span,
    now: datetime,
) -> Month:
    """Return the month ``span``. ``records`` are those of EVENTS from the ledger's beginning, in order."""
    month = Month(span, min(span.end, now))
    folding = _Folding(month)
    for record in records:
        if record.at < span.end:
            folding.take(record)
    folding.finish()
    month.suspicions.update(one.suspicion.value for one in breaches if span.start <= one.at < span.end)
    lengths: dict[str, timedelta] = defaultdict(timedelta)
    for gap in gaps:
        if inside := gap.span.intersection(span):
            lengths[gap.reason.value] += inside.duration
            month.gap_cameras[str(gap.camera_id)] += round(inside.duration.total_seconds())
    month.gaps = dict(sorted(lengths.items(), key=lambda pair: -pair[1]))
    return month


class _Folding:
    """What must be remembered from record to record."""

    def __init__(self, month: Month) -> None:
        self._month = month
        self._purposes: dict[str, str] = {}
        self._requests: dict[str, Mapping[str, Any]] = {}
        self._grants: dict[str, Mapping[str, Any]] = {}
        self._unreviewed: set[str] = set()
        self._keys = KeysOnRecord()
        self._held: Counter[tuple[str, str]] = Counter()
        self._last: dict[str, tuple[tuple[str, str], int, timedelta]] = {}

    def take(self, record: Record) -> None:
        body: Mapping[str, Any] = record.body
        inside = record.at >= self._month.span.start
        self._keys.take(record)
        match record.event:
            case Event.KEY_DESTROYED if inside:
                self._month.key_margins.append(_between(body["destroyed_at"], body["deadline"]))
            case Event.CERTIFICATE:
                self._held.pop((body["camera_id"], body["key_id"]), None)
                if inside:
                    self._certified(record.at, body)
            case Event.SEGMENTS_CHAINED:
                self._chained(body)
            case _:
                self._taken_by_people(record, body, inside=inside)

    def _chained(self, body: Mapping[str, Any]) -> None:
        """A power cut can have the newest run of a camera handed over twice: it counts as it was last."""
        recorded = Span(*(datetime.fromisoformat(at) for at in body["span"]))
        within = recorded.intersection(self._month.span)
        name = body["before"], body["key_id"]
        run = name, body["segments"], within.duration if within else timedelta()
        last = self._last.get(body["camera_id"])
        _, segments, duration = last if last and last[0] == name else (name, 0, timedelta())
        self._last[body["camera_id"]] = run
        self._held[body["camera_id"], body["key_id"]] += run[1] - segments
        self._month.recorded += run[2] - duration

    def _certified(self, at: datetime, body: Mapping[str, Any]) -> None:
        self._month.absence_margins.append(_between(body["confirmed_at"], body["deadline"]))
        self._month.segments_deleted += body["segments"]
        self._month.bytes_deleted += body["size_bytes"]
        self._month.deleted_on[at.date()] += body["segments"]

    def _taken_by_people(self, record: Record, body: Mapping[str, Any], *, inside: bool) -> None:
        match record.event:
            case Event.INCIDENT_OPENED:
                self._purposes[body["incident_id"]] = body["purpose"]
                self._month.incidents[body["purpose"]] += inside
            case Event.REQUESTED:
                self._requests[body["request_id"]] = body
            case Event.GRANTED:
                request = self._requests[body["request_id"]]
                self._grants[body["grant_id"]] = request
                if request.get("break_glass"):
                    self._month.broken_glass += inside
                    self._unreviewed.add(body["grant_id"])
            case Event.REVIEWED:
                self._unreviewed.discard(body["grant_id"])
            case Event.REFUSED if inside:
                self._month.refusals[body["reason"]] += 1
            case event if event in _ACCESS and inside:
                what = _ACCESS[event]
                self._month.accesses[self._purpose(body), what] += 1
                self._month.staff[record.actor][what] += 1
            case event if event in _NOTABLE and inside:
                self._month.notable[_NOTABLE[event]] += 1
            case _:
                pass

    def _purpose(self, body: Mapping[str, Any]) -> str:
        request = self._grants.get(body.get("grant_id", ""), body)
        incident = request.get("incident_id")
        return self._purposes.get(str(incident), "unknown")

    def finish(self) -> None:
        month = self._month
        for (_, name), segments in self._held.items():
            month.ages[max(0, (month.as_of - KeyId.parse(name).start).days)] += segments
        month.overdue = sum(
            month.as_of >= key_id.start + min(CEILING[kind], key_id.keep or CEILING[kind])
            for kind, key_id in self._keys.living
        )
        month.unreviewed = len(self._unreviewed)


def _between(earlier: str, later: str) -> timedelta:
    return datetime.fromisoformat(later) - datetime.fromisoformat(earlier)
