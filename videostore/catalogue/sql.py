"""Catalogue in SQLite or PostgreSQL, by SQLAlchemy Core."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from videostore.catalogue.database import WRITING, bring_up_to_date, connect
from videostore.catalogue.rows import (
    BY_CAMERA,
    HOPS,
    OLDEST_OF,
    STATE,
    amount_of,
    contradicting,
    contradictions,
    gap_of,
    in_state,
    key_of,
    microseconds,
    moment,
    moment_of,
    of_key,
    overlaps,
    possible,
    readable,
    row_of,
    segment_of,
    still,
    sum_of,
    touching,
)
from videostore.catalogue.tables import GAPS, KEY, SEGMENTS
from videostore.domain.camera import CameraId
from videostore.domain.errors import CatalogueUnavailable
from videostore.domain.retention import SegmentState
from videostore.domain.segment import (
    LONGEST_SEGMENT,
    MICROSECOND,
    Gap,
    KeyId,
    ObjectKey,
    Segment,
    Span,
    joined,
)
from videostore.ports import Amount, Totals

_LEAVING = (SegmentState.CONDEMNED, SegmentState.ABSENT)
_BATCH = 500
_PAGE = 1000
_MOVED_AT_ONCE = 5000
"""Rows that one transaction condemns: a recorder's commit waits no longer than that takes."""

Item = TypeVar("Item")


