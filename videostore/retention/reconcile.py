"""The store against the catalogue: what either has and the other does not know.

Two ways, both driven by what exists. The *search* comes whenever a key ended: it lists the days that can hold
something due, each camera up to the first object that is not, so its cost follows what expires. The *round*
comes each day and walks over all that is stored, in small steps between other work: it finds what the search
does not look for, such as objects outside any day, and rows whose object is missing. It knows how far it has
come, also after a restart: a store that breaks off every listing, or a host that starts anew each night,
makes it slower, not endless.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from uuid import UUID

from videostore import telemetry
from videostore.domain.errors import StoreError
from videostore.domain.presence import PRESENCE, presence_key_id
from videostore.domain.retention import Kind
from videostore.domain.segment import SEGMENTS, ObjectKey, Segment, read_day_prefix
from videostore.durable import write_file
from videostore.ports import Catalogue, SegmentStore, StoredObject
from videostore.retention.journal import Journal
from videostore.retention.report import Pass, log

_PAGE = 1000
_PAGES_A_PASS = 50
_SEARCH_EACH = timedelta(hours=1)
_ROUND_EACH = timedelta(days=1)


class Reconciler:
    """Adopts, deletes and reports. What a pass has no time for, the next one goes on with. ``bookmark`` is a
    file that keeps how far the round has come."""

    def __init__(
        self, *, store: SegmentStore, catalogue: Catalogue, journal: Journal, bookmark: Path | None = None
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._journal = journal
        self._this: Pass
        self._search = _Errand(_SEARCH_EACH)
        self._round = _Errand(_ROUND_EACH)
        self._bookmark = bookmark
        self._progress = _Progress.kept_in(bookmark) if bookmark else _Progress()
        self._kept = self._progress.to_json()

    def search(self, this: Pass) -> None:
        """Look for what is due and unknown, if anything became due since, or an hour has passed."""
        self._this = this
        ended = bool(this.report.keys_destroyed or this.report.segments_condemned)
        self._search.go(this, self._all_days, anew=ended)

    def round(self, this: Pass) -> None:
        """Take some steps of the round over everything."""
        self._this = this
        try:
            self._round.go(this, self._everything, steps=_PAGES_A_PASS)
        finally:
            if self._bookmark and self._kept != (come := self._progress.to_json()):
                write_file(self._bookmark, come.encode())
                self._kept = come

    # --- the search ---

    def _all_days(self) -> Iterator[None]:
        for prefix in self._store.prefixes(""):
            if prefix == SEGMENTS:
                for day in self._store.prefixes(SEGMENTS):
                    yield from self._day(day)
            elif prefix != PRESENCE:  # a holding of its own
                yield from self._strangers(prefix)

    def _day(self, day: str) -> Iterator[None]:
        try:
            start, keep = read_day_prefix(day)
        except ValueError:
            yield from self._strangers(day)
            return
        policy, now = self._this.video, self._this.now + self._this.video.lead
        earliest = start - policy.key_period  # a key may begin on the day before
        longest = policy.keep_of(None, earliest)
        every = earliest + min(keep or longest, longest) <= now
        of_less = {one for one in policy.of_less if earliest + policy.keep_of(one, earliest) <= now}
        if not every and not of_less:
            return
        for camera in self._store.prefixes(day):
            if every or _camera(camera) in of_less:
                self._adopt_due(self._store.remains(camera))
                yield

    def _strangers(self, prefix: str) -> Iterator[None]:
        for found in self._store.remains(prefix):
            self._judge_by_receipt(found, Kind.VIDEO)
        yield

    def _adopt_due(self, objects: Iterable[StoredObject]) -> None:
        """Take what is due into the catalogue. Under a camera's day keys sort by time: the first that is not
        due ends it."""
        batch: list[Segment] = []
        try:
            for found in objects:
                try:
                    segment = Segment.from_object_key(found.key, size_bytes=found.size_bytes)
                except ValueError:
                    self._judge_by_receipt(found, Kind.VIDEO)
                    continue
                if not self._this.due(segment.key_id, segment.camera_id):
                    break
                batch.append(segment)
                if len(batch) == _PAGE:
                    full, batch = batch, []
                    self._adopt(full)
        finally:  # also what came before the listing broke off
            self._adopt(batch)

    def _adopt(self, segments: Sequence[Segment]) -> None:
        """Known or not: from here on the catalogue knows them, and what is due is condemned with the rest, by
        its name alone, whatever somebody wrote into its row."""
        if not segments:
            return
        if adopted := self._catalogue.adopt(segments):
            log.warning("segments.adopted", segments=adopted)
            self._this.report.segments_adopted += adopted
        due = {one.object_key for one in segments if self._this.due(one.key_id, one.camera_id)}
        self._this.report.segments_condemned += self._catalogue.condemn_these(due)

    def _judge_by_receipt(self, found: StoredObject, kind: Kind, *, ahead: timedelta = timedelta(0)) -> None:
        """Delete an object whose key says nothing, if it would be due ``ahead`` of now had it been captured
        when it was received."""
        policy = self._this.policies[kind]
        if self._this.now + ahead - found.stored_at < policy.keep_of(None, found.stored_at) - policy.lead:
            return
        refused = self._store.delete([found.key])
        if refused or self._store.size(found.key) is not None:
            why = f": {refused[found.key]}" if found.key in refused else ""
            self._this.report.errors.append(f"delete: {found.key} is still there{why}")
            return
        self._this.report.strangers_deleted += 1
        log.warning("stranger.deleted", object_key=found.key, stored_at=found.stored_at.isoformat())

    # --- the round ---

    def _everything(self) -> Iterator[None]:
        """Go over all objects, then all rows, from where the round has come to."""
        if not self._progress.all_objects:
            yield from self._all_objects()
            self._progress.all_objects = True
            yield
        yield from self._all_rows()
        self._progress = _Progress()

    def _all_objects(self) -> Iterator[None]:
        page: list[StoredObject] = []
        try:
            for key, versions in groupby(self._store.remains(after=self._progress.after_object), key=_key):
                page.append(_whole(key, versions))
                if len(page) == _PAGE:
                    full, page = page, []
                    self._look_at(full)
                    yield
        finally:  # also what came before the listing broke off
            self._look_at(page)

    def _look_at(self, page: Sequence[StoredObject]) -> None:
        """Adopt what is unknown, delete what is nothing of ours."""
        segments: dict[ObjectKey, Segment] = {}
        for found in page:
            kind = Kind.ENTRY_EXIT if found.key.startswith(PRESENCE) else Kind.VIDEO
            try:
                if kind is Kind.ENTRY_EXIT:
                    presence_key_id(found.key)
                else:
                    segment = Segment.from_object_key(found.key, size_bytes=found.size_bytes)
                    segments[found.key] = segment
            except ValueError:
                keep = self._this.policies[kind].keep
                self._judge_by_receipt(found, kind, ahead=min(_ROUND_EACH, keep / 30))
        unknown = segments.keys() - self._catalogue.known(segments.keys())
        # The listing may be older than this pass: what was deleted since is no stranger.
        self._adopt([segments[key] for key in sorted(unknown) if self._store.size(key) is not None])
        if page:
            self._progress.after_object = page[-1].key

    def _all_rows(self) -> Iterator[None]:
        progress = self._progress
        while rows := self._catalogue.live(after=progress.after_row, limit=_PAGE):
            for prefix, group in groupby(rows, key=_hour_prefix):
                listed = self._listed(prefix)
                for row in group:
                    if row.object_key not in listed and self._store.size(row.object_key) is None:
                        progress.lost[str(row.camera_id), str(row.key_id)] += 1
                    progress.after_row = row.object_key
            yield
        for (camera_id, key_id), segments in sorted(progress.lost.items()):
            more = self._journal.record_loss(camera_id, key_id, segments)
            telemetry.LOST_SEGMENTS.inc(more)
            self._this.report.segments_lost += more
            if more:
                log.error("footage.missing", camera_id=camera_id, key_id=key_id, segments=segments)

    def _listed(self, prefix: str) -> set[ObjectKey]:
        """Return the keys under ``prefix``; where the listing breaks off, those until then: it only spares
        asking for each by name."""
        listed: set[ObjectKey] = set()
        with suppress(StoreError):
            listed.update(map(_key, self._store.remains(prefix)))
        return listed


@dataclass(slots=True)
class _Progress:
    """How far the round has come: behind which object, or row once it has seen ``all_objects``, and how many
    segments it found missing, by camera and key."""

    after_object: str = ""
    all_objects: bool = False
    after_row: ObjectKey | None = None
    lost: Counter[tuple[str, str]] = field(default_factory=Counter)

    def to_json(self) -> str:
        lost = [[*where, segments] for where, segments in sorted(self.lost.items())]
        return json.dumps([self.after_object, self.all_objects, self.after_row, lost])

    @classmethod
    def kept_in(cls, bookmark: Path) -> _Progress:
        """Return what ``to_json`` wrote; without it the round begins at the beginning."""
        try:
            after_object, all_objects, after_row, lost = json.loads(bookmark.read_bytes())
            missing = Counter({(str(camera), str(key)): int(count) for camera, key, count in lost})
            row = None if after_row is None else ObjectKey(str(after_row))
            return cls(str(after_object), bool(all_objects), row, missing)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, TypeError) as error:
            log.warning("journal.bookmark-unreadable", path=str(bookmark), error=str(error))
            return cls()


class _Errand:
    """Something that is done step by step, begun after ``each``."""

    def __init__(self, each: timedelta) -> None:
        self._each = each
        self._steps: Iterator[None] | None = None
        self._done_at: datetime | None = None

    def go(
        self, this: Pass, begin: Callable[[], Iterator[None]], *, steps: int = sys.maxsize, anew: bool = False
    ) -> None:
        """Take up to ``steps`` steps, as long as the pass has time."""
        each = min(self._each, this.video.keep / 30)
        if anew or (self._steps is None and (self._done_at is None or abs(this.now - self._done_at) >= each)):
            self._steps = begin()
        if self._steps is None:
            return
        try:
            for _ in range(steps):
                if not this.has_time():
                    return
                next(self._steps)
        except StopIteration:
            self._steps, self._done_at = None, this.now
        except BaseException:
            self._steps = None  # one that raised is spent: the next pass begins it again
            raise


def _hour_prefix(segment: Segment) -> str:
    """Return what the object keys of a camera and an hour begin with."""
    return segment.object_key.removesuffix(segment.name) + segment.name[: len("20261124T02")]


def _key(found: StoredObject) -> ObjectKey:
    return found.key


def _whole(key: ObjectKey, versions: Iterable[StoredObject]) -> StoredObject:
    """Return all versions of an object as one, as large as the largest and as old as the oldest of them."""
    size_bytes, stored_at = 0, datetime.max.replace(tzinfo=UTC)
    for one in versions:
        size_bytes, stored_at = max(size_bytes, one.size_bytes), min(stored_at, one.stored_at)
    return StoredObject(key, size_bytes, stored_at)


def _camera(prefix: str) -> UUID | None:
    try:
        return UUID(prefix.rstrip("/").rpartition("/")[2])
    except ValueError:
        return None
