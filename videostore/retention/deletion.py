"""The way out of what is condemned: deleted, absent, certified, forgotten. A camera of an hour at a time.

The earliest deadline goes first, so an overload is made up in that order. Every step leaves a row that the
next pass finds: condemned until the store confirmed that the object is absent, absent until the ledger has
the certificate. No more than that is believed of a row: what it names goes if it is due by its own name, and
is certified if the store was asked in the same pass.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from os.path import commonprefix

from videostore import telemetry
from videostore.domain.camera import CameraId
from videostore.domain.errors import StoreError
from videostore.domain.retention import Certificate, Kind, RetentionPolicy, hash_of_segments
from videostore.domain.segment import KeyId, Segment, Span
from videostore.ports import Catalogue, Clock, SegmentStore
from videostore.retention.journal import Journal
from videostore.retention.pace import Pace
from videostore.retention.report import Pass, log

ABSENCE = "a listing of the store names neither the objects nor a version of them"
_AT_ONCE = 1000
_PATIENCE = 3
"""So many cameras in a row that fail, and the store is taken to be down for this pass."""


class Deletion:
    """Deletes and certifies. What failed in one pass is tried after all else in the next, so that it holds up
    nobody."""

    def __init__(
        self, *, store: SegmentStore, catalogue: Catalogue, journal: Journal, clock: Clock, pace: Pace
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._journal = journal
        self._clock = clock
        self._pace = pace
        self._failed: set[tuple[KeyId, CameraId]] = set()

    def run(self, this: Pass) -> None:
        """Work off what is condemned while the pass has time."""
        failed, self._failed = self._failed, set()
        for later in (False, True):
            in_a_row = 0
            for key_id in sorted(self._catalogue.unfinished(), key=this.video.deadline):
                for camera_id in self._catalogue.cameras(key_id):
                    if ((key_id, camera_id) in failed) is not later:
                        continue
                    if in_a_row == _PATIENCE or not this.has_time():
                        self._failed |= failed if not later else set()
                        return
                    if self._finish(key_id, camera_id, this):
                        in_a_row = 0
                    else:
                        self._failed.add((key_id, camera_id))
                        in_a_row += 1

    def _finish(self, key_id: KeyId, camera_id: CameraId, this: Pass) -> bool:
        """Take one camera of one hour as far as it goes, and say whether that was to the end."""
        condemned = set(self._catalogue.condemned(key_id, camera_id))
        leaving = condemned.union(self._catalogue.absent(key_id, camera_id))
        going = [one for one in leaving if (one.key_id, one.camera_id) == (key_id, camera_id)]
        self._put_right(leaving.difference(going), this)
        going.sort(key=lambda one: (one.span, one.sequence))
        if going and not this.due(key_id, camera_id):
            if this.reading.doubt is None:
                this.report.errors.append(f"delete: {camera_id} in {key_id} is condemned, and not due yet")
            return True
        gone: list[Segment] = []
        for at in range(0, len(going), _AT_ONCE):
            batch = going[at : at + _AT_ONCE]
            try:
                confirmed = self._delete(batch, this)
            except StoreError as error:
                this.report.errors.append(f"delete: {batch[0].object_key} and {len(batch) - 1} more: {error}")
                return False
            self._catalogue.mark_absent([segment.object_key for segment in confirmed])
            self._count(condemned.intersection(confirmed), this.video, this)
            gone += confirmed
        if gone and len(gone) == len(going):
            self._certify(gone, this)
        return len(gone) == len(going)

    def _put_right(self, altered: Collection[Segment], this: Pass) -> None:
        """Have rows that say other than their names go by these, also where no listing shows their object."""
        if altered:
            this.report.segments_adopted += self._catalogue.adopt(altered)
            due = [one.object_key for one in altered if this.due(one.key_id, one.camera_id)]
            this.report.segments_condemned += self._catalogue.condemn_these(due)

    def _delete(self, batch: Sequence[Segment], this: Pass) -> list[Segment]:
        """Delete, and return what the store confirms to be absent: it is in no listing of what remains."""
        self._pace.take(len(batch))
        keys = [segment.object_key for segment in batch]
        refused = self._store.delete(keys)
        common = commonprefix(keys)  # noqa: RUF071 - a prefix of keys ends anywhere
        there = {found.key for found in self._store.remains(common)}
        for key in keys:
            if key in refused or key in there:
                this.report.errors.append(f"delete: {key} is still there{_why(refused.get(key))}")
        return [one for one in batch if one.object_key not in there and one.object_key not in refused]

    def _count(self, gone: Collection[Segment], policy: RetentionPolicy, this: Pass) -> None:
        now = self._clock.read().latest
        for segment in gone:
            deadline = policy.deadline(segment.key_id, camera_id=segment.camera_id)
            telemetry.DELETION_LATENESS.observe(max(0.0, (now - deadline).total_seconds()))
        telemetry.SEGMENTS_DELETED.inc(len(gone))
        this.report.segments_deleted += len(gone)
        this.report.bytes_deleted += sum(segment.size_bytes for segment in gone)

    def _certify(self, segments: Sequence[Segment], this: Pass) -> None:
        first = segments[0]
        key = this.keys[Kind.VIDEO].get(first.key_id)
        certificate = Certificate(
            camera_id=first.camera_id,
            key_id=first.key_id,
            recipient=(key.recipient or None) if key else None,
            key_destroyed_at=key.destroyed_at if key else None,
            span=Span(first.span.start, max(segment.span.end for segment in segments)),
            segments=len(segments),
            size_bytes=sum(segment.size_bytes for segment in segments),
            segments_sha256=hash_of_segments(segments),
            confirmed_at=self._clock.now(),
            absence=ABSENCE,
            deadline=this.video.deadline(first.key_id, camera_id=first.camera_id),
            policy=this.video.revision,
        )
        if self._journal.certify(certificate):
            this.report.certificates.append(certificate.id)
            telemetry.CERTIFICATES.inc()
        self._catalogue.forget([segment.object_key for segment in segments])
        log.info(
            "footage.certified",
            camera_id=str(first.camera_id),
            key_id=str(first.key_id),
            segments=len(segments),
            certificate_id=certificate.id,
        )


def _why(reason: str | None) -> str:
    return f": {reason}" if reason else ""