class SqlCatalogue:
    """Port Catalogue. Safe to share between threads; processes share the database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._insert: Any = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert

    @classmethod
    def open(cls, url: str, *, credentials: tuple[str, str] | None = None) -> SqlCatalogue:
        """Connect and bring the tables up to date.

        ``url`` is ``sqlite:///PATH`` or ``postgresql://HOST/DATABASE``. Raises CatalogueUnavailable,
        or SiteTooNew if a newer version of the program made the tables.
        """
        catalogue = cls(connect(url, credentials))
        try:
            with catalogue._transaction(write=True) as connection:
                bring_up_to_date(connection)
        except BaseException:
            catalogue.close()
            raise
        return catalogue

    def close(self) -> None:
        self._engine.dispose()

    # --- coming in ---

    def add(self, segment: Segment) -> None:
        self._put({segment.object_key: segment})

    def adopt(self, segments: Iterable[Segment]) -> int:
        """Most are known: those are only read. Who writes to many waits for retention, and it for them."""
        new = 0
        for batch in _batches(segments):
            found = {segment.object_key: segment for segment in batch}
            for key in self.known(found.keys()):
                del found[key]
            new += self._put(found) if found else 0
        return new

    def _put(self, found: Mapping[ObjectKey, Segment]) -> int:
        insert = self._insert(SEGMENTS).values([row_of(segment) for segment in found.values()])
        said = insert.excluded
        put_right = insert.on_conflict_do_update(
            index_elements=[SEGMENTS.c.object_key], set_=dict(said), where=contradicting(said)
        )
        with self._transaction(write=True) as connection:
            return len(connection.execute(put_right.returning(SEGMENTS.c.object_key)).all())

    def add_gap(self, gap: Gap) -> None:
        same = sa.and_(
            GAPS.c.camera_id == str(gap.camera_id),
            GAPS.c.reason == gap.reason.value,
            GAPS.c.start_us <= microseconds(gap.span.end),
            GAPS.c.end_us >= microseconds(gap.span.start),
        )
        with self._transaction(write=True) as connection:
            known = [gap_of(row) for row in connection.execute(sa.select(GAPS).where(same))]
            kept, replaced = joined(gap, known)
            for one in replaced:
                connection.execute(
                    sa.delete(GAPS).where(
                        same,
                        GAPS.c.start_us == microseconds(one.span.start),
                        GAPS.c.end_us == microseconds(one.span.end),
                    )
                )
            if kept is not None:
                values = {
                    "camera_id": str(kept.camera_id),
                    "start_us": microseconds(kept.span.start),
                    "end_us": microseconds(kept.span.end),
                    "reason": kept.reason.value,
                }
                connection.execute(self._insert(GAPS).values(**values).on_conflict_do_nothing())

    # --- looking ---

    def segments(self, cameras: Collection[CameraId], span: Span) -> list[Segment]:
        return [
            segment
            for batch in _batches(sorted(str(camera) for camera in set(cameras)))
            for segment in self._select(
                in_state(SegmentState.LIVE), SEGMENTS.c.camera_id.in_(batch), overlaps(span), order=BY_CAMERA
            )
        ]

    def footage(self, cameras: Collection[CameraId], span: Span) -> list[tuple[CameraId, Span]]:
        found: list[tuple[CameraId, Span]] = []
        for batch in _batches(sorted(str(camera) for camera in set(cameras))):
            query = sa.select(SEGMENTS.c.camera_id, SEGMENTS.c.start_us, SEGMENTS.c.end_us).where(
                in_state(SegmentState.LIVE), SEGMENTS.c.camera_id.in_(batch), overlaps(span), possible()
            )
            with self._transaction() as connection:
                rows = connection.execute(query.order_by(SEGMENTS.c.camera_id, SEGMENTS.c.start_us)).all()
            found += touching(rows)
        return found

    def gaps(self, cameras: Collection[CameraId], span: Span) -> list[Gap]:
        overlap = sa.and_(GAPS.c.start_us < microseconds(span.end), GAPS.c.end_us > microseconds(span.start))
        found: list[Gap] = []
        with self._transaction() as connection:
            for batch in _batches(sorted(str(camera) for camera in set(cameras))):
                query = sa.select(GAPS).where(GAPS.c.camera_id.in_(batch), overlap)
                query = query.order_by(GAPS.c.camera_id, GAPS.c.start_us, GAPS.c.end_us, GAPS.c.reason)
                found += readable(connection.execute(query).all(), gap_of)
        return found

    def last_end(self, camera_id: CameraId) -> datetime | None:
        own = sa.and_(SEGMENTS.c.camera_id == str(camera_id), possible())
        newest = sa.select(sa.func.max(SEGMENTS.c.start_us)).where(own)
        with self._transaction() as connection:
            start = connection.execute(newest).scalar()
            if start is None:
                return None
            query = sa.select(sa.func.max(SEGMENTS.c.end_us)).where(
                own,
                SEGMENTS.c.start_us > start - LONGEST_SEGMENT // MICROSECOND,
            )
            return moment(connection.execute(query).scalar_one())

    def known(self, keys: Collection[ObjectKey]) -> set[ObjectKey]:
        found: set[ObjectKey] = set()
        with self._transaction() as connection:
            for batch in _batches(keys):
                query = sa.select(SEGMENTS).where(SEGMENTS.c.object_key.in_(batch))
                rows = connection.execute(query).mappings()
                found |= {ObjectKey(row["object_key"]) for row in rows if not contradictions(row)}
        return found

    def altered(self) -> Iterator[str]:
        after: Any = ""
        query = sa.select(SEGMENTS).order_by(SEGMENTS.c.object_key).limit(_PAGE)
        while True:
            with self._transaction() as connection:
                rows = connection.execute(query.where(SEGMENTS.c.object_key > after)).mappings().all()
            for row in rows:
                if wrong := contradictions(row):
                    yield f"{row['object_key']}: {', '.join(wrong)}"
            if not rows:
                return
            after = rows[-1]["object_key"]

    def live(self, *, after: ObjectKey | None = None, limit: int = 1000) -> list[Segment]:
        found: list[Segment] = []
        last: Any = after or ""
        while len(found) < limit:
            rows = self._rows(
                still(SegmentState.LIVE),
                SEGMENTS.c.object_key > last,
                order=[SEGMENTS.c.object_key.asc()],
                limit=limit - len(found),
            )
            if not rows:
                break
            found += readable(rows, segment_of)
            last = rows[-1][0]
        return found

    def amounts(self, *, until: datetime) -> list[Amount]:
        found: dict[tuple[KeyId, CameraId], Amount] = {}
        for state in (SegmentState.LIVE, SegmentState.CONDEMNED):
            query = (
                sa.select(*KEY, SEGMENTS.c.camera_id, sa.func.count(), sa.func.sum(SEGMENTS.c.size_bytes))
                .where(in_state(state), KEY[0] < microseconds(until))
                .group_by(*KEY, SEGMENTS.c.camera_id)
            )
            with self._transaction() as connection:
                rows = connection.execute(query).all()
            for one in readable(rows, amount_of):
                assert one.camera_id is not None
                other = found.get((one.key_id, one.camera_id))
                found[one.key_id, one.camera_id] = one if other is None else sum_of(one, other)
        return [found[one] for one in sorted(found)]

    def totals(self) -> Totals:
        live = SEGMENTS.c.state == STATE[SegmentState.LIVE]
        query = sa.select(
            sa.func.count(),
            sa.func.sum(SEGMENTS.c.size_bytes),
            sa.func.min(SEGMENTS.c.start_us).filter(possible()),
            sa.func.max(SEGMENTS.c.end_us).filter(possible()),
        ).where(live)
        condemned = sa.select(sa.func.count()).where(in_state(SegmentState.CONDEMNED))
        with self._transaction() as connection:
            count, size_bytes, oldest, newest = connection.execute(query).one()
            return Totals(
                segments=count,
                size_bytes=int(size_bytes or 0),
                condemned=connection.execute(condemned).scalar_one(),
                oldest=None if oldest is None else moment(oldest),
                newest=None if newest is None else moment(newest),
            )

    def of_hour(self, start: datetime) -> tuple[int, int]:
        query = sa.select(sa.func.count(), sa.func.sum(SEGMENTS.c.size_bytes))
        with self._transaction() as connection:
            count, size_bytes = connection.execute(
                query.where(in_state(SegmentState.LIVE), KEY[0] == microseconds(start))
            ).one()
        return count, int(size_bytes or 0)

    # --- going out ---

    def key_ids(self, *, until: datetime) -> list[KeyId]:
        return self._key_ids(SegmentState.LIVE, until=until)

    def unfinished(self) -> list[KeyId]:
        return sorted({one for state in _LEAVING for one in self._key_ids(state)})

    def oldest_key(self, camera_id: CameraId) -> KeyId | None:
        with self._transaction() as connection:
            rows = connection.execute(OLDEST_OF, {"camera": str(camera_id)}).all()
        return next(readable(rows, key_of), None)

    def oldest(self) -> datetime | None:
        keys = self._key_ids(SegmentState.LIVE)
        if not keys:
            return None
        query = sa.select(sa.func.min(SEGMENTS.c.start_us))
        query = query.where(in_state(SegmentState.LIVE), of_key(keys[0]))
        with self._transaction() as connection:
            return next(readable(connection.execute(query).all(), moment_of), None)

    def leaving(self) -> dict[tuple[KeyId, CameraId, SegmentState], int]:
        of = (SEGMENTS.c.state, *KEY, SEGMENTS.c.camera_id)
        states = {STATE[state]: state for state in _LEAVING}
        query = sa.select(*of, sa.func.count()).where(SEGMENTS.c.state.in_(states)).group_by(*of)
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        found = readable(rows, lambda row: ((key_of(row[1:4]), UUID(row[4]), states[row[0]]), row[5]))
        return dict(found)

    def condemn(self, key_id: KeyId, camera_id: CameraId | None = None) -> int:
        live = sa.select(SEGMENTS.c.object_key).where(in_state(SegmentState.LIVE), of_key(key_id, camera_id))
        few = SEGMENTS.c.object_key.in_(live.limit(_MOVED_AT_ONCE))
        moved = 0
        while step := self._advance(few, before=SegmentState.LIVE, after=SegmentState.CONDEMNED):
            moved += step
        return moved

    def condemn_these(self, keys: Collection[ObjectKey]) -> int:
        return sum(
            self._advance(
                SEGMENTS.c.object_key.in_(batch), before=SegmentState.LIVE, after=SegmentState.CONDEMNED
            )
            for batch in _batches(keys)
        )

    def revive(self, key_id: KeyId, camera_id: CameraId) -> int:
        own = of_key(key_id, camera_id)
        return sum(self._advance(own, before=state, after=SegmentState.LIVE) for state in _LEAVING)

    def cameras(self, key_id: KeyId) -> list[CameraId]:
        found: set[CameraId] = set()
        with self._transaction() as connection:
            for state in _LEAVING:
                query = sa.select(SEGMENTS.c.camera_id).distinct().where(in_state(state), of_key(key_id))
                found.update(readable(connection.execute(query).all(), lambda row: UUID(row[0])))
        return sorted(found)

    def condemned(self, key_id: KeyId, camera_id: CameraId | None = None) -> list[Segment]:
        return self._select(in_state(SegmentState.CONDEMNED), of_key(key_id, camera_id), order=BY_CAMERA)

    def mark_absent(self, keys: Collection[ObjectKey]) -> None:
        for batch in _batches(keys):
            named = SEGMENTS.c.object_key.in_(batch)
            self._advance(named, before=SegmentState.CONDEMNED, after=SegmentState.ABSENT)

    def absent(self, key_id: KeyId, camera_id: CameraId | None = None) -> list[Segment]:
        return self._select(in_state(SegmentState.ABSENT), of_key(key_id, camera_id), order=BY_CAMERA)

    def forget(self, keys: Collection[ObjectKey]) -> None:
        for batch in _batches(keys):
            gone = sa.delete(SEGMENTS).where(still(SegmentState.ABSENT), SEGMENTS.c.object_key.in_(batch))
            with self._transaction(write=True) as connection:
                connection.execute(gone)

    def forget_gaps(self, *, until: datetime) -> int:
        with self._transaction(write=True) as connection:
            return connection.execute(sa.delete(GAPS).where(GAPS.c.end_us < microseconds(until))).rowcount

    # --- SQL ---

    def _select(
        self, *where: sa.ColumnElement[bool], order: Sequence[sa.ColumnElement[Any]]
    ) -> list[Segment]:
        return list(readable(self._rows(*where, order=order), segment_of))

    def _rows(
        self, *where: sa.ColumnElement[bool], order: Sequence[sa.ColumnElement[Any]], limit: int | None = None
    ) -> Sequence[sa.Row[Any, Any]]:
        query = sa.select(SEGMENTS.c.object_key, SEGMENTS.c.size_bytes).where(*where)
        with self._transaction() as connection:
            return connection.execute(query.order_by(*order).limit(limit)).all()

    def _key_ids(self, state: SegmentState, *, until: datetime | None = None) -> list[KeyId]:
        """Hop from key to key along the index: the cost grows with the hours that have rows, not with the
        rows."""
        end = sys.maxsize if until is None else microseconds(until)
        with self._transaction() as connection:
            rows = connection.execute(HOPS[state], {"until": end}).all()
        return sorted(one for one in readable(rows, key_of) if microseconds(one.start) < end)

    def _advance(self, which: sa.ColumnElement[bool], *, before: SegmentState, after: SegmentState) -> int:
        change = sa.update(SEGMENTS).where(still(before), which).values(state=STATE[after])
        with self._transaction(write=True) as connection:
            return connection.execute(change).rowcount

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[sa.Connection]:
        try:
            engine = self._engine.execution_options(**{WRITING: write})
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise CatalogueUnavailable(
                f"the catalogue does not answer: {reason}",
                hint="Check `catalogue` in videostore.yaml and that the database runs and has room.",
            ) from error


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch
