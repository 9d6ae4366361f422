"""Catalogue in SQLite or PostgreSQL, by SQLAlchemy Core.

SQLite (embedded): WAL for readers beside a writer, ``synchronous=FULL`` so that a committed row
survives a power cut, ``secure_delete`` so that a forgotten row is overwritten.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from videostore.catalogue.tables import GAPS, KEY, SEGMENTS
from videostore.domain.camera import CameraId
from videostore.domain.coverage import JITTER
from videostore.domain.errors import CatalogueUnavailable, SiteTooNew
from videostore.domain.retention import SegmentState
from videostore.domain.segment import (
    EPOCH,
    LONGEST_SEGMENT,
    MICROSECOND,
    SECOND,
    Gap,
    GapReason,
    KeyId,
    ObjectKey,
    Segment,
    Span,
    joined,
)
from videostore.ports import Amount, Totals

_STATE = {SegmentState.LIVE: 0, SegmentState.CONDEMNED: 1, SegmentState.ABSENT: 2}
_LEAVING = (SegmentState.CONDEMNED, SegmentState.ABSENT)
_BATCH = 500
_MOVED_AT_ONCE = 5000
"""Rows that one transaction condemns: a recorder's commit waits no longer than that takes."""
_PATIENCE_SECONDS = 30
_WRITING = "videostore_writing"

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
        catalogue = cls(_engine(url, credentials))
        try:
            with catalogue._transaction(write=True) as connection:
                _migrate(connection)
        except BaseException:
            catalogue.close()
            raise
        return catalogue

    def close(self) -> None:
        self._engine.dispose()

    # --- coming in ---

    def add(self, segment: Segment) -> None:
        self.adopt([segment])

    def adopt(self, segments: Iterable[Segment]) -> int:
        new = 0
        for batch in _batches(segments):
            insert = self._insert(SEGMENTS).values([_row(segment) for segment in batch])
            with self._transaction(write=True) as connection:
                added = connection.execute(insert.on_conflict_do_nothing().returning(SEGMENTS.c.object_key))
                new += len(added.all())
        return new

    def add_gap(self, gap: Gap) -> None:
        same = sa.and_(
            GAPS.c.camera_id == str(gap.camera_id),
            GAPS.c.reason == gap.reason.value,
            GAPS.c.start_us <= _us(gap.span.end),
            GAPS.c.end_us >= _us(gap.span.start),
        )
        with self._transaction(write=True) as connection:
            known = [_gap(row) for row in connection.execute(sa.select(GAPS).where(same))]
            kept, replaced = joined(gap, known)
            for one in replaced:
                connection.execute(
                    sa.delete(GAPS).where(
                        same, GAPS.c.start_us == _us(one.span.start), GAPS.c.end_us == _us(one.span.end)
                    )
                )
            if kept is not None:
                values = {
                    "camera_id": str(kept.camera_id),
                    "start_us": _us(kept.span.start),
                    "end_us": _us(kept.span.end),
                    "reason": kept.reason.value,
                }
                connection.execute(self._insert(GAPS).values(**values).on_conflict_do_nothing())

    # --- looking ---

    def segments(self, cameras: Collection[CameraId], span: Span) -> list[Segment]:
        return [
            segment
            for batch in _batches(sorted(str(camera) for camera in set(cameras)))
            for segment in self._select(
                _is(SegmentState.LIVE), SEGMENTS.c.camera_id.in_(batch), _overlaps(span), order=_BY_CAMERA
            )
        ]

    def footage(self, cameras: Collection[CameraId], span: Span) -> list[tuple[CameraId, Span]]:
        found: list[tuple[CameraId, Span]] = []
        for batch in _batches(sorted(str(camera) for camera in set(cameras))):
            query = sa.select(SEGMENTS.c.camera_id, SEGMENTS.c.start_us, SEGMENTS.c.end_us).where(
                _is(SegmentState.LIVE), SEGMENTS.c.camera_id.in_(batch), _overlaps(span)
            )
            with self._transaction() as connection:
                rows = connection.execute(query.order_by(SEGMENTS.c.camera_id, SEGMENTS.c.start_us)).all()
            found += _joined(rows)
        return found

    def gaps(self, cameras: Collection[CameraId], span: Span) -> list[Gap]:
        overlap = sa.and_(GAPS.c.start_us < _us(span.end), GAPS.c.end_us > _us(span.start))
        found: list[Gap] = []
        with self._transaction() as connection:
            for batch in _batches(sorted(str(camera) for camera in set(cameras))):
                query = sa.select(GAPS).where(GAPS.c.camera_id.in_(batch), overlap)
                query = query.order_by(GAPS.c.camera_id, GAPS.c.start_us, GAPS.c.end_us, GAPS.c.reason)
                found += [_gap(row) for row in connection.execute(query)]
        return found

    def last_end(self, camera_id: CameraId) -> datetime | None:
        newest = sa.select(sa.func.max(SEGMENTS.c.start_us)).where(SEGMENTS.c.camera_id == str(camera_id))
        with self._transaction() as connection:
            start = connection.execute(newest).scalar()
            if start is None:
                return None
            query = sa.select(sa.func.max(SEGMENTS.c.end_us)).where(
                SEGMENTS.c.camera_id == str(camera_id),
                SEGMENTS.c.start_us > start - LONGEST_SEGMENT // MICROSECOND,
            )
            return _moment(connection.execute(query).scalar_one())

    def known(self, keys: Collection[ObjectKey]) -> set[ObjectKey]:
        found: set[ObjectKey] = set()
        with self._transaction() as connection:
            for batch in _batches(keys):
                query = sa.select(SEGMENTS.c.object_key).where(SEGMENTS.c.object_key.in_(batch))
                found |= {ObjectKey(key) for key in connection.execute(query).scalars()}
        return found

    def live(self, *, after: ObjectKey | None = None, limit: int = 1000) -> list[Segment]:
        return self._select(
            _still(SegmentState.LIVE),
            SEGMENTS.c.object_key > (after or ""),
            order=[SEGMENTS.c.object_key.asc()],
            limit=limit,
        )

    def amounts(self, *, until: datetime) -> list[Amount]:
        found: dict[tuple[KeyId, CameraId], Amount] = {}
        for state in (SegmentState.LIVE, SegmentState.CONDEMNED):
            query = (
                sa.select(*KEY, SEGMENTS.c.camera_id, sa.func.count(), sa.func.sum(SEGMENTS.c.size_bytes))
                .where(_is(state), KEY[0] < _us(until))
                .group_by(*KEY, SEGMENTS.c.camera_id)
            )
            with self._transaction() as connection:
                rows = connection.execute(query).all()
            for *key, camera, objects, size_bytes in rows:
                one = Amount(_key_id(key), UUID(camera), objects, int(size_bytes))
                other = found.get((one.key_id, UUID(camera)))
                found[one.key_id, UUID(camera)] = one if other is None else _sum(one, other)
        return [found[one] for one in sorted(found)]

    def totals(self) -> Totals:
        live = SEGMENTS.c.state == _STATE[SegmentState.LIVE]
        query = sa.select(
            sa.func.count(),
            sa.func.sum(SEGMENTS.c.size_bytes),
            sa.func.min(SEGMENTS.c.start_us),
            sa.func.max(SEGMENTS.c.end_us),
        ).where(live)
        condemned = sa.select(sa.func.count()).where(_is(SegmentState.CONDEMNED))
        with self._transaction() as connection:
            count, size_bytes, oldest, newest = connection.execute(query).one()
            return Totals(
                segments=count,
                size_bytes=int(size_bytes or 0),
                condemned=connection.execute(condemned).scalar_one(),
                oldest=None if oldest is None else _moment(oldest),
                newest=None if newest is None else _moment(newest),
            )

    def of_hour(self, start: datetime) -> tuple[int, int]:
        query = sa.select(sa.func.count(), sa.func.sum(SEGMENTS.c.size_bytes))
        with self._transaction() as connection:
            count, size_bytes = connection.execute(
                query.where(_is(SegmentState.LIVE), KEY[0] == _us(start))
            ).one()
        return count, int(size_bytes or 0)

    # --- going out ---

    def key_ids(self, *, until: datetime) -> list[KeyId]:
        return self._key_ids(SegmentState.LIVE, until=until)

    def unfinished(self) -> list[KeyId]:
        return sorted({one for state in _LEAVING for one in self._key_ids(state)})

    def oldest_key(self, camera_id: CameraId) -> KeyId | None:
        with self._transaction() as connection:
            row = connection.execute(_OLDEST_OF, {"camera": str(camera_id)}).one_or_none()
        return None if row is None else _key_id(row)

    def oldest(self) -> datetime | None:
        with self._transaction() as connection:
            first = connection.execute(_first_key(SegmentState.LIVE)).one_or_none()
            if first is None:
                return None
            query = sa.select(sa.func.min(SEGMENTS.c.start_us))
            query = query.where(_is(SegmentState.LIVE), _of(_key_id(first)))
            return _moment(connection.execute(query).scalar_one())

    def leaving(self) -> dict[tuple[KeyId, CameraId, SegmentState], int]:
        of = (SEGMENTS.c.state, *KEY, SEGMENTS.c.camera_id)
        states = {_STATE[state]: state for state in _LEAVING}
        query = sa.select(*of, sa.func.count()).where(SEGMENTS.c.state.in_(states)).group_by(*of)
        with self._transaction() as connection:
            rows = connection.execute(query)
            return {(_key_id(key), UUID(camera), states[state]): n for state, *key, camera, n in rows}

    def condemn(self, key_id: KeyId, camera_id: CameraId | None = None) -> int:
        live = sa.select(SEGMENTS.c.object_key).where(_is(SegmentState.LIVE), _of(key_id, camera_id))
        few = SEGMENTS.c.object_key.in_(live.limit(_MOVED_AT_ONCE))
        moved = 0
        while step := self._advance(few, before=SegmentState.LIVE, after=SegmentState.CONDEMNED):
            moved += step
        return moved

    def cameras(self, key_id: KeyId) -> list[CameraId]:
        found: set[str] = set()
        with self._transaction() as connection:
            for state in _LEAVING:
                query = sa.select(SEGMENTS.c.camera_id).distinct().where(_is(state), _of(key_id))
                found |= set(connection.execute(query).scalars())
        return [UUID(one) for one in sorted(found)]

    def condemned(self, key_id: KeyId, camera_id: CameraId | None = None) -> list[Segment]:
        return self._select(_is(SegmentState.CONDEMNED), _of(key_id, camera_id), order=_BY_CAMERA)

    def mark_absent(self, keys: Collection[ObjectKey]) -> None:
        for batch in _batches(keys):
            named = SEGMENTS.c.object_key.in_(batch)
            self._advance(named, before=SegmentState.CONDEMNED, after=SegmentState.ABSENT)

    def absent(self, key_id: KeyId, camera_id: CameraId | None = None) -> list[Segment]:
        return self._select(_is(SegmentState.ABSENT), _of(key_id, camera_id), order=_BY_CAMERA)

    def forget(self, keys: Collection[ObjectKey]) -> None:
        for batch in _batches(keys):
            gone = sa.delete(SEGMENTS).where(_still(SegmentState.ABSENT), SEGMENTS.c.object_key.in_(batch))
            with self._transaction(write=True) as connection:
                connection.execute(gone)

    def forget_gaps(self, *, until: datetime) -> int:
        with self._transaction(write=True) as connection:
            return connection.execute(sa.delete(GAPS).where(GAPS.c.end_us < _us(until))).rowcount

    # --- SQL ---

    def _select(
        self, *where: sa.ColumnElement[bool], order: Sequence[sa.ColumnElement[Any]], limit: int | None = None
    ) -> list[Segment]:
        query = sa.select(SEGMENTS.c.object_key, SEGMENTS.c.size_bytes).where(*where)
        with self._transaction() as connection:
            rows = connection.execute(query.order_by(*order).limit(limit)).all()
        return [Segment.from_object_key(key, size_bytes=size_bytes) for key, size_bytes in rows]

    def _key_ids(self, state: SegmentState, *, until: datetime | None = None) -> list[KeyId]:
        """Hop from key to key along the index: the cost grows with the hours that have rows, not with the
        rows."""
        end = sys.maxsize if until is None else _us(until)
        with self._transaction() as connection:
            rows = connection.execute(_HOPS[state], {"until": end}).all()
        return sorted(_key_id(row) for row in rows if row[0] < end)

    def _advance(self, which: sa.ColumnElement[bool], *, before: SegmentState, after: SegmentState) -> int:
        change = sa.update(SEGMENTS).where(_still(before), which).values(state=_STATE[after])
        with self._transaction(write=True) as connection:
            return connection.execute(change).rowcount

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[sa.Connection]:
        try:
            engine = self._engine.execution_options(**{_WRITING: write})
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise CatalogueUnavailable(
                f"the catalogue does not answer: {reason}",
                hint="Check `catalogue` in videostore.yaml and that the database runs and has room.",
            ) from error


