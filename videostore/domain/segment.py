"""Segments: the unit of footage that is stored, retained, deleted and handed out.

Spans are half-open, ``[start, end)``, in UTC: back-to-back segments touch and never
overlap. Times are kept to the microsecond. Pure: nothing here reads a clock, a file or
a socket.

The object key alone says everything the catalogue knows about a segment, so that the
catalogue can be rebuilt from a listing of the store::

    segments/2026-11-24/6f1c…-uuid/20261124T022829.123456Z_000010000000_0000000042_03600_<sha256>.mp4.age
             capture    camera     start of the span       duration     sequence   key   of the sealed
             day (UTC)                                     in µs                   period bytes
                                                                                   in s

Footage of a camera that is kept for less than the site keeps is sealed to keys of its own, and says for how
long (in s), behind the day and behind the key period: ``2026-11-24-0604800/…``, ``…_03600-0604800_…``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import NewType
from uuid import UUID

from videostore.domain.camera import CameraId

ObjectKey = NewType("ObjectKey", str)
Sha256Hex = NewType("Sha256Hex", str)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
SEGMENTS = "segments/"
LONGEST_SEGMENT = timedelta(hours=1)
"""No segment is longer: it bounds what a search for a moment has to look at."""
LONGEST_GAP = timedelta(days=1)
"""No gap on record is longer: what is known about a day is forgotten with its footage."""
SITE_KEEP = timedelta(0)
"""Stands for "as long as the site keeps footage" where a key or a segment says for how long."""
_LONGEST_KEEP = timedelta(days=30)
_LONGEST_PERIOD = timedelta(days=1)
_TIME = "%Y%m%dT%H%M%S.%fZ"
_NAME = re.compile(
    r"(?P<start>\d{8}T\d{6}\.\d{6}Z)_(?P<duration>\d{12})_(?P<sequence>\d{10})_"
    r"(?P<period>\d{5})(-(?P<keep>\d{7}))?_(?P<sha256>[0-9a-f]{64})\.mp4\.age"
)
_DAY = re.compile(r"segments/(?P<day>\d{4}-\d\d-\d\d)(-(?P<keep>\d{7}))?/")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Half-open interval ``[start, end)`` of aware UTC datetimes; never empty."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.utcoffset() != timedelta(0) or self.end.utcoffset() != timedelta(0):
            raise ValueError("a span is given in UTC")
        if self.end <= self.start:
            raise ValueError(f"a span ends after it starts: {self.start.isoformat()} {self.end.isoformat()}")

    @property
    def duration(self) -> timedelta:
        return self.end - self.start

    def overlaps(self, other: Span) -> bool:
        return self.start < other.end and other.start < self.end

    def contains(self, other: Span) -> bool:
        return self.start <= other.start and other.end <= self.end

    def intersection(self, other: Span) -> Span | None:
        if not self.overlaps(other):
            return None
        return Span(max(self.start, other.start), min(self.end, other.end))


def uncovered(span: Span, covered: Iterable[Span]) -> list[Span]:
    """Return the parts of ``span`` that no span of ``covered`` touches, in order."""
    holes: list[Span] = []
    at = span.start
    for piece in sorted(covered):
        if piece.start > at:
            holes.append(Span(at, min(piece.start, span.end)))
        at = max(at, piece.end)
        if at >= span.end:
            return holes
    if at < span.end:
        holes.append(Span(at, span.end))
    return holes


@dataclass(frozen=True, slots=True, order=True)
class KeyId:
    """Names the hour key of ``[start, start + period)``, for footage that is kept for ``keep``.

    The period is one hour; a demonstration site uses seconds. Periods are counted from the
    Unix epoch, so every process derives the same key for the same moment.
    """

    start: datetime
    period: timedelta
    keep: timedelta = SITE_KEEP

    def __post_init__(self) -> None:
        _check_key(self.period, self.keep)
        if (self.start - EPOCH) % self.period:
            raise ValueError(f"{self.start.isoformat()} does not start a key period")

    @classmethod
    def covering(cls, moment: datetime, period: timedelta, keep: timedelta = SITE_KEEP) -> KeyId:
        return cls(moment - (moment - EPOCH) % period, period, keep)

    @property
    def span(self) -> Span:
        return Span(self.start, self.start + self.period)

    @property
    def next(self) -> KeyId:
        return KeyId(self.start + self.period, self.period, self.keep)

    def __str__(self) -> str:
        name = f"{self.start:%Y%m%dT%H%M%SZ}-{self.period // SECOND}"
        return f"{name}-{self.keep // SECOND}" if self.keep else name

    @classmethod
    def parse(cls, text: str) -> KeyId:
        """Return the key id that ``str`` wrote. Raises ValueError on anything else."""
        start, *seconds = text.split("-")
        period, keep = (int(count) * SECOND for count in (*seconds, "0")[:2])
        parsed = cls(datetime.fromisoformat(start).replace(tzinfo=UTC), period, keep)
        if str(parsed) != text:
            raise ValueError(f"{text!r} is not a key id")
        return parsed


def _check_key(period: timedelta, keep: timedelta) -> None:
    if not SECOND <= period <= _LONGEST_PERIOD or period % SECOND:
        raise ValueError("a key period is a whole number of seconds, from 1 to 86400")
    if not SITE_KEEP <= keep <= _LONGEST_KEEP or keep % SECOND:
        raise ValueError("footage is kept for a whole number of seconds, at most 30 days")


@dataclass(frozen=True, slots=True)
class Segment:
    """Facts of one sealed segment: immutable, no footage and no personal data.

    ``span.start`` is the moment of the first frame, never later than its receipt.
    ``size_bytes`` and ``sha256`` are of the sealed bytes, as stored. ``keep`` is that of its key.
    """

    camera_id: CameraId
    span: Span
    sequence: int
    key_period: timedelta
    size_bytes: int
    sha256: Sha256Hex
    keep: timedelta = SITE_KEEP

    def __post_init__(self) -> None:
        _check_key(self.key_period, self.keep)
        if self.span.duration > LONGEST_SEGMENT:
            raise ValueError(f"a segment of {self.span.duration} is longer than {LONGEST_SEGMENT}")

    @property
    def key_id(self) -> KeyId:
        return KeyId.covering(self.span.start, self.key_period, self.keep)

    @property
    def name(self) -> str:
        """The last part of the object key; with the camera it says everything."""
        keep = f"-{self.keep // SECOND:07d}" if self.keep else ""
        return (
            f"{self.span.start.strftime(_TIME)}_{self.span.duration // MICROSECOND:012d}_"
            f"{self.sequence:010d}_{self.key_period // SECOND:05d}{keep}_{self.sha256}.mp4.age"
        )

    @property
    def object_key(self) -> ObjectKey:
        return ObjectKey(f"{day_prefix(self.span.start.date(), self.keep)}{self.camera_id}/{self.name}")

    @classmethod
    def from_object_key(cls, key: str, *, size_bytes: int) -> Segment:
        """Read the facts back from an object key. Raises ValueError for any other key."""
        *_, camera, name = ("", *key.split("/"))
        segment = cls.from_name(camera, name, size_bytes=size_bytes)
        if key != f"{day_prefix(segment.span.start.date(), segment.keep)}{camera}/{name}":
            raise ValueError(f"{key!r} contradicts itself")
        return segment

    @classmethod
    def from_name(cls, camera: str, name: str, *, size_bytes: int) -> Segment:
        """Read the facts back from the last two parts of an object key. Raises ValueError for any others."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!r} is not the key of a segment")
        start = datetime.fromisoformat(match["start"])
        segment = cls(
            camera_id=UUID(camera),
            span=Span(start, start + int(match["duration"]) * MICROSECOND),
            sequence=int(match["sequence"]),
            key_period=int(match["period"]) * SECOND,
            size_bytes=size_bytes,
            sha256=Sha256Hex(match["sha256"]),
            keep=int(match["keep"] or 0) * SECOND,
        )
        if segment.name != name or str(segment.camera_id) != camera:
            raise ValueError(f"{camera}/{name} contradicts itself")
        return segment


def day_prefix(day: date, keep: timedelta = SITE_KEEP) -> str:
    """Return the prefix under which all segments captured on ``day`` (UTC) and kept so long are stored."""
    return f"{SEGMENTS}{day:%Y-%m-%d}-{keep // SECOND:07d}/" if keep else f"{SEGMENTS}{day:%Y-%m-%d}/"


def read_day_prefix(prefix: str) -> tuple[datetime, timedelta]:
    """Return the beginning of the day and the keep that ``day_prefix`` wrote. Raises ValueError on anything
    else."""
    match = _DAY.fullmatch(prefix)
    if match is None:
        raise ValueError(f"{prefix!r} is not the prefix of a day")
    day = datetime.strptime(match["day"], "%Y-%m-%d").replace(tzinfo=UTC)
    return day, int(match["keep"] or 0) * SECOND


class GapReason(StrEnum):
    """Why a span of a camera has no footage; ``packet-loss``: why its footage is damaged."""

    CAMERA_UNREACHABLE = "camera-unreachable"
    STREAM_ERROR = "stream-error"
    RECORDER_DOWN = "recorder-down"
    PACKET_LOSS = "packet-loss"
    SPOOL_OVERRUN = "spool-overrun"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """A span of a camera without footage, or with footage that packets are missing from; and the reason."""

    span: Span
    camera_id: CameraId
    reason: GapReason


def joined(gap: Gap, known: Iterable[Gap]) -> tuple[Gap | None, list[Gap]]:
    """Return what to put on record for ``gap``, and which of ``known`` it replaces.

    ``known`` are gaps of the same camera and reason. A gap that is on record already gives None; one that
    goes on where another ends makes that one longer, up to LONGEST_GAP.
    """
    touching = [one for one in known if one.span.start <= gap.span.end and gap.span.start <= one.span.end]
    if any(one.span.contains(gap.span) for one in touching):
        return None, []
    span, replaced = gap.span, []
    for one in sorted(touching):
        union = Span(min(one.span.start, span.start), max(one.span.end, span.end))
        if union.duration <= LONGEST_GAP:
            span = union
            replaced.append(one)
    return Gap(span, gap.camera_id, gap.reason), replaced


def capture_time(claimed: datetime | None, received: datetime, *, max_offset: timedelta) -> datetime:
    """Return the moment a live frame counts as captured.

    A camera's claim is believed when it lies at most ``max_offset`` before the receipt. A claim
    in the future never counts (it would extend the footage's life), and one further in the past
    cannot be true of a live stream: both give the time of receipt.
    """
    if claimed is None or not received - max_offset <= claimed <= received:
        return received
    return claimed
