"""A catalogue in memory: the port's contract in its plainest words, and a model for the real ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime

from videostore.domain.camera import CameraId
from videostore.domain.coverage import JITTER
from videostore.domain.errors import CatalogueUnavailable
from videostore.domain.retention import SegmentState
from videostore.domain.segment import Gap, KeyId, ObjectKey, Segment, Span, joined
from videostore.ports import Amount, Totals

LIVE, CONDEMNED, ABSENT = SegmentState


class MemoryCatalogue:
    """Port Catalogue. While ``down`` nothing is available."""

    def __init__(self) -> None:
        self.rows: dict[ObjectKey, tuple[Segment, SegmentState]] = {}
        self.held_gaps: set[Gap] = set()
        self.down = False

    def add(self, segment: Segment) -> None:
        self.adopt([segment])

    def adopt(self, segments: Iterable[Segment]) -> int:
        self._up()
        before = len(self.rows)
        for segment in segments:
            self.rows.setdefault(segment.object_key, (segment, LIVE))
        return len(self.rows) - before

    def add_gap(self, gap: Gap) -> None:
        self._up()
        same = [one for one in self.held_gaps if (one.camera_id, one.reason) == (gap.camera_id, gap.reason)]
        kept, replaced = joined(gap, same)
        self.held_gaps -= set(replaced)
        if kept is not None:
            self.held_gaps.add(kept)

    def segments(self, cameras: Collection[CameraId], span: Span) -> list[Segment]:
        return [one for one in self._in(LIVE) if one.camera_id in cameras and one.span.overlaps(span)]

    def footage(self, cameras: Collection[CameraId], span: Span) -> list[tuple[CameraId, Span]]:
        found: list[tuple[CameraId, Span]] = []
        for one in self.segments(cameras, span):
            if found and found[-1][0] == one.camera_id and one.span.start - found[-1][1].end <= JITTER:
                before = found.pop()[1]
                found.append((one.camera_id, Span(before.start, max(before.end, one.span.end))))
            else:
                found.append((one.camera_id, one.span))
        return found

    def gaps(self, cameras: Collection[CameraId], span: Span) -> list[Gap]:
        self._up()
        found = [gap for gap in self.held_gaps if gap.camera_id in cameras and gap.span.overlaps(span)]
        return sorted(found, key=lambda gap: (str(gap.camera_id), gap.span, gap.reason))

    def last_end(self, camera_id: CameraId) -> datetime | None:
        self._up()
        ends = [one.span.end for one, _ in self.rows.values() if one.camera_id == camera_id]
        return max(ends, default=None)

    def known(self, keys: Collection[ObjectKey]) -> set[ObjectKey]:
        self._up()
        return set(keys) & self.rows.keys()

    def altered(self) -> Iterator[str]:
        return iter(())

    def key_ids(self, *, until: datetime) -> list[KeyId]:
        return sorted({one.key_id for one in self._in(LIVE) if one.key_id.start < until})

    def oldest_key(self, camera_id: CameraId) -> KeyId | None:
        return next((one.key_id for one in self._in(LIVE) if one.camera_id == camera_id), None)

    def oldest(self) -> datetime | None:
        return min((one.span.start for one in self._in(LIVE)), default=None)

    def leaving(self) -> dict[tuple[KeyId, CameraId, SegmentState], int]:
        leaving = [(state, one) for state in (CONDEMNED, ABSENT) for one in self._in(state)]
        return dict(Counter((one.key_id, one.camera_id, state) for state, one in leaving))

    def condemn(self, key_id: KeyId, camera_id: CameraId | None = None) -> int:
        return self._advance(_of(self._in(LIVE), key_id, camera_id), CONDEMNED)

    def condemn_these(self, keys: Collection[ObjectKey]) -> int:
        return self._advance([one for one in self._in(LIVE) if one.object_key in keys], CONDEMNED)

    def revive(self, key_id: KeyId, camera_id: CameraId) -> int:
        return self._advance(_of(self._in(CONDEMNED) + self._in(ABSENT), key_id, camera_id), LIVE)

    def cameras(self, key_id: KeyId) -> list[CameraId]:
        leaving = self._in(CONDEMNED) + self._in(ABSENT)
        return sorted({one.camera_id for one in leaving if one.key_id == key_id})

    def condemned(self, key_id: KeyId, camera_id: CameraId | None = None) -> list[Segment]:
        return _of(self._in(CONDEMNED), key_id, camera_id)

    def mark_absent(self, keys: Collection[ObjectKey]) -> None:
        self._advance([one for one in self._in(CONDEMNED) if one.object_key in keys], ABSENT)

    def absent(self, key_id: KeyId, camera_id: CameraId | None = None) -> list[Segment]:
        return _of(self._in(ABSENT), key_id, camera_id)

    def unfinished(self) -> list[KeyId]:
        return sorted({one.key_id for state in (CONDEMNED, ABSENT) for one in self._in(state)})

    def forget(self, keys: Collection[ObjectKey]) -> None:
        for one in [one for one in self._in(ABSENT) if one.object_key in keys]:
            del self.rows[one.object_key]

    def forget_gaps(self, *, until: datetime) -> int:
        self._up()
        gone = {gap for gap in self.held_gaps if gap.span.end < until}
        self.held_gaps -= gone
        return len(gone)

    def live(self, *, after: ObjectKey | None = None, limit: int = 1000) -> list[Segment]:
        ordered = sorted(self._in(LIVE), key=lambda one: one.object_key)
        return [one for one in ordered if after is None or one.object_key > after][:limit]

    def amounts(self, *, until: datetime) -> list[Amount]:
        there = [one for one in self._in(LIVE) + self._in(CONDEMNED) if one.key_id.start < until]
        return [
            Amount(key_id, camera, len(sizes), sum(sizes))
            for key_id, camera in sorted({(one.key_id, one.camera_id) for one in there})
            if (sizes := [one.size_bytes for one in _of(there, key_id, camera)])
        ]

    def of_hour(self, start: datetime) -> tuple[int, int]:
        found = [one.size_bytes for one in self._in(LIVE) if one.key_id.start == start]
        return len(found), sum(found)

    def totals(self) -> Totals:
        live = self._in(LIVE)
        return Totals(
            segments=len(live),
            size_bytes=sum(one.size_bytes for one in live),
            condemned=len(self._in(CONDEMNED)),
            oldest=min((one.span.start for one in live), default=None),
            newest=max((one.span.end for one in live), default=None),
        )

    def _in(self, state: SegmentState) -> list[Segment]:
        self._up()
        found = [one for one, its in self.rows.values() if its is state]
        return sorted(found, key=lambda one: (str(one.camera_id), one.span.start, one.object_key))

    def _advance(self, segments: list[Segment], state: SegmentState) -> int:
        for one in segments:
            self.rows[one.object_key] = one, state
        return len(segments)

    def _up(self) -> None:
        if self.down:
            raise CatalogueUnavailable("the catalogue is down")


def _of(segments: list[Segment], key_id: KeyId, camera_id: CameraId | None) -> list[Segment]:
    return [one for one in segments if one.key_id == key_id and camera_id in {None, one.camera_id}]
