"""Rows of the catalogue: what they say, and how they are found without reading others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from videostore.catalogue.tables import KEY, SEGMENTS
from videostore.domain.camera import CameraId
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

STATE = {SegmentState.LIVE: 0, SegmentState.CONDEMNED: 1, SegmentState.ABSENT: 2}
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


def first_key(state: SegmentState) -> sa.Select[Any]:
    return sa.select(*KEY).where(in_state(state)).order_by(*KEY).limit(1)


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
    return KeyId(moment(start), period * SECOND, keep * SECOND)


def overlaps(span: Span) -> sa.ColumnElement[bool]:
    return sa.and_(
        SEGMENTS.c.start_us > microseconds(span.start - LONGEST_SEGMENT),
        SEGMENTS.c.start_us < microseconds(span.end),
        SEGMENTS.c.end_us > microseconds(span.start),
    )


def microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND


def moment(us: int) -> datetime:
    return EPOCH + int(us) * MICROSECOND


def gap_of(row: Sequence[Any]) -> Gap:
    camera, start, end, reason = row
    return Gap(Span(moment(start), moment(end)), UUID(camera), GapReason(reason))
