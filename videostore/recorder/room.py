"""What waits in a spool, the room that all of it takes, and what is given up for something newer."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import datetime
from threading import RLock
from typing import TypeAlias, TypeVar

from videostore import telemetry
from videostore.domain.camera import CameraId
from videostore.domain.errors import DiskFull
from videostore.domain.segment import LONGEST_SEGMENT, ObjectKey, Segment, Span
from videostore.durable import disk_errors, make_directory, remove_file, sync_directory
from videostore.recorder.places import OPEN, Places

log = telemetry.logger("recorder")

_Entry: TypeAlias = tuple[datetime, ObjectKey, Segment]
Done = TypeVar("Done")


class Room:
    """As this process knows it: listed once, then followed. A day's backlog is too much to list for each
    segment. ``lock`` is of this knowledge, and never held while a disk syncs what is recorded."""

    def __init__(self, places: Places, *, limit_bytes: int | None) -> None:
        self.lock = RLock()
        self._places = places
        self._limit = limit_bytes
        self._size: int | None = None  # None until it was counted
        self._whole: list[_Entry] | None = None  # what is in ready, oldest first; None until it was listed

    # --- what waits ---

    def waiting(self) -> list[Segment]:
        """Return the whole segments, oldest first."""
        with self.lock:
            return [segment for _, _, segment in self._entries()]

    def overlapping(self, camera_id: CameraId, span: Span) -> list[Segment]:
        """Return the whole segments of a camera that overlap ``span``."""
        with self.lock:
            entries = self._entries()
            first = bisect_left(entries, span.start - LONGEST_SEGMENT, key=_start)
            last = bisect_left(entries, span.end, key=_start)
            found = (segment for _, _, segment in entries[first:last] if segment.camera_id == camera_id)
            return [segment for segment in found if segment.span.end > span.start]

    def add(self, segment: Segment) -> None:
        """Note that a whole segment waits. Its bytes were counted when they were written."""
        with self.lock:
            entries, entry = self._entries(), _entry(segment)
            place = bisect_left(entries, entry)
            if entries[place : place + 1] != [entry]:
                entries.insert(place, entry)

    def discard(self, segment: Segment) -> None:
        """Note that a whole segment is gone, and its bytes."""
        with self.lock:
            self.count(-segment.size_bytes)
            entries, entry = self._entries(), _entry(segment)
            place = bisect_left(entries, entry)
            if entries[place : place + 1] == [entry]:
                del entries[place]

    def know(self, whole: Sequence[Segment]) -> None:
        """Note that ``whole`` waits, and nothing else is there."""
        with self.lock:
            self._whole = sorted(map(_entry, whole))
            self._size = sum(one.size_bytes for one in whole)

    def list_anew(self) -> None:
        """Believe nothing: somebody else changed what is there."""
        with self.lock:
            self._size = self._whole = None

    def _entries(self) -> list[_Entry]:
        if self._whole is None:
            self._whole = [_entry(segment) for _, segment in self._places.files("ready")]
        return self._whole

    # --- room ---

    def size_bytes(self) -> int:
        """Return the sealed bytes in the spool, those of the segments being recorded included."""
        with self.lock:
            if self._size is None:
                self._size = sum(one.size_bytes for _, one in self._places.all(("ready", ""), *OPEN))
            return self._size

    def count(self, size_bytes: int) -> None:
        """Note that there is so much more."""
        with self.lock:
            if self._size is not None:
                self._size += size_bytes

    def write(self, size_bytes: int, write: Callable[[], None]) -> None:
        """Have so many bytes written, room for them made. Other cameras do not wait while the disk syncs:
        only counting is done one at a time. Raises DiskError."""
        self._take(size_bytes)
        try:
            self.make(write)
        except BaseException:
            self.count(-size_bytes)
            raise

    def make(self, work: Callable[[], Done]) -> Done:
        """Do ``work``; on a full disk again, for as long as something can be given up for it. Raises
        DiskError."""
        while True:
            try:
                with disk_errors(self._places.root):
                    return work()
            except DiskFull:
                with self.lock:
                    freed = self._give_up_oldest()
                    if not freed:
                        raise
                    self.count(-freed)

    def _take(self, wanted: int) -> None:
        with self.lock:
            size = self.size_bytes()
            while self._limit is not None and size + wanted > self._limit:
                freed = self._give_up_oldest()
                if not freed:
                    raise DiskFull(
                        f"the spool {self._places.root} is full: {size} of {self._limit} bytes",
                        hint="Raise `recorder.spool_limit`, and see why nothing is uploaded.",
                    )
                size -= freed
            self._size = size + wanted

    def _give_up_oldest(self) -> int:
        """Lose the oldest whole segment for a newer one, loudly. Returns the bytes that came free.

        A rename needs no room on a full disk, and the name says which span is lost.
        """
        if entries := self._entries():
            _, _, segment = entries.pop(0)
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


def _entry(segment: Segment) -> _Entry:
    return segment.span.start, segment.object_key, segment


def _start(entry: _Entry) -> datetime:
    return entry[0]
