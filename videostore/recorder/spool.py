"""Sealed footage that waits for upload: on disk and synced before anything else happens.

::

    open/CAMERA/NAME     one small group of the segment being recorded, already sealed
    open/CAMERA/NAME.…   the segment being recorded (``growing``)
    ready/CAMERA/NAME    a whole segment
    lost/CAMERA/NAME     a segment given up for want of room, empty: its name is a gap
    …                    gaps/, runs/, cameras/: what is on record besides footage

NAME is the last part of the object key, so a file says everything about itself. A group is a playable
segment: whatever a crash leaves in ``open`` is promoted to ``ready`` at the next start. Only sealed
bytes are ever written here.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import RLock
from typing import TypeAlias

from videostore import telemetry
from videostore.domain.camera import CameraId
from videostore.domain.chain import Item
from videostore.domain.errors import DiskFull
from videostore.domain.ledger import Json
from videostore.domain.segment import (
    LONGEST_SEGMENT,
    SITE_KEEP,
    Gap,
    GapReason,
    KeyId,
    ObjectKey,
    Segment,
    Sha256Hex,
    Span,
)
from videostore.durable import disk_errors, make_directory, remove_file, sync_directory, write_file
from videostore.recorder.growing import GROWS, GrowingFile, last_end
from videostore.recorder.places import OPEN, PLACES, Places
from videostore.recorder.record import Progress, Record, Sign

log = telemetry.logger("recorder")

_Entry: TypeAlias = tuple[datetime, ObjectKey, Segment]
_Print: TypeAlias = tuple[int, int, int]
_REMEMBERED = 1000
"""Segments whose files are known to be as they were written: enough for those on their way to the store."""


class Spool:
    """One site's spool; a Holding for retention, which may run in another process."""

    name = "spool"

    def __init__(
        self,
        root: Path,
        *,
        limit_bytes: int | None = None,
        sign: Sign = lambda _: "",
        mine: Callable[[CameraId], bool] | None = None,
        kept: Callable[[CameraId, datetime], timedelta] = lambda *_: SITE_KEEP,
    ) -> None:
        """Beyond ``limit_bytes``, or on a full disk, the oldest whole segments are given up for new ones.
        ``sign`` returns the recorder's signature under a run; who records nothing needs none. Where several
        processes share the spool, ``mine`` says whose cameras this one sees: nobody else touches them.
        ``kept`` says how long footage of a camera and a key's beginning is kept, if for less than all."""
        self._root = root
        self._kept = kept
        self._limit = limit_bytes
        self._places = Places(root, mine=mine)
        self._record = Record(root, sign=sign, sees=self._places.sees)
        self._size: int | None = None  # as this process knows it; None until it was counted
        self._whole: list[_Entry] | None = None  # what is in ready, oldest first; None until it was listed
        self._written: dict[ObjectKey, _Print] = {}  # of what this process put there last
        self._lock = RLock()

    # --- writing ---

    def keep_group(self, segment: Segment, sealed: bytes) -> None:
        """Keep one sealed group of the segment being recorded. Raises DiskFull."""
        self._write("open", segment, sealed)

    def commit(
        self,
        segment: Segment,
        sealed: bytes,
        *,
        groups: Sequence[Segment],
        clock: timedelta | None = None,
    ) -> None:
        """Keep a whole segment, then drop the groups that it is made of. Raises DiskFull.

        ``clock`` is how far the camera's clock lay behind the host's at its beginning, None if unknown.
        """
        with self._lock:
            self._waiting()  # listed before there is what it would find
        self._write("ready", segment, sealed)
        self._places.drop([self._places.path("open", group) for group in groups])
        self._count(-sum(group.size_bytes for group in groups))
        self._note_whole(segment, clock)

    def grow(self, begun: Segment, *, recipient: str) -> GrowingFile:
        """Begin a segment that is sealed as it grows. Raises DiskError, KeyUnavailable."""
        directory = self._places.path("open", begun).parent
        return GrowingFile(directory, begun, recipient=recipient, room=self._with_room)

    def end(
        self,
        growing: GrowingFile,
        span: Span,
        *,
        groups: Sequence[Segment],
        clock: timedelta | None = None,
    ) -> Segment:
        """Keep a segment that has grown to ``span``, then drop what was to be kept of it after a crash."""
        segment = growing.finish(span)
        with self._lock:
            self._waiting()
        self._places.move(growing.path, segment)
        self._places.drop([growing.ends, *(self._places.path("open", group) for group in groups)])
        self._count(-growing.noted_bytes - sum(group.size_bytes for group in groups))
        self._note_whole(segment, clock)
        return segment

    def _note_whole(self, segment: Segment, clock: timedelta | None) -> None:
        with self._lock:
            self._remember(segment)
            waiting, entry = self._waiting(), _entry(segment)
            place = bisect_left(waiting, entry)
            if waiting[place : place + 1] != [entry]:
                waiting.insert(place, entry)
        self._record.reaches(segment.camera_id, segment.span.end, segment, clock)

    def promote(self, camera_id: CameraId) -> list[Segment]:
        """Make segments of what was kept of one that can grow no more. Raises DiskError."""
        with self._lock:
            whole = [one for _, one in self._places.files("ready") if one.camera_id == camera_id]
            found = self._places.promote(camera_id, whole)
            for segment in found:
                self._record.reaches(camera_id, segment.span.end, segment)
            self._size = self._whole = None  # to be listed anew
        return found

    def recover(self) -> int:
        """Promote the groups that a crash left behind. Returns how many. Call before recording begins."""
        promoted = 0
        with self._lock:
            self._places.remove_half_written()
            whole: dict[CameraId, list[Segment]] = defaultdict(list)
            for _, segment in self._places.files("ready"):
                whole[segment.camera_id].append(segment)
            for camera_id in self._places.open_cameras():
                found = self._places.promote(camera_id, whole[camera_id])
                promoted += len(found)
                whole[camera_id] += found
            for camera_id, segments in whole.items():
                chained = self.progress(camera_id).chained
                for segment in sorted(segments, key=Item.of):
                    if chained is None or Item.of(segment) > chained:
                        self._record.reaches(camera_id, segment.span.end, segment)
            everything = [segment for segments in whole.values() for segment in segments]
            self._whole = sorted(map(_entry, everything))
            self._size = sum(one.size_bytes for one in everything)
        return promoted

    # --- the record ---

    def progress(self, camera_id: CameraId) -> Progress:
        """Return how far the record of a camera reaches; a damaged note counts as none."""
        return self._record.progress(camera_id)

    def begin(self, camera_id: CameraId, moment: datetime) -> None:
        """Note that the record of a camera begins at ``moment``."""
        with self._lock:
            self._record.reaches(camera_id, moment)

    def add_gap(self, gap: Gap) -> None:
        """Keep a gap until the catalogue has it. The record of the camera then reaches to its end."""
        self._record.add_gap(gap)
        with self._lock:
            self._record.reaches(gap.camera_id, gap.span.end)

    def gaps(self) -> Iterator[tuple[Path, Gap]]:
        """Yield the gaps that wait, and the files they are in."""
        for path, lost in self._places.files("lost"):
            yield path, Gap(lost.span, lost.camera_id, GapReason.SPOOL_OVERRUN)
        yield from self._record.gaps()

    def runs(self) -> Iterator[tuple[Path, Mapping[str, Json]]]:
        """Yield the runs that the ledger does not have, signed, and the files they are in."""
        return self._record.runs()

    def open_runs(self) -> Iterator[Mapping[str, Json]]:
        """Yield the signed run of each camera that still goes on."""
        return self._record.open_runs()

    # --- uploading ---

    def pending(self) -> list[Segment]:
        """Return the whole segments that wait, oldest first."""
        with self._lock:
            return [segment for _, _, segment in self._waiting()]

    def read(self, segment: Segment) -> bytes | None:
        """Return the sealed bytes, or None if retention took them."""
        path = self._places.path("ready", segment)
        with disk_errors(path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def as_sealed(self, segment: Segment) -> Path | None:
        """Return the file of a whole segment if it is still as this process wrote it and synced it; None if
        that is not known: then read it and look at its hash."""
        path = self._places.path("ready", segment)
        with self._lock:
            written = self._written.get(segment.object_key)
        with suppress(OSError):
            if written is not None and _print(path) == written:
                return path
        return None

    def _remember(self, segment: Segment) -> None:
        while len(self._written) >= _REMEMBERED:
            del self._written[next(iter(self._written))]
        with suppress(OSError):
            self._written[segment.object_key] = _print(self._places.path("ready", segment))

    def drop(self, segment: Segment) -> None:
        """Forget a segment that store and catalogue have confirmed, or that retention took."""
        remove_file(self._places.path("ready", segment))
        self._count(-segment.size_bytes)
        with self._lock:
            self._written.pop(segment.object_key, None)
            waiting, entry = self._waiting(), _entry(segment)
            place = bisect_left(waiting, entry)
            if waiting[place : place + 1] == [entry]:
                del waiting[place]

    def given_up(self) -> list[tuple[Path, Segment]]:
        """Return the segments that were lost for want of room, and the files that say so: gaps too."""
        return self._places.files("lost")

    def held(self, camera_id: CameraId) -> list[Segment]:
        """Return what of a camera is here: whole segments, and groups of the one being recorded."""
        growing = (last_end(path) for path, _ in self._places.files("open", GROWS))
        found = [*(one for _, one in self._places.all(("ready", ""), ("open", ""))), *growing]
        return [one for one in found if one is not None and one.camera_id == camera_id]

    def whole(self, camera_id: CameraId, span: Span) -> list[Segment]:
        """Return the whole segments of a camera that are here and overlap ``span``, as this process knows."""
        with self._lock:
            waiting = self._waiting()
            first = bisect_left(waiting, span.start - LONGEST_SEGMENT, key=_start)
            last = bisect_left(waiting, span.end, key=_start)
            found = (segment for _, _, segment in waiting[first:last] if segment.camera_id == camera_id)
            return [segment for segment in found if segment.span.end > span.start]

    def size_bytes(self) -> int:
        """Return the sealed bytes in the spool, groups included, as this process knows it."""
        with self._lock:
            if self._size is None:
                self._size = sum(one.size_bytes for _, one in self._places.all(("ready", ""), *OPEN))
            return self._size

    # --- Holding ---

    def key_ids(self) -> Sequence[KeyId]:
        return sorted({self._goes_with(segment) for _, segment in self._places.all(*PLACES)})

    def remove(self, key_id: KeyId) -> int:
        due = [path for path, one in self._places.all(*PLACES) if self._goes_with(one) == key_id]
        removed = sum(remove_file(path) for path in due)
        with self._lock:
            self._size = self._whole = None  # to be listed anew
        return removed

    def _goes_with(self, segment: Segment) -> KeyId:
        """Return the key that goes when this segment must: its own, or the one its camera would get now."""
        key_id = segment.key_id
        keep = self._kept(segment.camera_id, key_id.start)
        return replace(key_id, keep=min(keep, key_id.keep or keep)) if keep else key_id

    # --- room ---

    def _write(self, place: str, segment: Segment, sealed: bytes) -> None:
        path = self._places.path(place, segment)
        self._with_room(len(sealed), lambda: write_file(path, sealed))

    def _with_room(self, size_bytes: int, write: Callable[[], None]) -> None:
        """Other cameras do not wait while the disk syncs: only counting is done one at a time."""
        self._take_room(size_bytes)
        try:
            while True:
                try:
                    with disk_errors(self._root):
                        write()
                except DiskFull:
                    with self._lock:
                        freed = self._give_up_oldest()
                        if not freed:
                            raise
                        self._count(-freed)
                else:
                    return
        except BaseException:
            self._count(-size_bytes)
            raise

    def _take_room(self, wanted: int) -> None:
        with self._lock:
            size = self.size_bytes()
            while self._limit is not None and size + wanted > self._limit:
                freed = self._give_up_oldest()
                if not freed:
                    raise DiskFull(
                        f"the spool {self._root} is full: {size} of {self._limit} bytes",
                        hint="Raise `recorder.spool_limit`, and see why nothing is uploaded.",
                    )
                size -= freed
            self._size = size + wanted

    def _count(self, size_bytes: int) -> None:
        with self._lock:
            if self._size is not None:
                self._size += size_bytes

    def _give_up_oldest(self) -> int:
        """Lose the oldest whole segment for a newer one, loudly. Returns the bytes that came free.

        A rename needs no room on a full disk, and the name says which span is lost.
        """
        if waiting := self._waiting():
            _, _, segment = waiting.pop(0)
            path, lost = self._places.path("ready", segment), self._places.path("lost", segment)
            make_directory(lost.parent)
            with disk_errors(lost):
                try:
                    path.replace(lost)
                except FileNotFoundError:
                    return segment.size_bytes  # retention took it
                if lost.stat().st_nlink > 1:  # the store keeps this very file: to truncate it would lose it
                    remove_file(lost)
                    return segment.size_bytes
                os.truncate(lost, 0)
                sync_directory(lost.parent)
                sync_directory(path.parent)
            telemetry.SPOOL_GIVEN_UP.inc()
            log.error(
                "footage.lost",
                camera_id=str(segment.camera_id),
                start=segment.span.start.isoformat(),
                end=segment.span.end.isoformat(),
                hint="The spool is full: see why nothing is uploaded.",
            )
            return segment.size_bytes
        return 0

    def _waiting(self) -> list[_Entry]:
        """Return the whole segments, oldest first: listed once, then followed. A day's backlog is too much to
        list for each segment."""
        if self._whole is None:
            self._whole = [_entry(segment) for _, segment in self._places.files("ready")]
        return self._whole


def _print(path: Path) -> _Print:
    """Return what changes when a file is written to, or another takes its place."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _entry(segment: Segment) -> _Entry:
    return segment.span.start, segment.object_key, segment


def _start(entry: _Entry) -> datetime:
    return entry[0]


def facts_of(sealed: bytes, *, camera_id: CameraId, span: Span, sequence: int, key_id: KeyId) -> Segment:
    """Return the facts of sealed bytes. ``key_id`` must be the key of the span's start."""
    digest = Sha256Hex(hashlib.sha256(sealed).hexdigest())
    segment = Segment(camera_id, span, sequence, key_id.period, len(sealed), digest, key_id.keep)
    assert segment.key_id == key_id
    return segment