_BY_CAMERA = [SEGMENTS.c.camera_id.asc(), SEGMENTS.c.start_us.asc(), SEGMENTS.c.object_key.asc()]


def _engine(url: str, credentials: tuple[str, str] | None) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.drivername == "postgresql":
            user, password = credentials or (None, None)
            parsed = parsed.set(drivername="postgresql+psycopg")
            if credentials:
                parsed = parsed.set(username=user, password=password)
            return sa.create_engine(
                parsed, pool_pre_ping=True, connect_args={"connect_timeout": _PATIENCE_SECONDS // 3}
            )
        engine = sa.create_engine(parsed, connect_args={"timeout": _PATIENCE_SECONDS})
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise CatalogueUnavailable(
            f"{url!r} is no catalogue: {error}",
            hint="Write sqlite:///PATH or postgresql://HOST/DATABASE; PostgreSQL needs "
            "`pip install 'videostore[postgresql]'`.",
        ) from error
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # BEGIN is ours: see _begin_sqlite
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    """A writer takes its lock at once: a reader that turns writer would fail instead of wait."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options()[_WRITING] else "BEGIN")


def _migrate(connection: sa.Connection) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    scripts = ScriptDirectory.from_config(config)
    if connection.dialect.name == "postgresql":  # several roles of a site start at once
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(0x76737472)))
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise SiteTooNew(
            f"the catalogue has the tables of a newer version ({current})",
            hint="Install the version of videostore that made it, or a newer one.",
        )
    if current != scripts.get_current_head():
        command.upgrade(config, "head")


def _row(segment: Segment) -> dict[str, Any]:
    return {
        "object_key": segment.object_key,
        "camera_id": str(segment.camera_id),
        "start_us": _us(segment.span.start),
        "end_us": _us(segment.span.end),
        "key_start_us": _us(segment.key_id.start),
        "key_period_s": segment.key_period // SECOND,
        "key_keep_s": segment.keep // SECOND,
        "size_bytes": segment.size_bytes,
        "state": _STATE[SegmentState.LIVE],
    }


def _is(state: SegmentState) -> sa.ColumnElement[bool]:
    return SEGMENTS.c.state == _STATE[state]


def _still(state: SegmentState) -> sa.ColumnElement[bool]:
    """Compare the state of rows that are found by something else. As a bare column SQLite would look all
    rows of the state up, which is everything that is live."""
    return SEGMENTS.c.state + 0 == _STATE[state]


_OLDEST_OF = (
    sa.select(*KEY)
    .where(_still(SegmentState.LIVE), SEGMENTS.c.camera_id == sa.bindparam("camera"))
    .order_by(SEGMENTS.c.start_us)
    .limit(1)
)
"""Made once: it is asked for each camera that is kept for less, at each pass."""


def _of(key_id: KeyId, camera_id: CameraId | None = None) -> sa.ColumnElement[bool]:
    values = (_us(key_id.start), key_id.period // SECOND, key_id.keep // SECOND)
    same = [column == value for column, value in zip(KEY, values, strict=True)]
    return sa.and_(*same, *([SEGMENTS.c.camera_id == str(camera_id)] if camera_id else []))


def _first_key(state: SegmentState) -> sa.Select[Any]:
    return sa.select(*KEY).where(_is(state)).order_by(*KEY).limit(1)


def _hops(state: SegmentState) -> sa.Select[Any]:
    """Return the question for the keys of ``state``, up to the first that begins at ``:until`` or later.

    Each row of it is the first of its key, found from the one before; one statement, for it is asked at each
    pass. SQLite follows an index by equal columns and one greater one; asked for a greater *row*, it reads
    every row of the key it comes from.
    """
    here, onward = SEGMENTS.alias("here"), SEGMENTS.alias("onward")
    begun = sa.select(SEGMENTS.c.object_key).where(_is(state)).order_by(*KEY).limit(1).scalar_subquery()
    hops = sa.select(begun.label("object_key")).cte("hops", recursive=True)
    key, others = ([table.c[column.name] for column in KEY] for table in (here, onward))
    following = (
        sa.select(onward.c.object_key).where(onward.c.state == _STATE[state]).order_by(*others).limit(1)
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


_HOPS = {state: _hops(state) for state in SegmentState}


def _sum(one: Amount, other: Amount) -> Amount:
    return replace(one, objects=one.objects + other.objects, size_bytes=one.size_bytes + other.size_bytes)


def _key_id(row: Sequence[int]) -> KeyId:
    start, period, keep = row
    return KeyId(_moment(start), period * SECOND, keep * SECOND)


def _overlaps(span: Span) -> sa.ColumnElement[bool]:
    return sa.and_(
        SEGMENTS.c.start_us > _us(span.start - LONGEST_SEGMENT),
        SEGMENTS.c.start_us < _us(span.end),
        SEGMENTS.c.end_us > _us(span.start),
    )


def _joined(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[CameraId, Span]]:
    """Join rows of camera, start and end that touch. Works on whole microseconds: there are many rows."""
    jitter = JITTER // MICROSECOND
    camera, start, end = "", 0, 0
    for one, begins, ends in rows:
        if one == camera and begins - end <= jitter:
            end = max(end, ends)
            continue
        if camera:
            yield UUID(camera), Span(_moment(start), _moment(end))
        camera, start, end = one, begins, ends
    if camera:
        yield UUID(camera), Span(_moment(start), _moment(end))


def _us(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND


def _moment(us: int) -> datetime:
    return EPOCH + int(us) * MICROSECOND


def _gap(row: Sequence[Any]) -> Gap:
    camera, start, end, reason = row
    return Gap(Span(_moment(start), _moment(end)), UUID(camera), GapReason(reason))


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch
