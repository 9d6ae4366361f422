"""Rows of the catalogue: what they say, and how they are found without reading others.

Nothing that a row says beside its object key is more than a way to find it: who may write to the database can
have it say anything. So it is compared with what the object key says, and one that nothing can be made of
keeps no other from being read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa

from videostore import telemetry
from videostore.catalogue.tables import KEY, SEGMENTS
from videostore.domain.camera import CameraId
from videostore.domain.coverage import JITTER
from videostore.domain.retention import SegmentState
from videostore.domain.segment import (
    EPOCH,
    LONGEST_SEGMENT,
    MICROSECOND,
    SECOND,
    Gap,
    GapReason,
    KeyId,
    Segment,
    Span,
)
from videostore.ports import Amount

STATE = {SegmentState.LIVE: 0, SegmentState.CONDEMNED: 1, SegmentState.ABSENT: 2}
STATES = frozenset(STATE.values())
_NO_TIME_FROM = 221_845_392_000_000_000  # the year 9000: keys of the calendar's end have no deadline
_LARGEST = 2**62
_UNREADABLE = (ValueError, TypeError, ArithmeticError, AttributeError)
log = telemetry.logger("catalogue")
Item = TypeVar("Item")

BY_CAMERA = [SEGMENTS.c.camera_id.asc(), SEGMENTS.c.start_us.asc(), SEGMENTS.c.object_key.asc()]


def row_of(segment: Segment) -> dict[str, Any]:
    return {
        "object_key": segment.object_key,
        "camera_id": str(segment.camera_id),
        "start_us": microseconds(segment.span.start),
        "end_us": microseconds(segment.span.end),
        "key_start_us": microseconds(segment.key_id.start),
        "key_period_s": segment.key_period // SECOND,
        "key_keep_s": segment.keep // SECOND,
        "size_bytes": segment.size_bytes,
        "state": STATE[SegmentState.LIVE],
    }


def readable(rows: Iterable[Sequence[Any]], read: Callable[[Sequence[Any]], Item]) -> Iterator[Item]:
    """Yield what ``read`` makes of rows, without those that it can make nothing of."""
    for row in rows:
        try:
            yield read(row)
        except _UNREADABLE as error:
            log.error("row.unreadable", row=[str(one) for one in row], error=str(error))


def contradictions(row: Mapping[Any, Any]) -> list[str]:
    """Return the columns of a row that say other than its object key does, or nothing that can be."""
    try:
        own = row_of(Segment.from_object_key(row["object_key"], size_bytes=0))
    except _UNREADABLE:
        return ["object_key"]
    size = row["size_bytes"]
    free = {"state": row["state"] in STATES, "size_bytes": isinstance(size, int) and 0 <= size <= _LARGEST}
    return [name for name, said in row.items() if not free.get(name, said == own[name])]


def contradicting(said: Mapping[str, Any]) -> sa.ColumnElement[bool]:
    """Tell the rows whose columns are not what is ``said`` instead, but for size and the states there are."""
    free = {"object_key", "size_bytes", "state"}
    others = [column != said[column.name] for column in SEGMENTS.c if column.name not in free]
    size, states = SEGMENTS.c.size_bytes, SEGMENTS.c.state.in_(STATES)
    half = size != sa.cast(size, sa.BigInteger)  # SQLite takes it
    return sa.or_(*others, half, sa.not_(size.between(0, _LARGEST)), sa.not_(states))


def segment_of(row: Sequence[Any]) -> Segment:
    object_key, size_bytes = row
    return Segment.from_object_key(object_key, size_bytes=int(size_bytes))


def in_state(state: SegmentState) -> sa.ColumnElement[bool]:
    return SEGMENTS.c.state == STATE[state]


def still(state: SegmentState) -> sa.ColumnElement[bool]:
    """Compare the state of rows that are found by something else. As a bare column SQLite would look all
    rows of the state up, which is everything that is live."""
    return SEGMENTS.c.state + 0 == STATE[state]


OLDEST_OF = (
    sa.select(*KEY)
    .where(still(SegmentState.LIVE), SEGMENTS.c.camera_id == sa.bindparam("camera"))
    .order_by(SEGMENTS.c.start_us)
    .limit(1)
)
"""Made once: it is asked for each camera that is kept for less, at each pass."""


def of_key(key_id: KeyId, camera_id: CameraId | None = None) -> sa.ColumnElement[bool]:
    values = (microseconds(key_id.start), key_id.period // SECOND, key_id.keep // SECOND)
    same = [column == value for column, value in zip(KEY, values, strict=True)]
    return sa.and_(*same, *([SEGMENTS.c.camera_id == str(camera_id)] if camera_id else []))


def _hops(state: SegmentState) -> sa.Select[Any]:
    """Return the question for the keys of ``state``, up to the first that begins at ``:until`` or later.

    Each row of it is the first of its key, found from the one before; one statement, for it is asked at each
    pass. SQLite follows an index by equal columns and one greater one; asked for a greater *row*, it reads
    every row of the key it comes from.
    """
    here, onward = SEGMENTS.alias("here"), SEGMENTS.alias("onward")
    begun = sa.select(SEGMENTS.c.object_key).where(in_state(state)).order_by(*KEY).limit(1).scalar_subquery()
    hops = sa.select(begun.label("object_key")).cte("hops", recursive=True)
    key, others = ([table.c[column.name] for column in KEY] for table in (here, onward))
    following = (
        sa.select(onward.c.object_key).where(onward.c.state == STATE[state]).order_by(*others).limit(1)
    )
    beyond = (
        following.where(
            *(one == other for one, other in zip(key[:n], others, strict=False)), others[n] > key[n]
        )
        .correlate(here)
        .scalar_subquery()
        for n in reversed(range(len(key)))
    )
    hop = sa.select(sa.func.coalesce(*beyond)).select_from(
        hops.join(here, here.c.object_key == hops.c.object_key)
    )
    hops = hops.union_all(hop.where(key[0] < sa.bindparam("until", type_=sa.BigInteger)))
    return sa.select(*KEY).join_from(SEGMENTS, hops, SEGMENTS.c.object_key == hops.c.object_key)


HOPS = {state: _hops(state) for state in SegmentState}


def key_of(row: Sequence[int]) -> KeyId:
    start, period, keep = row
    if not 0 <= start < _NO_TIME_FROM:
        raise ValueError(f"no key begins {start} us after 1970")
    return KeyId(moment(start), period * SECOND, keep * SECOND)


def overlaps(span: Span) -> sa.ColumnElement[bool]:
    return sa.and_(
        SEGMENTS.c.start_us > microseconds(span.start - LONGEST_SEGMENT),
        SEGMENTS.c.start_us < microseconds(span.end),
        SEGMENTS.c.end_us > microseconds(span.start),
    )


def possible() -> sa.ColumnElement[bool]:
    """Leave out rows that begin or end where no segment does. A sum is no bound of an index: SQLite took this
    one, and not the narrow one of the question."""
    length, start = SEGMENTS.c.end_us - SEGMENTS.c.start_us, SEGMENTS.c.start_us + 0
    return sa.and_(length.between(1, LONGEST_SEGMENT // MICROSECOND), start.between(0, _NO_TIME_FROM))


def microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND


def moment(us: int) -> datetime:
    return EPOCH + int(us) * MICROSECOND


def gap_of(row: Sequence[Any]) -> Gap:
    camera, start, end, reason = row
    return Gap(Span(moment(start), moment(end)), UUID(camera), GapReason(reason))


def amount_of(row: Sequence[Any]) -> Amount:
    *key, camera, objects, size_bytes = row
    return Amount(key_of(key), UUID(camera), objects, int(size_bytes))


def moment_of(row: Sequence[Any]) -> datetime:
    return moment(row[0])


def sum_of(one: Amount, other: Amount) -> Amount:
    return replace(one, objects=one.objects + other.objects, size_bytes=one.size_bytes + other.size_bytes)


def touching(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[CameraId, Span]]:
    """Join rows of camera, start and end that touch. Works on whole microseconds: there are many rows."""
    jitter = JITTER // MICROSECOND
    camera, start, end = "", 0, 0
    for one, begins, ends in rows:
        if one == camera and begins - end <= jitter:
            end = max(end, ends)
            continue
        if camera:
            yield UUID(camera), Span(moment(start), moment(end))
        camera, start, end = one, begins, ends
    if camera:
        yield UUID(camera), Span(moment(start), moment(end))
